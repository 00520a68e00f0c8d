"""What was decided, and what of it waits for a database that cannot be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from botd.core.bot import BotState
from botd.core.effects import Acknowledge, Effect, Note
from botd.core.fleet import Bot, Fleet

NOTES_MAX = 10_000
"""Lines of history that wait at most: a bot in a crash loop must not fill the memory while a disk is full."""


@dataclass(slots=True)
class Decided:
    """The outcome of deciding some events: `before` has the state of every bot that changed, as it was."""

    events: int = 0
    before: dict[str, BotState] = field(default_factory=dict)
    effects: list[tuple[Bot, Effect]] = field(default_factory=list)
    notes: list[tuple[Bot, Note, int]] = field(default_factory=list)
    removed: list[Bot] = field(default_factory=list)
    strays: list[tuple[str, int]] = field(default_factory=list)

    def acted(self) -> Decided:
        """What may be done before it is on record: everything but to let go of what the record must know."""
        kept: list[tuple[Bot, Effect]] = [
            (bot, effect) for bot, effect in self.effects if not isinstance(effect, Acknowledge)
        ]
        return Decided(self.events, self.before, kept)


class Backlog:
    """Decisions that are carried out and not on record yet. Empty is false."""

    def __init__(self) -> None:
        self.events = 0
        self.changed: dict[str, None] = {}
        self.wishes: set[str] = set()
        self.notes: list[tuple[str, float, Note, int]] = []
        self.removed: list[Bot] = []
        self._ends: list[tuple[Bot, Effect]] = []
        self._strays: list[tuple[str, int]] = []

    def __bool__(self) -> bool:
        return self.events > 0

    def add(self, decided: Decided, fleet: Fleet, wall: float) -> None:
        """Remember what `decided` changed; the states themselves are in the fleet."""
        self.events += decided.events
        for bot_id, state in decided.before.items():
            self.changed[bot_id] = None
            if fleet.bots[bot_id].state.wanted != state.wanted:
                self.wishes.add(bot_id)
        self.notes += [(bot.id, wall, note, life) for bot, note, life in decided.notes]
        del self.notes[:-NOTES_MAX]
        self.removed += [bot for bot in decided.removed if bot not in self.removed]
        self._ends += [(bot, effect) for bot, effect in decided.effects if isinstance(effect, Acknowledge)]
        self._strays += decided.strays

    def rest(self, fleet: Fleet) -> Decided:
        """What is left to do once it is on record."""
        removed = [bot for bot in self.removed if fleet.get(bot.id) is bot]
        return Decided(self.events, {}, self._ends, [], removed, self._strays)
