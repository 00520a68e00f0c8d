"""Watches what runs: samples it, compares it with its limits, has it probed. Reports events, decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from botd.core.bot import BotState
from botd.core.events import Condemned, Event, HealthReported
from botd.core.fleet import Bot, Fleet
from botd.core.health import Outcome
from botd.core.settings import Settings
from botd.system import cgroup
from botd.system.clock import Clock
from botd.system.probes import Prober
from botd.system.sampling import Sample, Sampler
from botd.system.sentinel import Sentinel
from botd.telemetry.guard import Guard
from botd.telemetry.latency import Latencies

log = logging.getLogger("botd.monitor")

Report = Callable[[list[tuple[str, Event]]], None]

SENTINEL_S = 0.5
"""How often to see whether the machine stirs, where limits are watched: how late a bomb or a leak is seen."""
CALM_S = 2.0
"""How often to see whether there is something to watch at all."""


class Monitor:
    def __init__(
        self,
        *,
        fleet: Fleet,
        clock: Clock,
        chance: Callable[[], float],
        settings: Callable[[], Settings],
        latencies: Latencies,
        report: Report,
        facts: Callable[[Bot], Mapping[str, Any]],
        watched: Callable[[], bool],
        memory_percent: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        """`facts`: what the keeper said of the current life of a bot; `watched`: some limit is kept by watching only;
        `tell` takes a line for the history of the daemon.
        """
        self._fleet = fleet
        self._clock = clock
        self._settings = settings
        self._latencies = latencies
        self._report = report
        self._facts = facts
        self._watched = watched
        self._sampler = Sampler()
        self._sentinel = Sentinel()
        self._guard = Guard(fleet, self._sampler, self.folders_of, memory_percent, tell)
        self._prober = Prober(clock, chance, self._probed)
        self._timer: asyncio.TimerHandle | None = None
        self._sentry: asyncio.TimerHandle | None = None

    def folders_of(self, bot: Bot) -> Mapping[str, str]:
        """Controller -> the folder in which it holds the current life of a bot; empty where none does."""
        folders = self._facts(bot).get("folders")
        return folders if isinstance(folders, dict) else {}

    def forks_refused(self, bot: Bot) -> int:
        """How often the kernel refused the current life one more process or thread."""
        return cgroup.forks_refused(self.folders_of(bot)) if bot.state.pid is not None else 0

    def pids_of(self, bot: Bot) -> list[int]:
        """Its processes, as far as they are known."""
        return self._sampler.pids(bot.id) or ([] if bot.state.pid is None else [bot.state.pid])

    def sample_of(self, bot_id: str) -> Sample | None:
        return self._sampler.first(bot_id, self._clock.boottime())

    # --- lives come and go --------------------------------------------------------------------------

    def changed(self, bot: Bot, before: BotState) -> None:
        """After each change of a bot's state or specification."""
        state = bot.state
        if state is before:
            self._sampler.stirred.add(bot.id)  # its limits may be others now
        if state.pid != before.pid or (state.pid is not None and state.generation != before.generation):
            self._sampler.remove(bot.id)
            self._follow(bot)
        if state.phase == "running" and before.phase == "starting":
            self._latencies.starts.add(state.started_at - before.since if state.started_at is not None else 0.0)
            if state.outage_at is not None and state.started_at is not None:
                self._latencies.recoveries.add(state.started_at - state.outage_at)
        if state.phase == "running" and (before.phase != "running" or state is before):
            self._watch(bot)
        elif state.phase != "running" and before.phase == "running":
            self._prober.unwatch(bot.id)

    def adopt(self, bot: Bot) -> None:
        """A life that ran before this botd did."""
        self._follow(bot)
        if bot.state.phase == "running":
            self._watch(bot)

    def _follow(self, bot: Bot) -> None:
        if bot.state.pid is not None:
            folders, group = self.folders_of(bot), self._facts(bot).get("cgroup")
            self._sampler.add(bot.id, bot.state.pid, memory=folders.get("memory"), group=group)

    def _watch(self, bot: Bot) -> None:
        self._prober.unwatch(bot.id)
        probe, monitoring = bot.spec.probe, self._settings().monitoring
        if probe is None or not monitoring.health_checks:
            return
        if probe.interval_s is None:
            probe = replace(probe, interval_s=monitoring.health_check_interval_s)
        self._prober.watch(bot.id, bot.state.generation, probe, bot.port)

    def _probed(self, bot_id: str, generation: int, outcome: Outcome) -> None:
        events: list[tuple[str, Event]] = [(bot_id, HealthReported(generation, outcome.healthy, outcome.note))]
        if not outcome.healthy and self._settings().restart.enabled:
            reason = f"unhealthy: {outcome.note}"
            events.append((bot_id, Condemned(generation, "unhealthy", reason)))
        self._report(events)

    # --- sampling -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._tick()
        self._stand_sentry()

    def settings_changed(self) -> None:
        """A new interval counts from now; probes are switched on or off."""
        if self._timer is not None:
            self._timer.cancel()
        self._tick()
        for bot in self._fleet:
            if bot.state.phase == "running":
                self._watch(bot)

    def sample_now(self) -> None:
        self._sampler.sample(self._clock.boottime())
        self._sentinel.mark()

    def _tick(self) -> None:
        monitoring = self._settings().monitoring
        interval = monitoring.sample_interval_s
        if monitoring.resource_monitoring:
            self._look()
        self._timer = asyncio.get_running_loop().call_later(interval, self._tick)

    def _stand_sentry(self) -> None:
        watched = len(self._sampler) > 0 and self._watched()
        pause = SENTINEL_S if watched else CALM_S
        self._sentry = asyncio.get_running_loop().call_later(pause, self._stand_sentry)
        if watched and self._sentinel.stirred():
            self._look()

    def _look(self) -> None:
        self.sample_now()
        events = self._guard.check(self._settings().limits, self._clock.boottime())
        if events:
            self._report(events)

    async def close(self) -> None:
        for timer in (self._timer, self._sentry):
            if timer is not None:
                timer.cancel()
        await self._prober.close()
        self._sampler.close()
