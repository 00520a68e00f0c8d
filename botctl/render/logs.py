"""A line of a bot's output, as a terminal may see it."""

from __future__ import annotations

from botctl.render.terminal import BLUE, CYAN, DIM, GREEN, MAGENTA, RED, YELLOW, Terminal, clean, clean_colored
from botctl.render.units import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX_COLORS = (CYAN, YELLOW, GREEN, MAGENTA, BLUE, "96", "93", "92", "95", "94")


def show_line(out: Terminal, item: dict[str, Any], *, timestamps: bool = False, prefix: str = "") -> None:
    """Print one line: safe for a terminal, and with the very bytes of the bot for a file or a pipe."""
    raw = None if out.is_tty else bytes_of(item)
    if raw is None:
        out.line(line_of(out, item, timestamps=timestamps, prefix=prefix))
    else:
        out.write(prefix + _when(out, item, timestamps=timestamps))
        out.write_bytes(raw + b"\n")


def bytes_of(item: dict[str, Any]) -> bytes | None:
    """What the bot wrote where that is no UTF-8; None where the text says it all."""
    raw = item.get("raw")
    if not isinstance(raw, str):
        return None
    from binascii import Error, a2b_base64

    try:
        return a2b_base64(raw)
    except (Error, ValueError):
        return None


def line_of(out: Terminal, item: dict[str, Any], *, timestamps: bool = False, prefix: str = "") -> str:
    """One line, its control characters neutralised for a terminal and untouched for a file or a pipe."""
    text = str(item.get("line", ""))
    if out.is_tty:
        text = clean_colored(text, color=out.color)
    if item.get("stream") == "stderr":
        text = out.paint(text, RED) if "\x1b" not in text else text
    return f"{prefix}{_when(out, item, timestamps=timestamps)}{text}"


def _when(out: Terminal, item: dict[str, Any], *, timestamps: bool) -> str:
    return f"{out.paint(local(item.get('at')), DIM)} " if timestamps else ""


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
