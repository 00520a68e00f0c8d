"""Short of memory under version 1: the kernel kills one process of a life, and the keeper ends the rest.

Version 2 does that by itself (memory.oom.group). Version 1 says through an eventfd that memory has run out, just before
it chooses whom to kill; the count that follows tells whether it did, so that nobody is ended for a narrow escape.
"""

from __future__ import annotations

from botd.keeper.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.life import Life
    from botd.keeper.loop import Loop

_FIRST_S, _TRIES = 0.001, 11
"""Looks at the count after a word of the kernel: 1, 2, 4 ... ms later, 2 s in all."""


class Shortage:
    """Watches the lives that a version 1 controller limits. `end` is called with one of which something was killed."""

    def __init__(self, loop: Loop, end: Callable[[Life], None]) -> None:
        self._loop, self._end = loop, end
        self._on_word = self._heard

    def follow(self, life: Life) -> None:
        """From now on; also tells at once what happened while no keeper looked."""
        fence = life.cage.fence if life.cage is not None else None
        if fence is None:
            return
        heard_all = fence.oom >= 0
        if not fence.arm():
            return
        self._loop.watch(fence.oom, self._on_word, READ, life)
        if not heard_all:
            self._look(life, _TRIES - 1)

    def leave(self, life: Life) -> None:
        """The life is over."""
        fence = life.cage.fence if life.cage is not None else None
        if fence is not None and fence.oom >= 0:
            self._loop.unwatch(fence.oom)
            fence.disarm()

    def _heard(self, life: Life) -> None:
        fence = life.cage.fence if life.cage is not None else None
        if fence is not None:
            fence.hear()
            self._look(life, 0)

    def _look(self, life: Life, tries: int) -> None:
        fence = life.cage.fence if life.cage is not None else None
        if fence is None or not life.live or life.status is not None:
            return
        if fence.kills():
            self._end(life)
        elif tries < _TRIES:
            self._loop.after(_FIRST_S * 2**tries, lambda: self._look(life, tries + 1))
