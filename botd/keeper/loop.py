"""The keeper's event loop: descriptors, deadlines, and a queue of work done one piece a turn."""

from __future__ import annotations

import select
from collections import deque
from heapq import heappop, heappush
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

READ, WRITE, ONCE, ENDED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLONESHOT, 0

_EVENTS_PER_TURN = 64


class Loop:
    """Calls back in turns. `slow` is work of which exactly one piece is done per turn, after everything urgent.

    An exception of a callback goes to `on_error`; the loop goes on.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Any, ...]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.slow: deque[Callable[[], None]] = deque()
        self.after_turn: list[Callable[[], None]] = []
        self.running = True

    def __str__(self) -> str:
        return f"{len(self._watched)} descriptors watched, {len(self._timers)} deadlines, {len(self.slow)} slow pieces"

    def watch(self, fd: int, callback: Callable[..., None], events: int = READ, *subject: Any) -> None:
        """Call `callback(*subject)` when the descriptor is ready: a subject is a fifth of what a closure takes."""
        self._epoll.register(fd, events)
        self._watched[fd] = (callback, *subject)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed. Harmless when it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call once, `seconds` from now. There is no cancelling: a callback looks whether it is still wanted."""
        self._count += 1
        heappush(self._timers, (monotonic() + seconds, self._count, callback))

    def run(self) -> None:
        while self.running:
            self.turn()

    def turn(self) -> None:
        """Wait for something to do, and do it."""
        if self.slow:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, self._timers[0][0] - monotonic())
        else:
            timeout = -1.0
        for fd, _events in self._epoll.poll(timeout, _EVENTS_PER_TURN):
            call = self._watched.get(fd)
            if call is not None:
                self._call(*call)
        if self._timers:
            now = monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._call(heappop(self._timers)[2])
        if self.slow:
            self._call(self.slow.popleft())
        for callback in self.after_turn:
            self._call(callback)

    def _call(self, callback: Callable[..., None], *subject: Any) -> None:
        try:
            callback(*subject)
        except Exception as error:  # noqa: BLE001  # one bot's trouble must not become every bot's
            self._on_error(error)
