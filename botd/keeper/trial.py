"""A botd that was put in another one's place: it says hello in time, or the keeper goes back to the former one."""

from __future__ import annotations

import os

from botd.keeper.lean import SIGKILL, send_signal
from botd.keeper.request import seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.loop import Loop
    from botd.keeper.respawn import Respawner
    from botd.keeper.wire import Message

_TRIES = 2


class Trial:
    """From the moment at which botd says so (it is process `pid`, and another program from then on) to the next hello.

    `message`: within_s; respawn, how the new one is started, and former, how the one before it (None: somebody else
    looks after botd, and only one that hangs is ended). Invalid when it is neither.
    """

    def __init__(
        self, loop: Loop, respawner: Respawner, pid: int, message: Message, complain: Callable[[str], None]
    ) -> None:
        self._loop, self._respawner, self._complain = loop, respawner, complain
        self._within = seconds_of(message, "within_s")
        self._former = message.get("former")
        self._tries, self._over = 0, False
        self._pidfd = -1
        respawner.adopt_recipe(self._former)  # only looked at: what is wrong with it is told now
        respawner.adopt_recipe(message.get("respawn"))
        respawner.trial = self
        self._follow(pid)

    def arrived(self) -> None:
        """Some botd said hello: it is on its own from now on."""
        self._over = True
        self._respawner.trial = None
        self._unfollow()

    def _follow(self, pid: int) -> None:
        self._tries += 1
        tries = self._tries
        self._pidfd = os.pidfd_open(pid)
        self._loop.watch(self._pidfd, self._died)
        self._loop.after(self._within, lambda: self._late(tries))

    def _unfollow(self) -> None:
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _late(self, tries: int) -> None:
        if self._over or tries != self._tries or self._pidfd < 0:
            return
        self._complain(f"the new botd has not said hello within {self._within:g} s and is killed")
        self._respawner.facts["fallback"] = f"the new botd did not say hello within {self._within:g} s"
        self._tries = _TRIES
        send_signal(self._pidfd, SIGKILL)

    def _died(self) -> None:
        self._unfollow()
        if self._over:
            return
        self._respawner.reap()
        if self._tries >= _TRIES:
            self._over = True
            self._respawner.trial = None
            self._respawner.facts.setdefault("fallback", f"the new botd ended {_TRIES} times before it said hello")
            self._respawner.adopt_recipe(self._former)
            self._complain(f"{self._respawner.facts['fallback']}: back to the former one")
            self._respawner.start_now()
        else:
            pid = self._respawner.start_now()
            if pid >= 0:
                self._follow(pid)
