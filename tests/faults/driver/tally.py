"""The figures of a run, and the table of them."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """`violations` are sentences, each with what it takes to run its chapter again."""

    faults: Counter = field(default_factory=Counter)
    points: Counter = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    lives: int = 0
    lines: int = 0
    lines_lost: int = 0
    lines_doubled: int = 0
    tails: int = 0
    exact: int = 0
    unknown: int = 0
    wrong: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    broken: int = 0
    api: list = field(default_factory=list)
    api_by_itself: list = field(default_factory=list)
    keeper: list = field(default_factory=list)
    recovery: list = field(default_factory=list)
    violations: list = field(default_factory=list)

    def add(self, other):
        for name, value in vars(other).items():
            if isinstance(value, (int, list)):
                setattr(self, name, getattr(self, name) + value)
            else:
                getattr(self, name).update(value)

    def rows(self):
        """(what, figure) in the order of the table."""
        injected = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.faults.items()))
        yield "faults injected", f"{sum(self.faults.values()):,} ({injected})"
        if self.points:
            yield "crash points reached", f"{len(self.points)} of them, {sum(self.points.values()):,} times"
        yield "lives of bots", f"{self.lives:,}"
        yield "bots lost", f"{self.lost:,}"
        yield "bots doubled", f"{self.doubled:,}"
        yield "lines of output", f"{self.lines:,}"
        yield "lines lost", f"{self.lines_lost:,}"
        yield "lines doubled", f"{self.lines_doubled:,}"
        yield "tails of lives that ended while both were dead", f"{self.tails:,}"
        yield "exit statuses exact", f"{self.exact:,}"
        yield "exit statuses unknown, where they may be", f"{self.unknown:,}"
        yield "exit statuses wrong, missing or unknown elsewhere", f"{self.wrong:,}"
        yield "changes acknowledged", f"{self.acknowledged:,} (and {self.unanswered:,} asked for without an answer)"
        yield "acknowledged changes lost", f"{self.broken:,}"
        yield "API answers again, asked for by a command", spread(self.api)
        yield "API answers again, brought back by the keeper", spread(self.api_by_itself)
        yield "another keeper is connected", spread(self.keeper)
        yield "a bot that ended by itself runs again", spread(self.recovery)

    def table(self, markdown=False):
        rows = list(self.rows())
        if markdown:
            return "\n".join(["| figure | value |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])
        width = max(len(a) for a, _ in rows)
        return "\n".join(f"{a:<{width}}  {b}" for a, b in rows)


def spread(seconds):
    if not seconds:
        return "-"
    slow = sum(one > 2.0 for one in seconds)
    over = f"; over 2 s: {slow}" if slow else ""
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds):,}{over}"
