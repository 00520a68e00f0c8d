"""Regular work: run-time rubbish, old history, the database's log and its snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.fleet import Fleet
from botd.core.settings import Settings
from botd.state.store import Store
from botd.storage import cleanup
from botd.system.clock import Clock

log = logging.getLogger("botd.upkeep")

SNAPSHOT_S = 3600.0
"""How old the copy of the database may get that a damaged one is restored from."""
REQUESTS_KEPT_S = 3600.0
SWITCHED_OFF_LOOK_S = 60.0
"""How often to see whether an interval of 0 (never) has been changed."""


class Upkeep:
    """What a person wrote (data of bots that are gone) is only removed when it was asked for, never from here."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Store,
        clock: Clock,
        paths: Paths,
        settings: Callable[[], Settings],
        inspect: Callable[[], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._paths = paths
        self._settings = settings
        self._inspect = inspect
        self._snapshot_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            interval = self._settings().cleaning.cleanup_interval_s
            await asyncio.sleep(interval or SWITCHED_OFF_LOOK_S)
            if interval:
                await self._round()

    async def _round(self) -> None:
        try:
            await asyncio.to_thread(self._clean_files)
            if self._store.trouble is not None:
                return
            self._store.prune(requests_before_wall=self._clock.steady() - REQUESTS_KEPT_S)
            self._store.checkpoint()
            await self._inspect()
            if self._clock.boottime() - self._snapshot_at > SNAPSHOT_S:
                self._store.snapshot()
                self._snapshot_at = self._clock.boottime()
        except (BotdError, OSError) as error:
            log.error("clean-up: %s", error)

    def _clean_files(self) -> None:
        settings, fleet = self._settings(), self._fleet
        known = frozenset(fleet.bots)
        live = frozenset(bot.id for bot in tuple(fleet) if bot.state.pid is not None)
        wall, keep = self._clock.steady(), settings.output.keep
        items = cleanup.plan(self._paths, known, live, wall, settings.cleaning, keep_logs=keep)
        cleanup.apply(self._paths, [item for item in items if not item.data], fleet.bots.__contains__)
