"""The difference between a manifest and the fleet, after the manner of `git diff`."""

from __future__ import annotations

from botctl import wire
from botctl.render.terminal import BOLD, DIM, GREEN, RED, YELLOW, Terminal, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_MARKS = {
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
