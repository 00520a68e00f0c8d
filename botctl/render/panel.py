"""A titled group of facts, as the `system` verbs print them."""

from __future__ import annotations

from botctl.render.table import pairs
from botctl.render.terminal import BOLD, GREEN, RED, YELLOW, clean
from botctl.render.units import amount, bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal


def panel(out: Terminal, title: str, facts: Sequence[tuple[str, Cell]]) -> None:
    """The facts under their title; those without a value are left out, and so is a title without facts."""
    shown = [fact for fact in facts if fact[1] and fact[1] != "-"]
    if shown:
        out.line(out.paint(title, BOLD))
        pairs(out, shown, indent=2)
        out.line()


def gauge(out: Terminal, share: object, *, warn: float = 0.75, full: float = 0.9) -> str:
    """A coloured bar with its percentage; `share` is 0 to 1. Empty when it is no number."""
    filled = amount(share)
    if filled is None:
        return ""
    style = RED if filled >= full else YELLOW if filled >= warn else GREEN
    return f"{out.paint(bar(filled, 20, unicode=out.unicode), style)} {filled * 100:.0f}%"


def part(document: dict[str, Any], key: str) -> dict[str, Any]:
    """A block of a result; empty when the daemon did not send one."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def warnings(out: Terminal, found: object) -> None:
    """Texts, or {text, remedy}."""
    for warning in found if isinstance(found, list) else ():
        text, remedy = (warning.get("text"), warning.get("remedy")) if isinstance(warning, dict) else (warning, None)
        out.line(f"{out.paint(out.pick('⚠', '!'), YELLOW)} {clean(str(text))}")
        if remedy:
            out.line(f"    try: {clean(str(remedy))}")
