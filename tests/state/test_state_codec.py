"""Every state and spec comes back as it was, an old one opens, a spoilt one is refused by its key."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from state_bots import RUNNING, specs, states, unhurried

from botd.core.bot import BotState, Deadline, Exit, Probe, Recovery, Spec
from botd.state import codec
from botd.state.codec import decode_spec, decode_state, encode_spec, encode_state


def again(state: BotState) -> BotState:
    return decode_state(encode_state(state), wanted=state.wanted, generation=state.generation, phase=state.phase)


def read(**wire: object) -> BotState:
    return decode_state(json.dumps(wire), wanted=True, generation=1, phase="running")


@unhurried
@given(states)
def test_a_state_comes_back_as_it_was(state: BotState) -> None:
    assert again(state) == state


@unhurried
@given(specs)
def test_a_spec_comes_back_as_it_was(spec: Spec) -> None:
    assert decode_spec(spec.id, encode_spec(spec)) == spec


@pytest.mark.parametrize(
    ("kind", "carried"),
    [
        (BotState, {*codec._STATE, "phase", "wanted", "generation"}),
        (Exit, set(codec._EXIT)),
        (Recovery, set(codec._RECOVERY)),
        (Probe, set(codec._PROBE)),
    ],
)
def test_no_field_is_forgotten(kind: type, carried: set[str]) -> None:
    assert {field.name for field in fields(kind)} == carried


def test_no_key_of_a_spec_is_forgotten() -> None:
    full = Spec(
        "a/b",
        ("x",),
        "/",
        memory_bytes=1 << 20,
        processes=64,
        cpu=0.5,
        probe=Probe("tcp", port=1),
        template="t",
        release="r",
        own={"cpu": 0.5},
        secret_names=("S",),
    )
    assert set(json.loads(encode_spec(full))) == set(codec._SPEC)


def test_the_types_survive_json() -> None:
    back = again(RUNNING)
    assert type(back.deadline) is Deadline
    assert type(back.last_exit) is Exit
    assert type(back.recovery) is Recovery


def test_a_new_bot_is_nothing_worth_writing_down() -> None:
    assert encode_state(BotState()) == "{}"


def test_unknown_keys_are_ignored_and_missing_ones_filled() -> None:
    state = read(pid=5, colour="blue", last_exit={"code": 1, "mood": "sad"}, recovery={"attempts": 2, "luck": 1})
    assert state == BotState(
        "running", wanted=True, generation=1, pid=5, last_exit=Exit(1, None, 0.0), recovery=Recovery(attempts=2)
    )
    text = '{"command":["a"],"directory":"/","sparkle":1,"probe":{"kind":"tcp","port":1,"glow":2}}'
    assert decode_spec("a/b", text) == Spec("a/b", ("a",), "/", probe=Probe("tcp", port=1), stop_grace_s=10)


@pytest.mark.parametrize(
    ("wire", "key"),
    [
        ({"pid": "5"}, "pid"),
        ({"pid": True}, "pid"),
        ({"settled": 1}, "settled"),
        ({"since": None}, "since"),
        ({"health": "splendid"}, "health"),
        ({"then": "panic"}, "then"),
        ({"deadline": ["someday", 1.0]}, "deadline"),
        ({"deadline": ["retry"]}, "deadline"),
        ({"deadline": [["retry"], 1.0]}, "deadline"),
        ({"last_exit": {"code": "0"}}, "last_exit.code"),
        ({"recovery": {"total_s": "long"}}, "recovery.total_s"),
        ({"recovery": None}, "recovery"),
    ],
)
def test_a_spoilt_state_is_refused_by_its_key(wire: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        read(**wire)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"pid": 1} x', '"running"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_state(text, wanted=True, generation=1, phase="running")
    with pytest.raises(ValueError):
        decode_spec("a/b", text)


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^phase: 'asleep'"):
        decode_state("{}", wanted=True, generation=1, phase="asleep")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"command": "rm -rf"}, "command"),
        ({"command": [1]}, "command"),
        ({"env": {"A": 1}}, "env"),
        ({"labels": []}, "labels"),
        ({"secret_names": [None]}, "secret_names"),
        ({"memory_mb": 1.5}, "memory_mb"),
        ({"probe": {"port": 1}}, "probe.kind"),
        ({"probe": {"kind": "tcp", "failures": "3"}}, "probe.failures"),
        ({"directory": None}, "directory"),
    ],
)
def test_a_spoilt_spec_is_refused_by_its_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        decode_spec("a/b", json.dumps({"command": ["a"], "directory": "/"} | change))


@pytest.mark.parametrize("key", ["command", "directory"])
def test_a_spec_cannot_do_without(key: str) -> None:
    wire = {"command": ["a"], "directory": "/"}
    del wire[key]
    with pytest.raises(ValueError, match=f"^{key}: is missing"):
        decode_spec("a/b", json.dumps(wire))


def test_what_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError):
        encode_state(replace(RUNNING, since=float("nan")))
