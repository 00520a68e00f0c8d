"""Compares what lives use with what they may, and the machine's memory with its threshold. Events out, no decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from botd.core import caps, relief
from botd.core.events import Condemned, Event
from botd.core.fleet import Bot, Fleet
from botd.core.relief import Shortage, User
from botd.core.settings import Limits
from botd.system.sampling import Sampler

Events = list[tuple[str, Event]]


class Guard:
    """`enforced`: the controllers (memory, pids, cpu) that hold a life; `percent`: of the machine's memory in use.

    `tell` takes a line for the history of the daemon.
    """

    def __init__(
        self,
        fleet: Fleet,
        sampler: Sampler,
        enforced: Callable[[Bot], Mapping[str, str]],
        percent: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._fleet = fleet
        self._sampler = sampler
        self._enforced = enforced
        self._percent = percent
        self._tell = tell
        self._shortage = Shortage()
        self._limits: Limits | None = None

    def check(self, limits: Limits, now: float) -> Events:
        """Who is to end, after a round of samples."""
        found = self._over(limits)
        return found + self._relieve(limits, now, ending=bool(found))

    def _over(self, limits: Limits) -> Events:
        """Lives over limits that nobody but us keeps."""
        found: Events = []
        if limits != self._limits:
            self._limits = limits
            self._sampler.stirred.update(self._fleet.bots)
        memory, processes = limits.max_memory_per_bot_bytes, limits.max_processes_per_bot
        for bot_id in tuple(self._sampler.stirred):
            bot, sample = self._fleet.get(bot_id), self._sampler.get(bot_id)
            if bot is not None and sample is not None and bot.state.phase == "starting":
                continue  # looked at when it runs
            self._sampler.stirred.discard(bot_id)
            if bot is None or sample is None or bot.state.phase != "running":
                continue
            spec = bot.spec
            # Most bots are far from the defaults and have no limits of their own.
            heavy = spec.memory_bytes is not None or sample.memory_bytes + sample.shared_bytes > memory
            many = spec.processes is not None or (processes is not None and sample.threads > processes)
            if not (heavy or many):
                continue
            enforced = self._enforced(bot)
            verdict = None
            if many and "pids" not in enforced:
                verdict = relief.too_many(spec, limits, sample.threads)
            if verdict is None and heavy and "memory" not in enforced:
                used = self._sampler.exact(bot.id, caps.caps_of(spec, limits).memory_bytes)
                verdict = relief.over(spec, limits, used, sample.growth())
            if verdict is not None:
                found.append((bot.id, Condemned(bot.state.generation, *verdict)))
        return found

    def _relieve(self, limits: Limits, now: float, *, ending: bool) -> Events:
        decision = relief.decide(
            self._shortage,
            self._percent(),
            limits.memory_threshold_percent,
            # Only looked at when it comes to choosing.
            (user for bot in self._fleet if (user := self._user(bot, limits, now)) is not None),
            ending=ending or (self._fleet.phases["stopping"] > 0 and self._ending()),
            now=now,
        )
        self._shortage = decision.shortage
        if decision.told:
            self._tell(decision.told)
        if decision.chosen is None:
            return []
        return [(decision.chosen.id, Condemned(decision.chosen.generation, "relief", decision.reason))]

    def _user(self, bot: Bot, limits: Limits, now: float) -> User | None:
        sample, state = self._sampler.get(bot.id), bot.state
        if sample is None or state.phase != "running" or state.started_at is None:
            return None
        limit = caps.caps_of(bot.spec, limits).memory_bytes
        return User(bot.id, state.generation, sample.memory_bytes, limit, sample.growth(), now - state.started_at)

    def _ending(self) -> bool:
        """Somebody who was ended for memory has not gone yet."""
        return any(bot.state.phase == "stopping" and bot.state.cause in ("memory", "relief") for bot in self._fleet)
