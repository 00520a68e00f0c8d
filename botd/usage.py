"""Keeping the figures of who has how much on disk, and acting when a user has too much.

Every bot is measured once in a while (`storageOptimization.cleanupInterval`, stopped ones more seldom), a few at a
time, with rests in between. Meanwhile the room on the disk tells once a second whether anybody writes at all; only then
the processes are asked how much, and only who may have come near a mark is measured. Far from its limit a user is
measured seldom, close to it every MiB.

There is no lower priority for the thread that measures: it holds the interpreter now and then, and whoever waits for a
thread that the kernel puts last waits as long as it does. It rests instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core import quota
from botd.core.admission import Refusal
from botd.core.bot import BotState
from botd.core.events import Condemned, Event
from botd.core.fleet import Bot, Fleet
from botd.core.ledger import Figure, Ledger
from botd.core.quota import Big, Level, Usage, Writer
from botd.core.rota import Rota
from botd.core.settings import Settings
from botd.state import usage as records
from botd.state.store import Store
from botd.storage.usage import Measured, measure
from botd.system.clock import Clock
from botd.telemetry.writers import Writers

log = logging.getLogger("botd.usage")

LOOK_S = 1.0
IDLE_S = 10.0
EVERY_S = 600.0
"""Where the interval is 0 (no clean-up by itself): figures are still needed."""
STOPPED_SELDOM = 6.0
NEAR_EVERY_S = 15.0
"""The bots of a user who is near or over: people make room by hand, too."""
AFTER_END_S = 30.0
"""A bot that ends is measured, but not again for each crash of a row."""
REST, REST_OF_ONE = 2.0, 4.0
"""Of the time that measuring took: before the next regular one of all, and before the next one of the same bot."""
SUSPECT_S = 2.0
AT_ONCE = 20
SAVE_S = 30.0


class Difference(NamedTuple):
    """A bot whose figure was not what a walk found."""

    id: str
    kept: Usage
    found: Usage


class UsageKeep:
    """From `start` to `close` it keeps the figures; asking for one costs a look-up.

    `pids`: of all processes of a bot that are known; `report` takes events to the engine; `note` a line of history.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Callable[[], Store],
        clock: Clock,
        paths: Paths,
        settings: Callable[[], Settings],
        pids: Callable[[Bot], list[int]],
        report: Callable[[list[tuple[str, Event]]], None],
        note: Callable[[str | None, str, str], None],
        deleted: Callable[[str], int] = lambda user: 0,
    ) -> None:
        """`deleted`: the bytes of a user's deleted bots that can still be brought back."""
        self._deleted = deleted
        self._fleet, self._store, self._clock, self._paths = fleet, store, clock, paths
        self._settings, self._report, self._note = settings, report, note
        self._ledger = Ledger()
        self._writers = Writers(fleet, paths.bots, pids)
        self._rota = Rota()
        self._task: asyncio.Task[None] | None = None
        self._measuring = asyncio.Lock()
        self._somebody = asyncio.Event()
        self._rested_at = self._saved_at = float("-inf")

    # --- what others ask ------------------------------------------------------------------------------

    def of_bot(self, bot_id: str) -> Figure | None:
        """The last figure of a bot; None when it was never measured."""
        return self._ledger.figures.get(bot_id)

    def of_user(self, user: str) -> int:
        """Bytes that count against the quota of a user."""
        return self._ledger.of_user(user) + self._deleted(user)

    def size_of(self, bot_id: str) -> int:
        """The last figure of a bot in bytes, 0 when there is none."""
        figure = self._ledger.figures.get(bot_id)
        return 0 if figure is None else figure.usage.total

    def level(self, user: str) -> Level:
        return self._ledger.level(user)

    def over(self) -> list[str]:
        """The users who are over their quota now, sorted."""
        hard, levels = self._quota().hard, self._ledger.levels
        return sorted(user for user, level in levels.items() if level == "over" and self.of_user(user) > hard)

    def biggest(self, bots: Collection[str], count: int = 3) -> list[Big]:
        """The largest of these bots."""
        return self._ledger.biggest(bots, count)

    def refusal(self, user: str) -> Refusal | None:
        """Why this user may get and start no bot, or None."""
        used, limit = self.of_user(user), self._quota()
        if used <= limit.hard:
            return None
        return quota.refuse(user, used, limit, self.biggest(self._fleet.of_user.get(user, ())), self._deleted(user))

    def weighed(self, user: str) -> None:
        """The deleted bots of a user take another amount than before."""
        with contextlib.suppress(RuntimeError):  # no loop: botd begins, or ends
            asyncio.get_running_loop().call_soon(self._judge, user)

    async def refresh(self, bots: Iterable[str]) -> None:
        """Measure these bots now. Many who ask at once share one look."""
        await self._measure(list(bots), self._clock.boottime())

    async def verify(self) -> list[Difference]:
        """Measure everything; the figures that were wrong, which they are no more."""
        figures = self._ledger.figures
        kept = {bot_id: figure.usage for bot_id, figure in figures.items()}
        await self._measure(list(self._fleet.bots))
        return [
            Difference(bot_id, before, now.usage)
            for bot_id, before in kept.items()
            if (now := figures.get(bot_id)) is not None and now.usage != before
        ]

    def _quota(self) -> quota.Quota:
        return quota.quota_of(self._settings().limits)

    # --- what others say ------------------------------------------------------------------------------

    def look(self, bot_id: str) -> None:
        """Something was done to the folders of this bot: it is measured soon."""
        self._rota.sooner(bot_id, self._clock.boottime())
        self._somebody.set()

    def changed(self, bot: Bot, before: BotState) -> None:
        """After each change of a bot's state: one that began is watched, one that ended may have left something."""
        self._somebody.set()
        if before.pid is not None and bot.state.pid is None:
            figure = self._ledger.figures.get(bot.id)
            now = self._clock.boottime()
            self._rota.sooner(bot.id, now if figure is None else max(now, figure.at + AFTER_END_S))

    def removed(self, bot: Bot) -> None:
        """A bot is gone, and what it had no longer counts against its user."""
        self._ledger.remove(bot.id)
        self._rota.drop(bot.id)
        self._writers.forget(bot.id)
        asyncio.get_running_loop().call_soon(self._judge, bot.spec.user)

    def settings_changed(self) -> None:
        """Another limit may be in force."""
        for user in self._ledger.users():
            self._judge(user)

    def start(self) -> None:
        """Begin to measure; first those who have no figure."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_ended)

    async def close(self) -> None:
        """Stop; what was measured is on record."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._save()

    # --- the record -----------------------------------------------------------------------------------

    def load(self) -> None:
        """Take the figures on record: they admit and refuse until there are newer ones."""
        try:
            stored = records.load(self._store())
        except BotdError as error:
            log.warning("the figures on record cannot be read, everything is measured: %s", error)
            stored = records.Stored({}, {})
        now, wall, every = self._clock.boottime(), self._clock.steady(), self._interval()
        known = [bot_id for bot_id in stored.bots if bot_id in self._fleet.bots]
        for number, bot_id in enumerate(known):
            usage, at = stored.bots[bot_id]
            self._ledger.recall(bot_id, usage, now - max(0.0, wall - at), at)
            self._rota.sooner(bot_id, now + every * (number + 1) / len(known))
        here = {user: level for user, level in stored.levels.items() if user in self._fleet.of_user}
        self._ledger.levels.update(here)
        self._ledger.gone.update(stored.bots.keys() - self._fleet.bots.keys(), stored.levels.keys() - here.keys())

    def _save(self) -> None:
        """Lost figures are measured again: a database that cannot be written is no reason to stop."""
        ledger = self._ledger
        if not (ledger.changed or ledger.gone):
            return
        figures = ((key, figure) for key in ledger.changed if (figure := ledger.figures.get(key)) is not None)
        levels = {key: ledger.levels[key] for key in ledger.changed if key in ledger.levels}
        try:
            with self._store().batch() as batch:
                records.drop(batch, ledger.gone)
                records.put(batch, {key: (it.usage, it.wall) for key, it in figures}, levels, self._clock.steady())
        except BotdError as error:
            log.debug("the figures are not recorded: %s", error)
            return
        ledger.recorded()
        self._saved_at = self._clock.boottime()

    # --- the work -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except (BotdError, OSError) as error:
                log.error("storage is not measured: %s", error)
            alive = len(self._fleet) - self._fleet.phases["stopped"] - self._fleet.phases["failed"]
            if not alive and not self._rota.due(self._clock.boottime()):
                self._somebody.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._somebody.wait()
            await asyncio.sleep(LOOK_S)

    async def _round(self) -> None:
        now = self._clock.boottime()
        if len(self._ledger.figures) != len(self._fleet):
            for bot_id in self._fleet.bots.keys() - self._ledger.figures.keys():
                self._rota.sooner(bot_id, now)
        hurried = await self._hurried(now) if self._writers.stirred(now, near=bool(self._ledger.levels)) else []
        regular = self._rota.take(now, AT_ONCE) if now >= self._rested_at else []
        try:
            await self._measure([*hurried, *regular])
        except BaseException:
            for bot_id in regular:
                self._rota.sooner(bot_id, now + NEAR_EVERY_S)
            raise
        if regular:
            after = self._clock.boottime()
            self._rested_at = after + REST * (after - now)
        if now - self._saved_at >= SAVE_S:
            self._save()

    async def _hurried(self, now: float) -> list[str]:
        """The bots that have written so much that their users may have come near a mark."""
        scan = await self._writers.scan(now, self._clock.boottime)
        if scan.unexplained:
            for bot in self._fleet:
                if bot.state.pid is not None:
                    self._rota.sooner(bot.id, now)
        limit = self._quota()
        due = [id for user, hints in scan.by_user.items() for id in quota.due(hints, self.of_user(user), limit)]
        return [
            id for id in due if (it := self._ledger.figures.get(id)) is None or now - it.at >= REST_OF_ONE * it.took_s
        ]

    def _interval(self) -> float:
        return self._settings().cleaning.storage_interval_s or EVERY_S

    async def _measure(self, bots: Sequence[str], since: float | None = None) -> None:
        """Measure these bots, a few at a time, and act on what is found; those that were measured `since` are left."""
        wanted = list(dict.fromkeys(bots))
        for first in range(0, len(wanted), AT_ONCE):
            async with self._measuring:
                some = {}
                for bot_id in wanted[first : first + AT_ONCE]:
                    bot, figure = self._fleet.get(bot_id), self._ledger.figures.get(bot_id)
                    if bot is not None and (since is None or figure is None or figure.at < since):
                        some[bot_id] = bot
                now, wall = self._clock.boottime(), self._clock.steady()
                found = await asyncio.to_thread(measure, self._paths.home, list(some))
                for bot_id, bot in some.items():
                    if self._fleet.get(bot_id) is bot:
                        self._take(bot, found[bot_id], now, wall)
            measured: dict[str, list[str]] = {}
            for bot in some.values():
                measured.setdefault(bot.spec.user, []).append(bot.id)
            for user, ids in measured.items():
                self._judge(user, ids)

    def _take(self, bot: Bot, found: Measured, now: float, wall: float) -> None:
        figure, grown = self._ledger.enter(bot.id, found.usage, now, wall)
        figure.entries, figure.complete, figure.took_s = found.entries, found.complete, found.took_s
        figure.witnessed |= self._writers.measured(bot.id, grown)
        every = self._interval() * (1.0 if bot.state.pid is not None else STOPPED_SELDOM)
        if self.level(bot.spec.user) != "within":
            every = min(every, NEAR_EVERY_S)
        self._rota.put(bot.id, now + every)

    def _judge(self, user: str, measured: Collection[str] = ()) -> None:
        """What follows from the figures of one user, those of these bots being new."""
        used, limit, before = self.of_user(user), self._quota(), self.level(user)
        bots = self._fleet.of_user.get(user, set())
        after = quota.level(before, used, limit)
        if after != before:
            stopped = sum(quota.is_stopped_for_it(self._fleet.bots[id].state) for id in bots)
            self._ledger.stands(user, after)
            self._saved_at = float("-inf")
            now = self._clock.boottime()
            for bot_id in bots if after != "within" else ():
                self._rota.sooner(bot_id, now + NEAR_EVERY_S)
            if bots:
                self._note(None, "quota", quota.told(user, before, after, used, limit, self.biggest(bots), stopped))
        if used <= limit.hard:
            self._ledger.let_grow(bots if before == "over" else measured)
            return
        writers = list(self._running(bots))
        for bot_id in quota.suspects(writers):
            self._ledger.suspect(bot_id)
            self._rota.sooner(bot_id, self._clock.boottime() + SUSPECT_S)
        sentence = quota.sentence(user, used, limit, writers)
        if sentence is not None:
            # Who is left begins anew: what it wrote before is not its part of what comes now.
            self._ledger.let_grow(bots)
            writer = sentence.writer
            self._report([(writer.id, Condemned(writer.generation, "quota", sentence.reason, sentence.at_once))])

    def _running(self, bots: Iterable[str]) -> Iterable[Writer]:
        for bot_id in bots:
            bot, figure = self._fleet.bots[bot_id], self._ledger.figures.get(bot_id)
            if figure is not None and bot.state.phase == "running":
                yield Writer(
                    bot_id,
                    bot.state.generation,
                    figure.usage.total,
                    figure.base,
                    figure.rate,
                    bot.spec.stop_grace_s,
                    figure.witnessed,
                )


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("storage is measured no more", exc_info=error)
