"""A line of a bot's output, as a terminal may see it."""

from __future__ import annotations

from botctl.render.terminal import BLUE, CYAN, DIM, GREEN, MAGENTA, RED, YELLOW, Terminal, clean, clean_colored
from botctl.render.units import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX_COLORS = (CYAN, YELLOW, GREEN, MAGENTA, BLUE, "96", "93", "92", "95", "94")


def line_of(out: Terminal, item: dict[str, Any], *, timestamps: bool = False, prefix: str = "") -> str:
    """One line, its control characters neutralised for a terminal and untouched for a file or a pipe."""
    text = str(item.get("line", ""))
    if out.is_tty:
        text = clean_colored(text, color=out.color)
    if item.get("stream") == "stderr":
        text = out.paint(text, RED) if "\x1b" not in text else text
    when = f"{out.paint(local(item.get('at')), DIM)} " if timestamps else ""
    return f"{prefix}{when}{text}"


class Prefixes:
    """`alice/shop | ` in front of each line, a bot keeping its colour, the bars in one column."""

    __slots__ = ("_known", "_out", "_width")

    def __init__(self, out: Terminal, ids: list[str]) -> None:
        self._out = out
        self._width = max(map(len, ids), default=0)
        self._known: dict[str, str] = {}

    def of(self, id: str) -> str:
        prefix = self._known.get(id)
        if prefix is None:
            color = _PREFIX_COLORS[len(self._known) % len(_PREFIX_COLORS)]
            self._width = max(self._width, len(id))
            prefix = self._out.paint(f"{clean(id).ljust(self._width)} |", color) + " "
            self._known[id] = prefix
        return prefix
