"""A bot's specification out of its template's release and what is set for the bot itself. Pure.

What a bot has of its own wins; `env` and `labels` are joined entry by entry. Words in braces in the command and in the
values of the environment stand for places: {release} the release's tree (shared, read-only), {app} the bot's working
folder, {data} its private folder, {python} the release's interpreter (or the machine's python3), {node}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botd.contract.errors import BotdError, invalid
from botd.contract.manifest import DEFAULTS, check_spec
from botd.core.bot import Spec

KEYS = (
    "command",
    "env",
    "labels",
    "memory_mb",
    "processes",
    "cpu",
    "restart",
    "stop_signal",
    "stop_grace_s",
    "port",
    "probe",
)
"""What a template may set, and a bot of it for itself."""

_JOINED = ("env", "labels")
SHOWN = 12
"""Characters of a release's hash that people see."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a release concerns its bots. `tree` is the path of its code, `manifest` its settings in force."""

    template: str
    release: str
    tree: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one bot: paths."""

    app: str
    data: str


def own_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a specification as it travels is set for the bot itself."""
    return {key: given[key] for key in KEYS if key in given and not (key in _JOINED and not given[key])}


def resolve(bot_id: str, own: Mapping[str, Any], facts: Facts, place: Place, secret_names: Iterable[str] = ()) -> Spec:
    """The whole specification. BotdError(invalid) when the two together cannot make a bot."""
    template = {key: facts.manifest[key] for key in KEYS if facts.manifest.get(key) is not None}
    wire: dict[str, Any] = {**DEFAULTS, **template, **own}
    for table in _JOINED:
        wire[table] = {**template.get(table, {}), **own.get(table, {})}
    if not wire.get("command"):
        raise invalid(
            "command",
            f"neither {bot_id} nor its template {facts.template} says what to run",
            hint=f"give the bot a command, or the template: botctl template show {facts.template}",
        )
    words = _words(facts, place)
    wire["command"] = [_filled(word, words) for word in wire["command"]]
    wire["env"] = {name: _filled(value, words) for name, value in wire["env"].items()}
    wire |= {"id": bot_id, "directory": place.app, "template": facts.template}
    try:
        check_spec({key: value for key, value in wire.items() if key != "template"})
    except BotdError as error:
        raise BotdError(
            error.kind, f"{bot_id} with template {facts.template}: {error.message}", hint=error.hint, exit=error.exit
        ) from None
    spec = Spec.from_wire(wire | {"secrets": dict.fromkeys(secret_names)})
    return replace(spec, release=facts.release, own=dict(own))


def moved(spec: Spec, facts: Facts, place: Place) -> Spec:
    """The same bot with another release of its template (or another template)."""
    return resolve(spec.id, spec.own or {}, facts, place, spec.secret_names)


def interpreter(manifest: Mapping[str, Any], tree: str) -> str:
    """The python of a release: that of its virtual environment, else whatever PATH has."""
    python = manifest.get("python")
    if isinstance(python, Mapping) and (python.get("venv") or python.get("requirements")):
        return f"{tree}/{str(python.get('venv') or '.venv').strip('/')}/bin/python"
    return "python3"


def _words(facts: Facts, place: Place) -> dict[str, str]:
    return {
        "{release}": facts.tree,
        "{app}": place.app,
        "{data}": place.data,
        "{python}": interpreter(facts.manifest, facts.tree),
        "{node}": "node",
    }


def _filled(text: str, words: Mapping[str, str]) -> str:
    if "{" in text:
        for word, path in words.items():
            text = text.replace(word, path)
    return text
