"""Keeping logs: rotated files are compressed, and the oldest go where a budget or their age says so.

The keeper says when it has rotated a file (`rotated`), and that bot's folder is looked at: nothing else is. Everything
is looked at when botd starts, because nobody heard the keeper before, and every hour, because disks have users.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core import logbudget
from botd.core.fleet import Fleet
from botd.core.logbudget import File
from botd.core.settings import Output, Settings
from botd.storage import logsizes, tree
from botd.storage.compressor import Compressor
from botd.system.clock import Clock

log = logging.getLogger("botd.logs")

LOOK_S = 3600.0
AT_ONCE = 50
"""Folders that are looked at in one go of a thread."""
TELL_S = 60.0
"""A flood over its budget loses a file a second; its story gets a line a minute."""
OLD_KEEPER_S = 60.0
BUSY_S = 2.0
"""When to try a folder again in which a rotation was under way."""


class Removed(NamedTuple):
    """What budgets and age have taken since botd started."""

    files: int = 0
    bytes: int = 0


class LogKeep:
    """From `start` to `close` it does the work; `rotated` and `settings_changed` only say that there is some.

    `locks`: whether the keeper takes the lock of a folder that it rotates, and knows compressed files. One of an
    earlier version, which lives until an upgrade replaces it, does not, and nothing is touched under its hands.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        clock: Clock,
        paths: Paths,
        settings: Callable[[], Settings],
        note: Callable[[str | None, str, str], None],
        locks: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._home = paths.home
        self._settings = settings
        self._note = note
        self._locks = locks
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._due: dict[str, None] = {}
        self._everything = True
        self._look_again_at = 0.0
        self._sizes: dict[str, int] = {}
        self._of_user: dict[str, int] = {}
        self._untold: dict[tuple[str, str], Removed] = {}
        self._told_at: dict[str, float] = {}
        self._plain: dict[str, None] = {}
        self._to_compress = asyncio.Event()
        self.removed: dict[str, Removed] = {}
        """By user."""

    # --- what others say ------------------------------------------------------------------------------

    def rotated(self, bot_id: str) -> None:
        """A file of this bot was rotated."""
        self._due[bot_id] = None
        self._work.set()

    def settings_changed(self) -> None:
        """Every folder is measured against the new bounds."""
        self._everything = True
        self._work.set()

    def start(self) -> None:
        """Begin with a look at everything."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_ended)

    async def close(self) -> None:
        """Stop, and back when the process that compresses is gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- the work -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        compressing = asyncio.get_running_loop().create_task(self._compress())
        try:
            while True:
                await self._round()
                if self._due or self._everything:
                    continue
                self._work.clear()
                left = self._look_again_at - self._clock.boottime()
                try:
                    async with asyncio.timeout(min(left, TELL_S) if self._untold else left):
                        await self._work.wait()
                except TimeoutError:
                    pass  # time to look at everything, or to tell something
                self._everything |= self._clock.boottime() >= self._look_again_at
        finally:
            compressing.cancel()
            await asyncio.gather(compressing, return_exceptions=True)

    async def _round(self) -> None:
        try:
            if not self._locks():
                self._due, self._everything = {}, False
                self._look_again_at = self._clock.boottime() + OLD_KEEPER_S
                return
            if self._everything:
                self._everything = False
                self._look_again_at = self._clock.boottime() + LOOK_S
                await self._look_at(list(self._fleet.bots))
                self._forget_deleted()
            while self._due:
                due, self._due = list(self._due), {}
                await self._look_at(due)
        except (BotdError, OSError) as error:
            log.error("logs are not looked at: %s", error)
        self._tell()

    async def _look_at(self, bots: list[str]) -> None:
        """Measure these folders; what is too much for their bot, or for its user, goes."""
        over: dict[str, None] = {}
        for first in range(0, len(bots), AT_ONCE):
            some = [bot_id for bot_id in bots[first : first + AT_ONCE] if bot_id in self._fleet.bots]
            output = self._settings().output
            for bot_id, files in (await asyncio.to_thread(_look, self._home, some)).items():
                self._count(bot_id, logbudget.total(files))
                if output.compress and any(_is_plain(file) for file in files):
                    self._plain[bot_id] = None
                    self._to_compress.set()
                user = bot_id.partition("/")[0]
                of_user = output.max_bytes_per_user
                if of_user is not None and self._of_user[user] > of_user:
                    over[user] = None
                elif removals := logbudget.decide(files, _without_user(output), self._clock.steady()):
                    await self._remove(removals)
        if over:
            self._forget_deleted()
        for user in over:
            everything = await asyncio.to_thread(_look, self._home, list(self._fleet.of_user.get(user, ())))
            for bot_id, found in everything.items():
                self._count(bot_id, logbudget.total(found))
            files = [file for found in everything.values() for file in found]
            await self._remove(logbudget.decide(files, self._settings().output, self._clock.steady()))

    def _forget_deleted(self) -> None:
        for bot_id in [id for id in self._sizes if id not in self._fleet.bots]:
            self._count(bot_id, 0)
            del self._sizes[bot_id]

    async def _remove(self, removals: list[logbudget.Removal]) -> None:
        reasons = {removal.file: removal.reason for removal in removals}
        for bot_id in dict.fromkeys(file.bot for file in reasons):
            wanted = [file for file in reasons if file.bot == bot_id]
            try:
                gone = await asyncio.to_thread(_remove, self._home, bot_id, wanted)
            except logsizes.Busy:
                asyncio.get_running_loop().call_later(BUSY_S, self.rotated, bot_id)
                continue
            for file in gone:
                self._untold[bot_id, reasons[file]] = _more(self._untold.get((bot_id, reasons[file])), file)
                user = bot_id.partition("/")[0]
                self.removed[user] = _more(self.removed.get(user), file)
            self._count(bot_id, self._sizes.get(bot_id, 0) - logbudget.total(gone))

    def _count(self, bot_id: str, size: int) -> None:
        user = bot_id.partition("/")[0]
        before = self._sizes.get(bot_id, 0)
        self._sizes[bot_id] = size
        self._of_user[user] = self._of_user.get(user, 0) + size - before

    def _tell(self) -> None:
        now = self._clock.boottime()
        told: set[str] = set()
        for bot_id, reason in list(self._untold):
            if bot_id in told or now - self._told_at.get(bot_id, -TELL_S) >= TELL_S:
                told.add(bot_id)
                gone = self._untold.pop((bot_id, reason))
                self._note(bot_id, "logs", logbudget.summary(bot_id, *gone, reason))
        self._told_at = {id: at for id, at in self._told_at.items() if now - at < TELL_S} | dict.fromkeys(told, now)

    # --- compressing ----------------------------------------------------------------------------------

    async def _compress(self) -> None:
        while True:
            await self._to_compress.wait()
            compressor = Compressor(self._home)
            try:
                while self._plain:
                    bot_id = next(iter(self._plain))
                    del self._plain[bot_id]
                    if bot_id in self._fleet.bots and self._settings().output.compress:
                        await self._compress_one(compressor, bot_id)
            except OSError as error:
                log.error("logs are not compressed: %s", error)
            finally:
                self._to_compress.clear()
                # A process that waits for hours would cost its memory all the time.
                closing = asyncio.get_running_loop().create_task(compressor.close())
                try:
                    await asyncio.shield(closing)
                finally:
                    await closing

    async def _compress_one(self, compressor: Compressor, bot_id: str) -> None:
        done = await compressor.compress(bot_id)
        for problem in done["problems"]:
            log.warning("%s: its logs are not compressed: %s", bot_id, problem)
        if done["files"]:
            log.debug("%s: %d logs compressed, %d -> %d bytes", bot_id, done["files"], done["before"], done["after"])
            self._count(bot_id, self._sizes.get(bot_id, 0) - done["before"] + done["after"])
        if done["busy"]:
            asyncio.get_running_loop().call_later(BUSY_S, self.rotated, bot_id)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("logs are kept no more", exc_info=error)


def _is_plain(file: File) -> bool:
    return file.number > 1 and not file.packed


def _without_user(output: Output) -> Output:
    return output if output.max_bytes_per_user is None else replace(output, max_bytes_per_user=None)


def _more(before: Removed | None, file: File) -> Removed:
    files, size = before or (0, 0)
    return Removed(files + 1, size + file.bytes)


def _look(home: str, bots: Iterable[str]) -> dict[str, list[File]]:
    fd = tree.open_directory(home)
    try:
        return {bot_id: logsizes.look(fd, bot_id) for bot_id in bots}
    finally:
        os.close(fd)


def _remove(home: str, bot_id: str, files: list[File]) -> list[File]:
    fd = tree.open_directory(home)
    try:
        return logsizes.remove(fd, bot_id, files)
    finally:
        os.close(fd)
