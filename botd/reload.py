"""The configuration in force: where it came from, and the way to a new one while everything runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from botd.config import Source, changes, load_in_child
from botd.contract.errors import BotdError
from botd.core.settings import Settings
from botd.system.clock import Clock

log = logging.getLogger("botd")

Adopt = Callable[[Settings, Settings], None]
"""(before, after): makes everything that depends on a setting follow it; BotdError: refused, nothing changed."""


class Configuration:
    """`source`, `loaded_at_wall` and `last_error` (of a reload that failed since) are for showing."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._settings = Settings()
        self._adopt: Adopt | None = None
        self.source = source.path
        self.loaded_at_wall = 0.0
        self.last_error = ""

    async def first(self) -> Settings:
        """The settings to start with. Raises BotdError: a daemon does not start on a guess."""
        self._take(await load_in_child(self._source.path, required=self._source.required))
        return self._settings

    def follow(self, adopt: Adopt) -> None:
        """From now on a reload goes through `adopt`."""
        self._adopt = adopt

    async def reload(self) -> dict[str, Any]:
        """Read it again. On any error the one in force stays, and the error is told."""
        assert self._adopt is not None
        before = self._settings
        try:
            after = await load_in_child(self._source.path, required=self._source.required)
            self._adopt(before, after)
        except BotdError as error:
            self.last_error = error.message
            raise
        self._take(after)
        changed = changes(before, after)
        return {"source": self.source, "changes": [change._asdict() for change in changed]}

    async def reload_logged(self) -> None:
        """For SIGHUP, which nobody waits for."""
        try:
            await self.reload()
        except BotdError as error:
            log.error("the configuration was not reloaded: %s", error.message)

    def _take(self, settings: Settings) -> None:
        self._settings = settings
        self.last_error = ""
        self.loaded_at_wall = self._clock.wall()
        self.source = self._source.path if self._source.found else "the shipped defaults"
        logging.getLogger().setLevel(settings.monitoring.log_level.upper())
