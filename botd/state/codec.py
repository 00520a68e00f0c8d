"""BotState and Spec <-> JSON, written so that a record of any earlier botd opens for ever.

Unknown keys are ignored and missing ones get their defaults; a value of the wrong type raises ValueError
with its key. What has a column of its own (id, wanted, generation, phase) is not repeated in the JSON. Of
a state, which is written all the time, only what differs from a new bot's is written at all; a Spec is
written in full, because the defaults of what a user may leave out can change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, get_args

from botd.contract.vocabulary import PHASES, Phase
from botd.core.bot import BotState, Deadline, Exit, Recovery, Spec, Then

# ASCII only: also a lone surrogate out of somebody's file name comes back as it was.
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
_scan = json.JSONDecoder().raw_decode

_NONE = type(None)
_Types = Mapping[str, tuple[type, ...]]

_STATE: _Types = {
    "pid": (int, _NONE),
    "since": (float, int),
    "started_at": (float, int, _NONE),
    "settled": (bool,),
    "health": (str,),
    "health_note": (str,),
    "attempts": (int,),
    "restarts": (int,),
    "recovering": (bool,),
    "then": (str,),
    "cause": (str,),
    "purge": (bool,),
    "deadline": (list, _NONE),
    "reason": (str,),
    "last_exit": (dict, _NONE),
    "outage_at": (float, int, _NONE),
    "recovery": (dict,),
}
_EXIT: _Types = {
    "code": (int, _NONE),
    "signal": (int, _NONE),
    "at_wall": (float, int),
    "ran_s": (float, int),
    "cause": (str,),
    "note": (str,),
    "forks_refused": (int,),
}
_RECOVERY: _Types = {
    "attempts": (int,),
    "successes": (int,),
    "failures": (int,),
    "total_s": (float, int),
    "worst_s": (float, int),
}
_SPEC: _Types = {
    "command": (list,),
    "directory": (str,),
    "env": (dict,),
    "labels": (dict,),
    "memory_mb": (int,),
    "processes": (int,),
    "cpu": (float, int),
    "restart": (str,),
    "stop_signal": (str,),
    "stop_grace_s": (float, int),
    "port": (bool,),
    "probe": (dict, _NONE),
    "template": (str, _NONE),
    "release": (str, _NONE),
    "own": (dict, _NONE),
    "secret_names": (list,),
}
_PROBE: _Types = {
    "kind": (str,),
    "url": (str, _NONE),
    "port": (int, _NONE),
    "interval_s": (float, int),
    "timeout_s": (float, int),
    "failures": (int,),
    "start_grace_s": (float, int),
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "health": ("unknown", "healthy", "unhealthy"),
    "then": get_args(Then),
    "deadline": ("retry", "settle", "reset", "kill"),
}

_Fields = tuple[Callable[[Any], tuple[Any, ...]], tuple[tuple[str, object], ...]]


def _fields(types: _Types, origin: object) -> _Fields:
    """How to read these fields at once, and what each is in `origin`."""
    return attrgetter(*types), tuple((name, getattr(origin, name)) for name in types)


_STATE_FIELDS = _fields(_STATE, BotState())
_EXIT_FIELDS = _fields(_EXIT, Exit(None, None, 0.0))
_RECOVERY_FIELDS = _fields(_RECOVERY, Recovery())


def _changed(value: object, fields: _Fields) -> dict[str, Any]:
    read, origin = fields
    return {name: now for now, (name, default) in zip(read(value), origin, strict=True) if now != default}


def encode_state(state: BotState) -> str:
    """Everything of `state` but `wanted`, `generation` and `phase`."""
    wire = _changed(state, _STATE_FIELDS)
    if "last_exit" in wire:
        wire["last_exit"] = _changed(wire["last_exit"], _EXIT_FIELDS)
    if "recovery" in wire:
        wire["recovery"] = _changed(wire["recovery"], _RECOVERY_FIELDS)
    return _to_json(wire)


def decode_state(text: str, *, wanted: bool, generation: int, phase: str) -> BotState:
    """The state that `encode_state` wrote, or an older botd. Raises ValueError."""
    if phase not in PHASES:
        raise ValueError(f"phase: {phase!r} is unknown")
    known: Phase = phase
    wire = _known(_object(text), _STATE)
    for key in ("health", "then"):
        if key in wire:
            _check_word(key, wire[key])
    if wire.get("deadline") is not None:
        wire["deadline"] = _deadline(wire["deadline"])
    if wire.get("last_exit") is not None:
        fields = _known(wire["last_exit"], _EXIT, "last_exit.")
        wire["last_exit"] = Exit(
            fields.pop("code", None), fields.pop("signal", None), fields.pop("at_wall", 0.0), **fields
        )
    if "recovery" in wire:
        wire["recovery"] = Recovery(**_known(wire["recovery"], _RECOVERY, "recovery."))
    return BotState(phase=known, wanted=wanted, generation=generation, **wire)


def encode_spec(spec: Spec) -> str:
    """Everything of `spec` but its id; of secrets only the names, because a Spec has no more."""
    wire = spec.to_wire()
    del wire["id"]
    wire["secret_names"] = spec.secret_names
    wire["release"] = spec.release
    if spec.own is not None:
        wire["own"] = spec.own
    return _to_json(wire)


def decode_spec(bot_id: str, text: str) -> Spec:
    """The Spec of `bot_id` that `encode_spec` wrote, or an older botd. Raises ValueError."""
    wire = _known(_object(text), _SPEC)
    for key in ("command", "directory"):
        if key not in wire:
            raise ValueError(f"{key}: is missing")
    _check_strings("command", wire["command"])
    for key in ("env", "labels"):
        _check_strings(key, wire.get(key, {}).values())
    names, release, own = wire.pop("secret_names", []), wire.pop("release", None), wire.pop("own", None)
    _check_strings("secret_names", names)
    if wire.get("probe") is not None:
        wire["probe"] = _known(wire["probe"], _PROBE, "probe.")
        if "kind" not in wire["probe"]:
            raise ValueError("probe.kind: is missing")
    spec = Spec.from_wire(wire | {"id": bot_id, "secrets": dict.fromkeys(names)})
    return spec if release is None and own is None else replace(spec, release=release, own=own)


def _object(text: str) -> dict[str, Any]:
    value, end = _scan(text)  # raises json.JSONDecodeError, which is a ValueError
    if type(value) is not dict or end != len(text):
        raise ValueError("is no JSON object")
    return value


def _known(wire: dict[str, Any], types: _Types, where: str = "") -> dict[str, Any]:
    out = {}
    for key, value in wire.items():
        expected = types.get(key)
        if expected is None:
            continue
        # By exact type: in Python True is an int, in JSON it is not.
        if type(value) not in expected:
            raise ValueError(f"{where}{key}: a {type(value).__name__} is not expected here")
        out[key] = value
    return out


def _check_word(key: str, word: str) -> None:
    if word not in _WORDS[key]:
        raise ValueError(f"{key}: {word!r} is unknown")


_ONLY_STRINGS = frozenset({str})


def _check_strings(key: str, values: Iterable[Any]) -> None:
    if not _ONLY_STRINGS.issuperset(map(type, values)):
        raise ValueError(f"{key}: must hold strings only")


def _deadline(wire: list[Any]) -> Deadline:
    if len(wire) != 2 or type(wire[0]) is not str or type(wire[1]) not in (float, int):
        raise ValueError("deadline: is no pair of a kind and a time")
    _check_word("deadline", wire[0])
    return Deadline(wire[0], wire[1])  # type: ignore[arg-type]  # one of the words, as just checked
