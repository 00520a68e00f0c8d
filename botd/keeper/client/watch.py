"""botd's side of the watchdog: a word to the keeper every few seconds, and a look at one that does not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from botd.keeper.watchdog import DEFAULT, Figures, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable


class KeeperWatch:
    """On for the time of a connection. `beat` says something to the keeper; `say` gets what was seen, in words."""

    def __init__(self, values: Figures | None, beat: Callable[[], None], say: Callable[[str], None]) -> None:
        self.figures = values or DEFAULT
        self._beat = beat
        self.dog = Watchdog("the keeper", "botd", say)
        self.dog.set(self.figures)
        self._timer: asyncio.TimerHandle | None = None
        self._beating = False
        self.said = False
        """Whether something was said to the keeper since the last tick: then there is no need for a beat."""

    def begin(self, pid: int) -> None:
        """A connection was made. Until the keeper's hello it is only watched."""
        self._beating = False
        self.dog.watch(pid)
        self._next()

    def greeted(self, beats: bool) -> None:
        """The keeper said hello; one of a former version answers no beats, and is not watched."""
        self._beating = beats
        if not beats:
            self.end()

    def end(self) -> None:
        """The connection is over."""
        self.dog.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        if self._timer is None and self.dog.watching:
            self._timer = asyncio.get_running_loop().call_later(self.dog.beat_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self.dog.watching:
            return
        quiet = not (self.said and self.dog.heard)
        self.said = False
        self.dog.tick()
        if self._beating and quiet:
            self._beat()
        self._next()
