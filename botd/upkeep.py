"""Regular work: run-time rubbish, old history, the database's log and its snapshot; and what no bot uses any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from botd.contract.errors import BotdError
from botd.core.settings import Settings
from botd.state.store import Store
from botd.sweeping import Sweeper
from botd.system.clock import Clock

log = logging.getLogger("botd.upkeep")

SNAPSHOT_S = 3600.0
"""How old the copy of the database may get that a damaged one is restored from."""
REQUESTS_KEPT_S = 3600.0
SWITCHED_OFF_LOOK_S = 60.0
"""How often to see whether an interval of 0 (never) has been changed."""


class Upkeep:
    """Two rounds, each at an interval of its own: resourceManagement.cleanupInterval for what running leaves behind,
    storageOptimization.cleanupInterval for folders.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        sweeper: Sweeper,
        settings: Callable[[], Settings],
        inspect: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._sweeper = sweeper
        self._settings = settings
        self._inspect = inspect
        self._snapshot_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(
            self._every(lambda: self._settings().cleaning.cleanup_interval_s, self._round),
            self._every(lambda: self._settings().cleaning.storage_interval_s, self._storage_round),
        )

    async def _every(self, interval: Callable[[], float], work: Callable[[], Awaitable[None]]) -> None:
        while True:
            seconds = interval()
            await asyncio.sleep(seconds or SWITCHED_OFF_LOOK_S)
            if seconds:
                await work()

    async def _storage_round(self) -> None:
        try:
            await self._sweeper.by_itself("storage")
        except (BotdError, OSError) as error:
            log.error("clean-up of storage: %s", error)

    async def _round(self) -> None:
        try:
            await self._sweeper.by_itself("run")
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
