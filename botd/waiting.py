"""Waiting for what comes of a request: outcomes are told bot by bot, as soon as each is certain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from botd.core import goals
from botd.core.fleet import Fleet
from botd.core.goals import Goal, Outcome

Tell = Callable[[str, Outcome], None]


class Watches:
    """Who waits for which bot. The engine calls `look` after each change; a bot that nobody waits for costs nothing."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._of: dict[str, set[Watch]] = {}

    def watch(self, goal: Goal, since: dict[str, int], tell: Tell) -> Watch:
        watch = Watch(self, self._fleet, goal, since, tell)
        for bot_id in since:
            self._of.setdefault(bot_id, set()).add(watch)
        return watch

    def look(self, bot_id: str) -> None:
        for watch in tuple(self._of.get(bot_id, ())):
            watch.look(bot_id)

    def discard(self, bot_id: str, watch: Watch) -> None:
        watches = self._of.get(bot_id)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._of[bot_id]


class Watch:
    """Until each of some bots has reached `goal` or cannot reach it any more.

    `since`: each bot's generation before the request. `tell` gets every outcome once: when it is certain, or at the
    timeout of `wait`.
    """

    def __init__(self, watches: Watches, fleet: Fleet, goal: Goal, since: dict[str, int], tell: Tell) -> None:
        self._watches = watches
        self._fleet = fleet
        self._goal = goal
        self._since = since
        self._open = set(since)
        self._done = asyncio.get_running_loop().create_future()
        self._tell = tell

    def look(self, bot_id: str) -> None:
        bot = self._fleet.get(bot_id)
        outcome = goals.judge(self._goal, bot.state if bot else None, self._since[bot_id])
        if outcome is not None:
            self._settle(bot_id, outcome)

    def _settle(self, bot_id: str, outcome: Outcome) -> None:
        self._open.discard(bot_id)
        self._watches.discard(bot_id, self)
        self._tell(bot_id, outcome)
        if not self._open and not self._done.done():
            self._done.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return when every outcome was told; those that are not there after `timeout_s` seconds are timeouts."""
        try:
            for bot_id in list(self._open):
                self.look(bot_id)
            if self._open:
                await asyncio.wait_for(self._done, timeout_s)
        except TimeoutError:
            for bot_id in list(self._open):
                bot = self._fleet.get(bot_id)
                self._settle(bot_id, goals.timed_out(self._goal, bot.state if bot else None, timeout_s))
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Tell nothing more."""
        for bot_id in self._open:
            self._watches.discard(bot_id, self)
        self._open.clear()
