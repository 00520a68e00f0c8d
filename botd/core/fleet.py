"""The fleet: every bot, who has how many, which ones a selection means, what is due next.

Nothing here is proportional to the fleet on the path of one bot: counts are kept, deadlines are in
a heap, an id is a dictionary look-up.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from botd.contract.selector import is_glob
from botd.contract.vocabulary import Health, Phase
from botd.core import health
from botd.core.bot import BotState, Deadline, Spec
from botd.core.lifecycle import Rules


@dataclass(slots=True)
class Bot:
    """One bot in memory. The two parts are frozen; the fleet replaces them."""

    spec: Spec
    state: BotState
    rules: Rules
    created_at_wall: float
    port: int | None = None
    source: str | None = None
    """The manifest that brought it, or None."""

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def health(self) -> Health:
        return health.shown(self.state)


def rules_of(spec: Spec) -> Rules:
    return Rules(spec.restart, spec.stop_signal, spec.stop_grace_s, spec.probe is not None)


class Fleet:
    """All bots by id. Not thread-safe; the engine is its only writer."""

    def __init__(self) -> None:
        self.bots: dict[str, Bot] = {}
        self.of_user: dict[str, set[str]] = {}
        self.phases: Counter[Phase] = Counter()
        self._heap: list[tuple[float, str, Deadline]] = []

    def __len__(self) -> int:
        return len(self.bots)

    def __iter__(self) -> Iterator[Bot]:
        return iter(self.bots.values())

    def get(self, bot_id: str) -> Bot | None:
        return self.bots.get(bot_id)

    def count_of(self, user: str) -> int:
        return len(self.of_user.get(user, ()))

    def add(self, bot: Bot) -> None:
        assert bot.id not in self.bots
        self.bots[bot.id] = bot
        self.of_user.setdefault(bot.spec.user, set()).add(bot.id)
        self.phases[bot.state.phase] += 1
        self._schedule(bot)

    def remove(self, bot_id: str) -> Bot:
        bot = self.bots.pop(bot_id)
        mine = self.of_user[bot.spec.user]
        mine.discard(bot_id)
        if not mine:
            del self.of_user[bot.spec.user]
        self.phases[bot.state.phase] -= 1
        return bot

    def set_state(self, bot: Bot, state: BotState) -> None:
        before = bot.state
        bot.state = state
        if before.phase != state.phase:
            self.phases[before.phase] -= 1
            self.phases[state.phase] += 1
        if state.deadline is not None and state.deadline != before.deadline:
            self._schedule(bot)

    def set_spec(self, bot: Bot, spec: Spec) -> None:
        assert spec.id == bot.id
        bot.spec = spec
        bot.rules = rules_of(spec)

    # --- deadlines: values in the states; the heap only remembers where to look -------------------

    def _schedule(self, bot: Bot) -> None:
        deadline = bot.state.deadline
        if deadline is not None:
            heapq.heappush(self._heap, (deadline.at, bot.id, deadline))
        if len(self._heap) > 64 + 4 * len(self.bots):
            self._heap = [(b.state.deadline.at, b.id, b.state.deadline) for b in self if b.state.deadline is not None]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        """When time next brings something about, or None."""
        heap = self._heap
        while heap:
            at, bot_id, deadline = heap[0]
            bot = self.bots.get(bot_id)
            if bot is not None and bot.state.deadline == deadline:
                return at
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> list[tuple[str, Deadline]]:
        """The deadlines that have passed, taken out of the heap; each bot at most once."""
        out: dict[str, Deadline] = {}
        while (at := self.next_deadline()) is not None and at <= now:
            _, bot_id, deadline = heapq.heappop(self._heap)
            out[bot_id] = deadline
        return list(out.items())

    # --- selections ---------------------------------------------------------------------------------

    def resolve(self, selection: dict[str, Any], caller: str) -> list[str]:
        """The ids that a typed selection means, sorted. An `id` without a slash is one of `caller`'s."""
        if selection.get("all"):
            return sorted(self.bots)
        found: set[str] = set()
        for clause in selection["any"]:
            found.update(self._matching(clause, caller))
        return sorted(found)

    def selects(self, selection: dict[str, Any], bot_id: str, caller: str) -> bool:
        """Whether a selection means this one bot; costs nothing for the others."""
        bot = self.bots.get(bot_id)
        if bot is None:
            return False
        return bool(selection.get("all")) or any(
            _holds(bot, clause, _qualified(clause.get("id"), caller)) for clause in selection["any"]
        )

    def missing(self, selection: dict[str, Any], caller: str) -> list[str]:
        """The full ids that a selection names one by one and that no bot has, in its order."""
        named = []
        for clause in selection.get("any", ()):
            bot_id: str = clause.get("id", "*")
            if len(clause) == 1 and not is_glob(bot_id):
                full = _qualified(bot_id, caller)
                if full is not None and full not in self.bots and full not in named:
                    named.append(full)
        return named

    def _matching(self, clause: dict[str, Any], caller: str) -> Iterable[str]:
        pattern = _qualified(clause.get("id"), caller)
        if pattern is not None and not is_glob(pattern):
            bot = self.bots.get(pattern)
            return (pattern,) if bot is not None and _holds(bot, clause, None) else ()
        user = clause.get("user") or (pattern.partition("/")[0] if pattern is not None else None)
        ids: Iterable[str] = self.bots if user is None or is_glob(user) else self.of_user.get(user, ())
        return (bot_id for bot_id in ids if _holds(self.bots[bot_id], clause, pattern))


def _qualified(pattern: str | None, caller: str) -> str | None:
    """A bare name is one of the caller's own."""
    return f"{caller}/{pattern}" if pattern is not None and "/" not in pattern else pattern


def _holds(bot: Bot, clause: dict[str, Any], pattern: str | None) -> bool:
    if pattern is not None:
        user, _, name = pattern.partition("/")
        # Part by part: a `*` of the user's part must not swallow the slash.
        if not (fnmatchcase(bot.spec.user, user) and fnmatchcase(bot.spec.name, name)):
            return False
    if "user" in clause and not fnmatchcase(bot.spec.user, clause["user"]):
        return False
    if "phase" in clause and bot.state.phase != clause["phase"]:
        return False
    if "health" in clause and bot.health != clause["health"]:
        return False
    if "template" in clause and bot.spec.template != clause["template"]:
        return False
    return all(bot.spec.labels.get(k) == v for k, v in clause.get("labels", {}).items())
