"""The gate of a roll: whether a bot that was moved to another release does well there. Pure.

A bot is judged by what happened to it since it was moved (`Mark`): nothing that it did before is held against the
release, and a bot that was failing already cannot fail a roll.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from botd.core import restart
from botd.core.bot import BotState

Was = Literal["up", "ill", "down"]
"""How a bot was when it was moved: well or on its way there, failing, or not wanted running."""

SAMPLE = 5
"""How many failed bots are named wherever a roll is told of."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A bot at the moment at which it was moved. `former`: the release that it had before the roll."""

    former: str
    generation: int
    restarts: int
    was: Was


class Verdict(NamedTuple):
    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The batch in motion, as far as a roll decides on it. `sample`: the first failed bots with their reasons."""

    bots: int = 0
    open: int = 0
    failures: int = 0
    sample: tuple[tuple[str, str], ...] = ()


def mark(former: str, state: BotState) -> Mark:
    return Mark(former, state.generation, state.restarts, _was(state))


def _was(state: BotState) -> Was:
    if not state.wanted:
        return "down"
    condemned = state.phase == "stopping" and state.then == "retry"
    failing = state.phase == "failed" or state.outage_at is not None or state.health == "unhealthy"
    return "ill" if condemned or failing else "up"


def needs_new_life(mark: Mark, state: BotState) -> bool:
    """Whether the bot still has the life (or the end of it) that it had when it was moved, and nobody ends it."""
    going = state.phase == "stopping" and state.then != "retry"
    return state.wanted and state.generation <= mark.generation and not going


def judge(mark: Mark, state: BotState | None) -> Verdict | None:
    """None: not yet. `state` None: the bot is gone, or somebody gave it another release."""
    if state is None:
        return Verdict(True, "it is not of this roll any more")
    trouble = _trouble(mark, state)
    if trouble is not None:
        if mark.was == "ill":
            return Verdict(True, f"it was failing before and still is: {trouble}")
        return Verdict(False, trouble)
    if not state.wanted:
        return Verdict(True, "it is stopped")
    if state.generation > mark.generation and state.phase == "running" and state.settled:
        return Verdict(True, "it runs well")
    return None


def _trouble(mark: Mark, state: BotState) -> str | None:
    if state.generation <= mark.generation:
        return None
    if state.phase == "failed":
        return state.reason
    # A start that was refused (no memory, a busy lock) is tried again and is no outage: no fault of the release.
    if state.phase == "backoff" and state.outage_at is not None:
        return state.reason
    if state.phase == "stopping" and state.then == "retry":
        return state.reason
    if state.restarts > mark.restarts:
        return restart.words_of(state.last_exit) if state.last_exit else "it had to be started again"
    if state.phase == "running" and state.health == "unhealthy":
        return state.health_note or "unhealthy"
    return None


class Gate:
    """The batch in motion, bot by bot. A look at one costs nothing for the others.

    A bot that did well and fails later, while its batch is still watched, has failed.
    """

    def __init__(self, marks: Mapping[str, Mark]) -> None:
        self.marks = dict(marks)
        self.open = set(marks)
        self.failed: dict[str, str] = {}
        self._refused = 0

    def look(self, bot_id: str, state: BotState | None) -> Verdict | None:
        """News of a bot of this batch, or None."""
        if bot_id in self.failed:
            return None
        verdict = judge(self.marks[bot_id], state)
        if verdict is None or (verdict.ok and bot_id not in self.open):
            return None
        self.open.discard(bot_id)
        if not verdict.ok:
            self.failed[bot_id] = verdict.reason
        return verdict

    def refuse(self, bot_id: str, reason: str) -> None:
        """One that could not be moved at all, and has no mark."""
        self._refused += 1
        self.failed[bot_id] = reason

    def expire(self, reason: str) -> list[str]:
        """Time is up: whoever is not through has failed. Their ids."""
        late = sorted(self.open)
        self.failed.update(dict.fromkeys(late, reason))
        self.open.clear()
        return late

    @property
    def tally(self) -> Tally:
        sample = tuple(pair for _, pair in zip(range(SAMPLE), self.failed.items(), strict=False))
        return Tally(len(self.marks) + self._refused, len(self.open), len(self.failed), sample)
