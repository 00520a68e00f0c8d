"""The configuration in force: where it came from, and the way to a new one while everything runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from botd import comeback
from botd.config import Source, changes, effective, load_in_child, settings_from_json
from botd.contract.errors import BotdError
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.system.clock import Clock

log = logging.getLogger("botd")

Adopt = Callable[[Settings, Settings], None]
"""(before, after): makes everything that depends on a setting follow it; BotdError: refused, nothing changed."""


class Configuration:
    """`source`, `loaded_at_wall` and `last_error` (of a reload that failed since) are for showing.

    `good` is the file that keeps what was in force last; `brought_back`: nobody reads what this botd says at its start,
    so that it takes that when the configuration has become bad meanwhile.
    """

    def __init__(self, source: Source, clock: Clock, good: str, *, brought_back: bool) -> None:
        self._source = source
        self._clock = clock
        self._good = good
        self._brought_back = brought_back
        self._settings = Settings()
        self._adopt: Adopt | None = None
        self.source = source.path
        self.loaded_at_wall = 0.0
        self.last_error = ""

    async def first(self) -> Settings:
        """The settings to start with. Raises BotdError: a daemon does not start on a guess."""
        text = comeback.read(self._source.path)
        try:
            # Checking takes as long as all the rest of a start: not again what was checked already.
            self._take(settings_from_json(comeback.checked(self._good, text)), text)
            return self._settings
        except BotdError:
            pass  # another text, another version of botd, or the first start
        try:
            self._take(*await self._load())
        except BotdError as error:
            document = comeback.remembered(self._good) if self._brought_back else None
            if document is None:
                raise
            # The bots must not go without a daemon for a typing error: the last good one stays, as at a reload.
            self._take(settings_from_json(document), None)
            self.last_error = error.message
            log.error("the configuration is not valid, the last good one is in force: %s", error.message)
        return self._settings

    def follow(self, adopt: Adopt) -> None:
        """From now on a reload goes through `adopt`."""
        self._adopt = adopt

    async def reload(self) -> dict[str, Any]:
        """Read it again. On any error the one in force stays, and the error is told."""
        assert self._adopt is not None
        before = self._settings
        try:
            after, text = await self._load()
            crash_point("botd-reload-checked")
            self._adopt(before, after)
            crash_point("botd-reload-adopted")
        except BotdError as error:
            self.last_error = error.message
            raise
        self._take(after, text)
        changed = changes(before, after)
        return {"source": self.source, "changes": [change._asdict() for change in changed]}

    async def reload_logged(self) -> None:
        """For SIGHUP, which nobody waits for."""
        try:
            await self.reload()
        except BotdError as error:
            log.error("the configuration was not reloaded: %s", error.message)

    async def _load(self) -> tuple[Settings, str | None]:
        """Checked settings, and the text that they come from where it was the same before and after."""
        before = comeback.read(self._source.path)
        settings = await load_in_child(self._source.path, required=self._source.required)
        return settings, before if before == comeback.read(self._source.path) else None

    def _take(self, settings: Settings, text: str | None) -> None:
        self._settings = settings
        self.last_error = ""
        self.loaded_at_wall = self._clock.wall()
        try:
            comeback.remember(self._good, effective(settings), text)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._good, error)
        self.source = self._source.path if self._source.found else "the shipped defaults"
        logging.getLogger().setLevel(settings.monitoring.log_level.upper())
