"""Watches what runs: samples it, compares memory with its limit, has it probed. Reports events, decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from botd.core import relief
from botd.core.bot import BotState
from botd.core.events import Condemned, Event, HealthReported
from botd.core.fleet import Bot, Fleet
from botd.core.health import Outcome
from botd.core.settings import Settings
from botd.system.clock import Clock
from botd.system.probes import Prober
from botd.system.sampling import Sample, Sampler
from botd.telemetry.latency import Latencies

log = logging.getLogger("botd.monitor")

Report = Callable[[list[tuple[str, Event]]], None]


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
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._settings = settings
        self._latencies = latencies
        self._report = report
        self._sampler = Sampler()
        self._prober = Prober(clock, chance, self._probed)
        self._timer: asyncio.TimerHandle | None = None

    def sample_of(self, bot_id: str) -> Sample | None:
        return self._sampler.first(bot_id, self._clock.boottime())

    # --- lives come and go --------------------------------------------------------------------------

    def changed(self, bot: Bot, before: BotState) -> None:
        """After each change of a bot's state or specification."""
        state = bot.state
        if state.pid != before.pid or (state.pid is not None and state.generation != before.generation):
            self._sampler.remove(bot.id)
            if state.pid is not None:
                self._sampler.add(bot.id, state.pid)
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
        if bot.state.pid is not None:
            self._sampler.add(bot.id, bot.state.pid)
        if bot.state.phase == "running":
            self._watch(bot)

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

    def _tick(self) -> None:
        monitoring = self._settings().monitoring
        interval = monitoring.sample_interval_s
        if monitoring.resource_monitoring:
            self.sample_now()
            self._check_memory()
        self._timer = asyncio.get_running_loop().call_later(interval, self._tick)

    def _check_memory(self) -> None:
        limits = self._settings().limits
        over: list[tuple[str, Event]] = []
        smallest = limits.max_memory_per_bot_bytes
        for bot in self._fleet:
            sample = self._sampler.get(bot.id)
            if sample is None or (bot.spec.memory_bytes is None and sample.memory_bytes <= smallest):
                continue
            reason = relief.over(bot.spec, limits, sample.memory_bytes)
            if reason is not None:
                over.append((bot.id, Condemned(bot.state.generation, "memory", reason)))
        if over:
            self._report(over)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._prober.close()
        self._sampler.close()
