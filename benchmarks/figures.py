"""Figures, and the one table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["s", "ms", "MB", "CPU s", "/s", ""]
_DASH = "–"


@dataclass(frozen=True)
class Figure:
    """One measured value beside its floors. `n`: bots; None where their number plays no role.

    `value` is a number in `unit`, or words. `floor` and `second_floor` are in the same unit; what they are stands
    in `floors`. `bar` is the most that it may be. `peers` holds the other managers' values by name.
    """

    name: str
    n: int | None
    value: float | str
    unit: Unit
    floor: float | None = None
    second_floor: float | None = None
    floors: str = ""
    bar: float | None = None
    note: str = ""
    samples: Sequence[float] = ()
    peers: dict[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its floor."""
        if isinstance(self.value, str) or not self.floor:
            return None
        return self.value / self.floor

    @property
    def met(self) -> bool | None:
        """Whether the bar holds; None without a bar."""
        if self.bar is None or isinstance(self.value, str):
            return None
        return self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "n": self.n,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "second_floor": self.second_floor,
            "floors": self.floors,
            "ratio": self.ratio,
            "bar": self.bar,
            "met": self.met,
            "note": self.note,
            "samples": list(self.samples),
            "peers": self.peers,
        }


def table(figures: Sequence[Figure], peers: Sequence[str]) -> list[str]:
    """Aligned lines: a head, a rule, one line a figure, and what the floors and notes are."""
    head = ["measure", "N", "botd", "floor", "2nd floor", "x floor", "bar", "met", *peers]
    rows = [_row(figure, peers) for figure in figures]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [_line(head, widths), "  ".join("-" * width for width in widths)]
    for number, (figure, row) in enumerate(zip(figures, rows, strict=True)):
        if number and figure.name != figures[number - 1].name and figure.n != figures[number - 1].n:
            lines.append("")
        lines.append(_line(row, widths))
    legend = {f"{figure.name}: {figure.floors}": None for figure in figures if figure.floors}
    notes = [f"{figure.name}{_of(figure)}: {figure.note}" for figure in figures if figure.note]
    return [
        *lines,
        "",
        "floors",
        *(f"  {words}" for words in legend),
        *(["notes"] if notes else []),
        *(f"  {words}" for words in notes),
    ]


def _of(figure: Figure) -> str:
    return "" if figure.n is None else f" ({figure.n})"


def _row(figure: Figure, peers: Sequence[str]) -> list[str]:
    ratio, met = figure.ratio, figure.met
    return [
        figure.name,
        _DASH if figure.n is None else str(figure.n),
        _words(figure.value, figure.unit),
        _words(figure.floor, figure.unit),
        _words(figure.second_floor, figure.unit),
        _DASH if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
        _words(figure.bar, figure.unit),
        _DASH if met is None else "yes" if met else "NO",
        *(_words(figure.peers.get(name), figure.unit) for name in peers),
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    aligned = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
    return "  ".join(aligned).rstrip()


def _words(value: float | str | None, unit: Unit) -> str:
    """Three significant digits, and never an exponent."""
    if value is None or value != value:
        return _DASH
    if isinstance(value, str):
        return value
    if unit == "/s":
        return f"{value:,.0f} /s".replace(",", " ")
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f} {unit}".rstrip()
