"""A small table: a header, aligned columns, no lines. Fast enough for thousands of rows."""

from __future__ import annotations

from botctl.render.terminal import BOLD, DIM, Terminal, clean, cut, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Cell = str | tuple[str, str]

_GAP = "  "
_LEAST = 6


class Column:
    """`right` aligns numbers; `flexible` may be cut when the terminal is too narrow."""

    __slots__ = ("flexible", "right", "title")

    def __init__(self, title: str, *, right: bool = False, flexible: bool = False) -> None:
        self.title = title
        self.right = right
        self.flexible = flexible


def draw(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print the rows. A cell is a text, or a text and its style; control characters are made visible."""
    texts = [[clean(cell if isinstance(cell, str) else cell[0]) for cell in row] for row in rows]
    widths = [
        max([len(column.title), *(map(width_of, cells))])
        for column, cells in zip(columns, zip(*texts, strict=True) if texts else [()] * len(columns), strict=True)
    ]
    if terminal.width is not None:
        _shrink(widths, columns, terminal.width)
    mark = terminal.pick("…", "~")
    header = [_fit(column.title, width, column, mark) for column, width in zip(columns, widths, strict=True)]
    out = [terminal.paint(_GAP.join(header).rstrip(), BOLD)]
    for row, line in zip(rows, texts, strict=True):
        cells = []
        for cell, text, width, column in zip(row, line, widths, columns, strict=True):
            fitted = _fit(text, width, column, mark)
            style = "" if isinstance(cell, str) else cell[1]
            if text == "-" and not style:
                style = DIM
            cells.append(terminal.paint(fitted, style) if style else fitted)
        out.append(_GAP.join(cells).rstrip())
    terminal.write("\n".join(out) + "\n")


def _fit(text: str, width: int, column: Column, mark: str) -> str:
    used = width_of(text)
    if used > width:
        text = cut(text, width, mark)
        used = width_of(text)
    pad = " " * (width - used)
    return pad + text if column.right else text + pad


def _shrink(widths: list[int], columns: Sequence[Column], room: int) -> None:
    """Take columns from the widest flexible cells until the row fits, or nothing is left to take."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    flexible = [i for i, column in enumerate(columns) if column.flexible]
    while over > 0 and flexible:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= _LEAST:
            return
        others = [widths[i] for i in flexible if i != widest and widths[i] < widths[widest]]
        floor = max([_LEAST, *others])
        taken = max(1, min(over, widths[widest] - floor))
        widths[widest] -= taken
        over -= taken


def pairs(terminal: Terminal, rows: Sequence[tuple[str, Cell]], *, indent: int = 0) -> None:
    """`name: value` lines, the names right-aligned, as systemctl prints them. Empty values are left out."""
    shown = [(name, cell) for name, cell in rows if (cell if isinstance(cell, str) else cell[0])]
    width = max((len(name) for name, _ in shown), default=0) + indent
    for name, cell in shown:
        text, style = (cell, "") if isinstance(cell, str) else cell
        value = terminal.paint(text, style) if style else text
        terminal.line(f"{terminal.paint(name.rjust(width) + ':', DIM)} {value}")
