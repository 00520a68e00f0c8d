"""Who writes: the room on the disk says whether anybody does, and then the processes are asked how much.

On a quiet disk this costs one system call a second, and a rare look at the processes all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from botd.core.fleet import Bot, Fleet
from botd.core.quota import STEP_MIN
from botd.core.settings import MIB
from botd.system import writing

SCAN_S, SELDOM = 5.0, 3000.0
"""How often the processes are asked although the disk is quiet, because somebody else may have made room meanwhile; and
so many times the time of asking at least: once a minute for a thousand bots, 20 ms each time.
"""
STIRRED, STIRRED_NEAR = 4 * MIB, MIB
"""So much less room makes it worth asking the processes; the second where a user is near its limit or over."""
REST = 20.0
"""Times the time of asking: so long nobody is asked again."""
UNEXPLAINED = 64 * MIB
UNEXPLAINED_S = 60.0
"""So much less room that no process accounts for is worth a look at every running bot, at most so often."""
DOUBT_MAX = 16
"""A bot that writes a lot and does not grow is believed that much less, so that it is not measured for nothing."""


@dataclass(slots=True)
class _Hint:
    """What the processes of a life say, in bytes. `last`: at the last scan; `written`: since it was measured."""

    generation: int
    last: int = 0
    written: int = 0
    doubt: int = 1


class Scan(NamedTuple):
    """`by_user`: user -> bot -> bytes it seems to have written since it was measured; `unexplained`: the disk has lost
    much more room than anybody accounts for.
    """

    by_user: dict[str, dict[str, int]]
    unexplained: bool


class Writers:
    """`folder`: on the disk that is watched; `pids`: of all processes of a bot that are known."""

    def __init__(self, fleet: Fleet, folder: str, pids: Callable[[Bot], list[int]]) -> None:
        self._fleet = fleet
        self._folder = folder
        self._pids = pids
        self._hints: dict[str, _Hint] = {}
        self._room: int | None = None
        self._again_at = self._rested_at = self._unexplained_at = float("-inf")

    def stirred(self, now: float, *, near: bool) -> bool:
        """Whether it is worth asking the processes. `near`: some user is close to its limit, or over."""
        if now < self._rested_at:
            return False
        free = writing.free_bytes(self._folder)
        if free is None or self._room is None or now >= self._again_at:
            return True
        self._room = max(self._room, free)
        return self._room - free >= (STIRRED_NEAR if near else STIRRED)

    async def scan(self, now: float, clock: Callable[[], float]) -> Scan:
        """Ask the processes of every running bot."""
        free = writing.free_bytes(self._folder)
        less = max(0, self._room - free) if self._room is not None and free is not None else 0
        self._room = free
        lives = {bot.id: (bot.state.generation, self._pids(bot)) for bot in self._fleet if bot.state.pid is not None}
        totals = await asyncio.to_thread(lambda: {id: writing.written_bytes(pids) for id, (_, pids) in lives.items()})
        explained = 0
        by_user: dict[str, dict[str, int]] = {}
        for bot_id, total in totals.items():
            hint = self._hints.get(bot_id)
            if hint is None or hint.generation != lives[bot_id][0]:
                hint = self._hints[bot_id] = _Hint(lives[bot_id][0])
            # Of whom the kernel does not tell, all of it is believed.
            more = less if total is None else max(0, total - hint.last)
            hint.last = hint.last if total is None else total
            hint.written += more
            explained += more
            if hint.written:
                by_user.setdefault(bot_id.partition("/")[0], {})[bot_id] = hint.written // hint.doubt
        unexplained = less >= UNEXPLAINED and explained < less // 2 and now - self._unexplained_at >= UNEXPLAINED_S
        if unexplained:
            self._unexplained_at = now
        took = clock() - now
        self._rested_at, self._again_at = now + REST * took, now + max(SCAN_S, SELDOM * took)
        return Scan(by_user, unexplained)

    def measured(self, bot_id: str, grown: int) -> bool:
        """A bot has grown by so many bytes since it was measured before: whether its processes have written as much."""
        hint = self._hints.get(bot_id)
        if hint is None:
            return False
        written, hint.written = hint.written, 0
        if written >= STEP_MIN:
            hint.doubt = 1 if 2 * grown >= written else min(DOUBT_MAX, hint.doubt * 2)
        return 2 * written >= grown > 0

    def forget(self, bot_id: str) -> None:
        self._hints.pop(bot_id, None)
