"""Whose call is begun next when more are asked for than can be answered at once: who was served least.

Calls are begun for SLICE_S of each turn of the loop. As long as that is enough, nobody waits and nothing is queued.
When it is not, whoever asks for everything on a thousand connections waits for himself: time is counted for each
process of an administrator and for each other user, however many connections they have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from botd.access.peer import Caller

SLICE_S = 0.005
WELCOME_S = 0.05
"""How much less than everybody else a newcomer counts as served."""
REMEMBERED = 1024
"""Of so many it is known how much they had."""

Party = tuple[str, int]


class Asking(Protocol):
    caller: Caller
    queued: bool

    def pump(self) -> None:
        """Go on with what waits; it asks `may` before each call."""


class Turns:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Party]] = []
        self._waiting: dict[Party, deque[Asking]] = {}
        self._served: OrderedDict[Party, float] = OrderedDict()
        """Seconds of the loop that each has had."""
        self._order = count()
        self._level = 0.0
        self._left_s = SLICE_S
        self._only: Asking | None = None
        self._armed = False

    def may(self, who: Asking) -> bool:
        """Whether it may begin one call now; otherwise its `pump` is called when it may."""
        if self._only is who:
            self._only = None
            return True
        if not self._heap and self._left_s > 0:
            return True
        if not who.queued:
            who.queued = True
            party = party_of(who.caller)
            queue = self._waiting.get(party)
            if queue is None:
                self._waiting[party] = deque((who,))
                self._push(party)
            else:
                queue.append(who)
            self._arm()
        return False

    def spent(self, who: Asking, seconds: float) -> None:
        """A call was begun, and answered or left to a task of its own."""
        party = party_of(who.caller)
        self._served[party] = self._account(party) + seconds
        self._served.move_to_end(party)
        if len(self._served) > REMEMBERED:
            self._served.popitem(last=False)
        self._left_s -= seconds
        self._arm()

    def _account(self, party: Party) -> float:
        return max(self._served.get(party, 0.0), self._level - WELCOME_S)

    def _push(self, party: Party) -> None:
        heappush(self._heap, (self._account(party), next(self._order), party))

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._armed = False
        self._left_s = SLICE_S
        while self._heap and self._left_s > 0:
            self._level, _, party = heappop(self._heap)
            queue = self._waiting[party]
            who = queue.popleft()
            who.queued = False
            self._only = who
            who.pump()
            self._only = None
            if queue:
                self._push(party)
            else:
                del self._waiting[party]
        if self._heap:
            self._arm()


def party_of(caller: Caller) -> Party:
    """Who counts as one: a process of an administrator, or all of another user."""
    return ("pid", caller.pid) if caller.role == "admin" else ("uid", caller.uid)
