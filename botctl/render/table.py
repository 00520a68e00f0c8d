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
    """Print the rows. A cell is a text, or a text and its style; control characters are made visible.

    Works column by column: what all texts of a column have in common is found out once, not per cell.
    """
    by_column: list[Sequence[Cell]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    texts = [[clean(cell if isinstance(cell, str) else cell[0]) for cell in cells] for cells in by_column]
    widths = [
        max([len(column.title), *_widths(of_column).values()]) for column, of_column in zip(columns, texts, strict=True)
    ]
    if terminal.width is not None:
        _shrink(widths, columns, terminal.width)
    printed = []
    for column, cells, of_column, width in zip(columns, by_column, texts, widths, strict=True):
        fitted = _fit([column.title, *of_column], width, column, terminal.pick("…", "~"))
        if terminal.color:
            fitted[1:] = [_painted(terminal, *pair) for pair in zip(cells, fitted[1:], strict=True)]
        printed.append(fitted)
    head, *lines = (_GAP.join(line).rstrip() for line in zip(*printed, strict=True))
    terminal.write("\n".join([terminal.paint(head, BOLD), *lines]) + "\n")


def _widths(texts: Sequence[str]) -> dict[str, int]:
    return {text: width_of(text) for text in set(texts)}


def _fit(texts: Sequence[str], width: int, column: Column, mark: str) -> list[str]:
    widths = _widths(texts)
    if max(widths.values()) > width:
        texts = [text if widths[text] <= width else cut(text, width, mark) for text in texts]
        widths = _widths(texts)
    if column.right:
        return [" " * (width - widths[text]) + text for text in texts]
    return [text + " " * (width - widths[text]) for text in texts]


def _painted(terminal: Terminal, cell: Cell, fitted: str) -> str:
    if isinstance(cell, str):
        return terminal.paint(fitted, DIM) if cell == "-" else fitted
    return terminal.paint(fitted, cell[1]) if cell[1] else fitted


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
