"""apply: what is and what a manifest wants -> the smallest set of changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from botd.core.bot import Spec

Action = Literal["create", "change", "restart", "start", "stop", "delete", "keep"]

# A change of any other field takes effect without a new life.
NEEDS_NEW_LIFE = frozenset({"command", "directory", "env", "secrets", "port", "template"})


@dataclass(frozen=True, slots=True)
class Have:
    """A bot as it is."""

    spec: Spec
    wanted: bool
    source: str | None
    alive: bool
    """It has a life that a changed command would have to end."""


@dataclass(frozen=True, slots=True)
class Want:
    """A bot as the manifest has it. `secrets_changed`: their values differ from those on record."""

    spec: Spec
    enabled: bool
    secrets_changed: bool = False


@dataclass(frozen=True, slots=True)
class FieldChange:
    """Values are shown; environment values and secrets are `***`."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Change:
    id: str
    action: Action
    fields: tuple[FieldChange, ...] = ()
    restarts: bool = False
    wanted: bool = True
    """Wanted running after the change."""


def plan(have: Mapping[str, Have], want: Iterable[Want], source: str, *, prune: bool) -> list[Change]:
    """The changes in the manifest's order, deletions last. `have` holds every bot that `want` or `source` names."""
    out: list[Change] = []
    named: set[str] = set()
    for one in want:
        named.add(one.spec.id)
        out.append(_one(have.get(one.spec.id), one, source))
    if prune:
        gone = sorted(bot_id for bot_id, bot in have.items() if bot.source == source and bot_id not in named)
        out += [Change(bot_id, "delete", wanted=False) for bot_id in gone]
    return out


def _one(have: Have | None, want: Want, source: str) -> Change:
    bot_id = want.spec.id
    if have is None:
        return Change(bot_id, "create", wanted=want.enabled)
    fields = tuple(differences(have.spec, want.spec, secrets_changed=want.secrets_changed))
    restarts = have.alive and want.enabled and any(change.field in NEEDS_NEW_LIFE for change in fields)
    if have.source != source:
        fields = (*fields, FieldChange("source", have.source, source))
    if have.wanted != want.enabled:
        fields = (*fields, FieldChange("enabled", have.wanted, want.enabled))
        return Change(bot_id, "start" if want.enabled else "stop", fields, False, want.enabled)
    if restarts:
        return Change(bot_id, "restart", fields, True, want.enabled)
    return Change(bot_id, "change" if fields else "keep", fields, False, want.enabled)


def differences(old: Spec, new: Spec, *, secrets_changed: bool) -> list[FieldChange]:
    before, after = old.to_wire(), new.to_wire()
    out: list[FieldChange] = []
    for key in dict.fromkeys([*before, *after]):
        if key == "env":
            out += _env(old.env, new.env)
        elif before.get(key) != after.get(key):
            out.append(FieldChange(key, before.get(key), after.get(key)))
    if old.secret_names != new.secret_names:
        out.append(FieldChange("secrets", list(old.secret_names), list(new.secret_names)))
    elif secrets_changed:
        out.append(FieldChange("secrets", "***", "*** (changed)"))
    if not out and old.own != new.own:
        # The same today, and not with the next release: what is a bot's own outlives its template's defaults.
        out.append(FieldChange("own", sorted(old.own or ()), sorted(new.own or ())))
    return out


def _env(old: Mapping[str, str], new: Mapping[str, str]) -> list[FieldChange]:
    """One change for the whole table, naming the variables and none of the values."""
    if old == new:
        return []
    before = {key: "***" for key in sorted(old) if old.get(key) != new.get(key)}
    after = {key: "*** (changed)" if key in old else "***" for key in sorted(new) if old.get(key) != new.get(key)}
    return [FieldChange("env", before, after)]
