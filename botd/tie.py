"""The tie to the keeper: it may break at any instant, and is mended until botd leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from botd.crash import crash_point
from botd.keeper.client import KeeperClient, KeeperError

log = logging.getLogger("botd")

RETRY_S = (0.0, 0.05, 0.2, 1.0, 5.0)
"""How long to wait before each attempt to get a keeper again; the last one goes on for ever."""

REGAIN_WITHIN_S = 20.0


class Tie:
    """Gets a keeper again whenever `lost` is called, until `leaving` is set.

    `keeper` is set by who builds both. `reconcile` gets every life that the next keeper knows, `note` words for the
    history.
    """

    keeper: KeeperClient

    def __init__(self, reconcile: Callable[[list[dict[str, Any]]], None], note: Callable[[str], None]) -> None:
        self._reconcile, self._note = reconcile, note
        self._task: asyncio.Task[None] | None = None
        self.leaving = False

    @property
    def mending(self) -> bool:
        return self._task is not None and not self._task.done()

    def lost(self) -> None:
        """The connection ended."""
        if self.leaving or self.mending:
            return
        log.warning("the connection to the keeper ended; bots run on; getting it back, or another one")
        crash_point("botd-keeper-lost")
        self._task = asyncio.get_running_loop().create_task(self._mend())

    async def mended(self) -> None:
        """When there is a keeper again, where it was just lost. TimeoutError."""
        if self._task is not None:
            async with asyncio.timeout(REGAIN_WITHIN_S):
                await asyncio.shield(self._task)

    def watched(self, text: str) -> None:
        """What either side saw of the other, in words."""
        log.warning("%s", text)
        self._note(text)

    def cut(self) -> None:
        """botd leaves: nothing is mended any more."""
        self.leaving = True
        if self._task is not None:
            self._task.cancel()

    async def _mend(self) -> None:
        """The next keeper may go as well, at any instant; one task sees to all of them."""
        attempt = 0
        while not self.leaving:
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1
            try:
                states = await self.keeper.reconnect()
                crash_point("botd-keeper-greeted")
                self._reconcile(states)
                crash_point("botd-keeper-reconciled")
            except KeeperError as error:
                log.error("no keeper yet: %s", error)
            except Exception:
                # A fleet without a keeper starts nothing: whatever it was, the next try may do better.
                log.exception("no keeper yet")
            else:
                if self.keeper.connected:
                    self._note(f"connected to the keeper again (pid {self.keeper.hello.get('pid')})")
                    return
