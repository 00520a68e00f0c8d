"""Who has how much on disk, as it was measured last: figures by bot, sums by user, levels. Pure bookkeeping.

Nothing here is proportional to the fleet, but what is asked about many bots.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from botd.core.quota import Big, Level, Usage

_RATE_S = 0.5


@dataclass(slots=True)
class Figure:
    """A bot as it was measured last. `at`: CLOCK_BOOTTIME, when that began, `wall`: the same in seconds since the
    epoch; `rate`: bytes a minute since the time before; `base`: its size when the growth began to count that a user
    who is over may not have; `witnessed`: see `quota.Writer`; `entries`: files and folders; `complete`: nothing in it
    was closed to us; `took_s`: what measuring cost.
    """

    usage: Usage
    at: float
    wall: float
    base: int
    rate: float = 0.0
    witnessed: bool = False
    entries: int | None = None
    complete: bool = True
    took_s: float = 0.0


class Ledger:
    """`changed` and `gone`: ids of bots and names of users whose entries are not on record as they are here."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}
        self.levels: dict[str, Level] = {}
        """Of users that are not `within`."""
        self.changed: set[str] = set()
        self.gone: set[str] = set()
        self._of_user: dict[str, int] = {}

    def of_user(self, user: str) -> int:
        """The bytes of all bots of a user."""
        return self._of_user.get(user, 0)

    def users(self) -> set[str]:
        """Everybody who has something, or once had too much of it."""
        return {*self._of_user, *self.levels}

    def level(self, user: str) -> Level:
        return self.levels.get(user, "within")

    def biggest(self, bots: Iterable[str], count: int = 3) -> list[Big]:
        """The largest of these bots."""
        figures = self.figures
        sized = ((figures[bot_id].usage.total, bot_id) for bot_id in bots if bot_id in figures)
        return [Big(bot_id, size) for size, bot_id in heapq.nlargest(count, sized)]

    def recall(self, bot_id: str, usage: Usage, at: float, wall: float) -> None:
        """A figure that is on record."""
        self._enter(bot_id, Figure(usage, at, wall, usage.total))

    def enter(self, bot_id: str, usage: Usage, at: float, wall: float) -> tuple[Figure, int]:
        """A new figure, to be completed by the caller, and by how many bytes the bot has grown."""
        before, figure = self.figures.get(bot_id), Figure(usage, at, wall, usage.total)
        grown = usage.total
        if before is not None:
            grown -= before.usage.total
            passed = at - before.at
            figure.rate = 60.0 * grown / passed if passed >= _RATE_S else before.rate
            figure.base, figure.witnessed = before.base, before.witnessed
        self._enter(bot_id, figure)
        if before is None or before.usage != usage:
            self.changed.add(bot_id)
            self.gone.discard(bot_id)
        return figure, grown

    def _enter(self, bot_id: str, figure: Figure) -> None:
        before = self.figures.get(bot_id)
        self.figures[bot_id] = figure
        self._count(bot_id, figure.usage.total - (0 if before is None else before.usage.total))

    def remove(self, bot_id: str) -> None:
        """A bot is no more; nothing happens when it was never measured."""
        figure = self.figures.pop(bot_id, None)
        if figure is not None:
            self._count(bot_id, -figure.usage.total)
            self.changed.discard(bot_id)
            self.gone.add(bot_id)

    def stands(self, user: str, level: Level) -> None:
        """Where a user stands from now on."""
        if level == "within":
            if self.levels.pop(user, None) is not None:
                self.changed.discard(user)
                self.gone.add(user)
        elif self.levels.get(user) != level:
            self.levels[user] = level
            self.changed.add(user)
            self.gone.discard(user)

    def recorded(self) -> None:
        """Everything is on record as it is here."""
        self.changed.clear()
        self.gone.clear()

    def let_grow(self, bots: Iterable[str]) -> None:
        """What these bots have by now is not held against them."""
        for bot_id in bots:
            figure = self.figures.get(bot_id)
            if figure is not None:
                figure.base, figure.witnessed = figure.usage.total, False

    def suspect(self, bot_id: str) -> None:
        """This bot has grown and nobody saw it write: if it grows once more, it did."""
        figure = self.figures[bot_id]
        figure.base, figure.witnessed = figure.usage.total, True

    def _count(self, bot_id: str, more: int) -> None:
        user = bot_id.partition("/")[0]
        used = self._of_user.get(user, 0) + more
        if used:
            self._of_user[user] = used
        else:
            self._of_user.pop(user, None)
