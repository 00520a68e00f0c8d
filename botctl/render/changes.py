"""The difference between a manifest and the fleet, after the manner of `git diff`."""

from __future__ import annotations

from botctl import wire
from botctl.render.terminal import BOLD, DIM, GREEN, RED, YELLOW, Terminal, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_MARKS = {
    "update": ("~", YELLOW, "update"),
    "create": ("+", GREEN, "create"),
    "change": ("~", YELLOW, "change"),
    "restart": ("~", YELLOW, "change"),
    "start": ("~", YELLOW, "start"),
    "stop": ("~", YELLOW, "stop"),
    "delete": ("-", RED, "delete"),
}
# What stands in these is shown to nobody.
_HIDDEN = ("env", "secrets")


def differing(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [item for item in items if item.get("action") in _MARKS]


def show_changes(out: Terminal, items: Sequence[Mapping[str, Any]]) -> None:
    """Every bot that differs, and each of its fields; a bot that stays as it is is not mentioned."""
    for item in differing(items):
        mark, style, word = _MARKS[str(item["action"])]
        after = ", restarts" if item.get("restarts") else ", no restart" if word == "change" else ""
        id = clean(str(item.get("id")))
        out.line(f"{out.paint(f'{mark} {word} {id}', style, BOLD)}{out.paint(after, DIM)}")
        for field in item.get("fields") or ():
            if isinstance(field, dict):
                _field(out, field, created=word == "create")


def show_template_change(out: Terminal, template: Mapping[str, Any]) -> None:
    """What would become of a template; nothing when its release stays in force."""
    action = str(template.get("action"))
    if action not in ("create", "update"):
        return
    mark, style, _ = _MARKS[action]
    name, release = clean(str(template.get("name"))), str(template.get("release"))[:12]
    former = template.get("former")
    arrow = f"{str(former)[:12]} {out.pick('→', '->')} " if former else ""
    out.line(f"{out.paint(f'{mark} {action} template {name}', style, BOLD)}: release {arrow}{release}")
    behind = template.get("bots_behind")
    if behind and action == "update":
        out.line(out.paint(f"    {behind} bots stay with the release that they have", DIM))


def _field(out: Terminal, field: dict[str, Any], *, created: bool) -> None:
    name = clean(str(field.get("field")))
    old, new = field.get("old"), field.get("new")
    if name.partition(".")[0] in _HIDDEN:
        out.line(f"    {name}: {out.paint(_hidden(old, new, created=created), DIM if created else YELLOW)}")
    elif created or old is None:
        out.line(f"    {name}: {out.paint(_value(new), GREEN)}")
    else:
        arrow = out.pick("→", "->")
        out.line(f"    {name}: {out.paint(_value(old), RED)} {arrow} {out.paint(_value(new), GREEN)}")


def _hidden(old: object, new: object, *, created: bool) -> str:
    """What can be told of environment values and secrets: which ones, never what is in them."""
    if created:
        return "***"
    if not isinstance(old, dict) or not isinstance(new, dict):
        return "changed"
    names = sorted({*old, *new})
    return clean(
        ", ".join(f"{n} {'added' if n not in old else 'removed' if n not in new else 'changed'}" for n in names)
    )


def _value(value: object) -> str:
    if value is None:
        return "(none)"
    return clean(value if isinstance(value, str) else wire.encode(value))


def summary_in_words(summary: Mapping[str, Any]) -> str:
    """'2 to create, 1 to change, 9 as they are'."""
    words = (
        ("create", "to create"),
        ("change", "to change"),
        ("restart", "to restart"),
        ("delete", "to delete"),
        ("keep", "as they are"),
    )
    told = [f"{summary[key]} {text}" for key, text in words if summary.get(key)]
    return ", ".join(told) or "nothing to do"
