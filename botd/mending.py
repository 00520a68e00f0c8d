"""The database in trouble: found out, lived with, and put right, while bots run on.

botd starts with whatever can be read; until somebody repairs the file, or gives it room, everything can be looked at
and nothing is promised. What has gone from under a running botd it puts back by itself: it has everything in memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.bot import BotState
from botd.core.events import Adopted, StartRequested
from botd.core.fleet import Bot, Fleet, rules_of
from botd.engine import Engine
from botd.executor import Executor
from botd.state import look
from botd.state.salvage import Salvage, salvage
from botd.state.store import Damaged, Store, StoredBot, StoreError, snapshot_path
from botd.storage.watch import NAMES, FolderWatch
from botd.system.adoption import adopt
from botd.system.clock import Clock, rfc3339

log = logging.getLogger("botd.mending")

AGAIN_S = 2.0
"""How often to see whether a database that could not be used can be again."""
COPY_S = 60.0
"""How long a change of the fleet may be missing in the snapshot."""
SETTLED_S = 0.25
"""How long to let somebody finish who is moving or removing our files."""
CHECK_PATIENCE_S = 300.0


class Mender:
    """`open` at the start, `believe` once the keeper was heard, `run` as a task, `repair` on request."""

    def __init__(self, paths: Paths, clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        self._path = paths.database
        self._saved: Salvage | None = None
        self._checked_at: float | None = None
        self._repairing = False
        self.store: Store
        self.engine: Engine
        self.executor: Executor
        self.on_new: Callable[[Bot], None]
        """Called with each bot that a repair has brought."""
        self.on_mended: Callable[[], None]
        """Called when the database can be used again."""
        self.put_back: Callable[[], Awaitable[None]]
        """Makes folders and sockets of ours that are gone again."""

    # --- at the start -----------------------------------------------------------------------------

    def open(self) -> tuple[Store, list[StoredBot]]:
        """The database and the bots on record. Raises BotdError for one that is not ours to read."""
        boot_id = self._clock.boot_id()
        try:
            self.store = Store.open(self._path, boot_id)
            try:
                bots = self.store.load()
                self._claim(boot_id)
            except StoreError:
                self.store.close()
                raise
        except StoreError as error:
            if not (isinstance(error, Damaged) or (error.passes and os.path.lexists(self._path))):
                raise
            log.error("%s; everything can be looked at, and nothing be changed; bots run on", error.message)
            self._saved = salvage(self._path)
            self.store = Store.stand_in(self._path, self._saved, error)
            bots = self.store.load()
        self.store.on_rewritten = self._rewritten
        return self.store, bots

    def _claim(self, boot_id: str) -> None:
        """From now on the log is of this boot (see `state.connection`)."""
        if self.store.meta("boot_id") == boot_id:
            return
        try:
            with self.store.batch() as batch:
                batch.set_meta("boot_id", boot_id)
            self.store.checkpoint()
        except StoreError as error:
            if not error.passes:
                raise
            log.warning("%s", error.message)

    def _rewritten(self, text: str) -> None:
        log.error("%s", text)
        # Later: whoever found out is in the middle of something.
        asyncio.get_running_loop().call_soon(self.engine.note, None, "database", text)

    @property
    def uncertain(self) -> set[str]:
        """Bots of which only the specification could be read: what runs of them is taken over, nothing is started."""
        return self._saved.uncertain if self._saved is not None else set()

    def believe(self, fleet: Fleet, states: list[dict[str, Any]]) -> None:
        """What runs was wanted: a bot whose record is uncertain is not ended for what an older one says."""
        alive = {state["id"] for state in states if state["live"]}
        for bot_id in alive & self.uncertain:
            bot = fleet.get(bot_id)
            if bot is not None:
                fleet.set_state(bot, replace(bot.state, wanted=True))

    # --- while it runs ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: keep a copy from the first hour on, see what becomes of our files, use them again."""
        await asyncio.gather(self._retry(), self._watch(), self._keep_copies())

    async def _keep_copies(self) -> None:
        """A snapshot from the beginning on, and soon after the fleet has changed."""
        while True:
            self.keep_copy()
            await asyncio.sleep(COPY_S)

    def keep_copy(self) -> None:
        """Take a snapshot if there is none, or if the fleet is not the one of the last."""
        if self.store.snapshot_due or not os.path.exists(snapshot_path(self._path)):
            self._snapshot()

    def _snapshot(self) -> None:
        if self.store.trouble is not None:
            return
        try:
            self.store.snapshot()
        except (BotdError, OSError) as error:
            log.warning("no snapshot: %s", error)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            trouble = self.store.trouble
            if trouble is not None and trouble.passes and not self._repairing:
                try:
                    self._reopen()
                except BotdError as error:
                    log.debug("still: %s", error)

    def _reopen(self) -> None:
        self.store.reopen(self._clock.boot_id())
        log.info("%s can be used again", self._path)
        self.engine.record_backlog()
        self._resume()

    async def _watch(self) -> None:
        """Our files have names in two folders; both may be moved or removed by somebody."""
        while True:
            watches, folders = [], []
            try:
                for path in (self._paths.home, self._paths.run):
                    try:
                        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    except OSError:
                        continue
                    folders.append(folder)
                    watches.append(FolderWatch(folder, NAMES))
                await self._look()
                if watches:
                    await _any_change(watches)
                await asyncio.sleep(SETTLED_S)
            finally:
                for watch in watches:
                    watch.close()
                for folder in folders:
                    os.close(folder)

    async def _look(self) -> None:
        try:
            await self.put_back()
            self.store.watch()
        except (BotdError, OSError) as error:
            log.error("%s", error)

    async def inspect(self) -> None:
        """Have another process look through the file; believe its finding when we see the same."""
        if self.store.trouble is not None:
            return
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", look.__file__, self._path,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(child.communicate(), CHECK_PATIENCE_S)
        except (TimeoutError, asyncio.CancelledError):
            child.kill()
            await child.wait()
            raise
        if said.strip() != b"ok":
            self.store.check()
        self._checked_at = self._clock.wall()

    # --- repair -----------------------------------------------------------------------------------

    async def repair(self, check_only: bool) -> dict[str, Any]:
        """Look, and put right what is wrong. Raises BotdError: the disk does not let us; conflict."""
        problem = self._problem()
        out: dict[str, Any] = {"problem": problem.message if problem else None, "repaired": False}
        if problem is None or check_only:
            out["remedy"] = problem.hint if problem else ""
            return out
        if self._repairing:
            raise BotdError("conflict", "a repair is under way already", hint="botctl daemon status")
        self._repairing = True
        try:
            if problem.passes:
                self._reopen()
                return out | {"repaired": True, "lost": [], "kept": None}
            return out | await self._rebuild()
        finally:
            self._repairing = False

    def _problem(self) -> StoreError | None:
        if self.store.trouble is None:
            try:
                self.store.watch()
                self.store.check()
                self._checked_at = self._clock.wall()
            except StoreError as error:
                return error
        return self.store.trouble

    async def _rebuild(self) -> dict[str, Any]:
        """A new file from memory, and from what of the history still reads."""
        # Closing the file gives up our lock on it. It is about to be replaced, and run/botd.lock keeps others out.
        found = await asyncio.to_thread(salvage, self._path)
        start = self._saved if self._saved is not None else Salvage()
        strays = [(stray, adopted) for stray in self.executor.strays if (adopted := adopt(stray.id, stray.pid))]
        strays = [(stray, adopted) for stray, adopted in strays if stray.id not in self.engine.fleet.bots]
        boot_id, wall = self._clock.boot_id(), self._clock.wall()
        bots = {bot.id: _stored(bot, boot_id) for bot in self.engine.fleet}
        secrets = dict(self.store.raw_secrets())
        ports = {bot.port for bot in bots.values()}
        for stray, (spec, values, port) in strays:
            port = None if port in ports else port
            bots[stray.id] = StoredBot(spec, BotState(wanted=True), wall, port, None, boot_id)
            secrets[stray.id] = {name: value.encode("utf-8", "surrogatepass") for name, value in values.items()}
        lost = [text for text in start.lost if text.partition(":")[0] not in {stray.id for stray, _ in strays}]
        saved = replace(found, bots=bots, secrets=secrets, lost=lost)
        saved.meta["boot_id"] = boot_id
        kept = self.store.restore(saved)
        self.engine.record_backlog()
        for stray, _ in strays:
            bot = _bot(bots[stray.id])
            self.engine.fleet.add(bot)
            self.on_new(bot)
        self.engine.happened([(s.id, Adopted(s.generation, s.pid, s.began)) for s, _ in strays])
        adopted_ids = sorted(stray.id for stray, _ in strays)
        self.executor.strays = [stray for stray in self.executor.strays if stray.id not in adopted_ids]
        restored = replace(saved, from_snapshot=start.from_snapshot, uncertain=start.uncertain)
        restored.snapshot_at_wall = start.snapshot_at_wall
        told = {"repaired": True, "kept": kept, **restored.summary(rfc3339), "adopted": adopted_ids}
        self._resume()
        self.engine.note(None, "database", f"the database was repaired; {len(bots)} bots, the damaged file is {kept}")
        self._snapshot()
        return told

    def _resume(self) -> None:
        """Start what is wanted and was kept down because its record was uncertain."""
        self.on_mended()
        waiting, self._saved = self.uncertain, None
        fleet = self.engine.fleet
        down = [bot for bot_id in sorted(waiting) if (bot := fleet.get(bot_id)) is not None]
        wanted = [bot for bot in down if bot.state.wanted and bot.state.phase == "stopped"]
        self.engine.happened([(bot.id, StartRequested()) for bot in wanted])

    # --- for people -------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """What `daemon.status` and `doctor` tell of the database."""
        trouble, sizes = self.store.trouble, self.store.sizes()
        try:
            snapshot: str | None = rfc3339(os.stat(snapshot_path(self._path)).st_mtime)
        except OSError:
            snapshot = None
        return {
            "path": self._path,
            "state": "ok" if trouble is None else "unavailable" if trouble.passes else "damaged",
            "problem": trouble.message if trouble else None,
            "remedy": trouble.hint if trouble else "",
            "waiting": self.engine.deferred,
            "schema": self.store.schema,
            "size_bytes": sizes.database_bytes,
            "log_bytes": sizes.wal_bytes,
            "snapshot_at": snapshot,
            "checked_at": rfc3339(self._checked_at) if self._checked_at is not None else None,
        }


async def _any_change(watches: list[FolderWatch]) -> None:
    tasks = [asyncio.ensure_future(watch.wait()) for watch in watches]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _stored(bot: Bot, boot_id: str) -> StoredBot:
    return StoredBot(bot.spec, bot.state, bot.created_at_wall, bot.port, bot.source, boot_id)


def _bot(stored: StoredBot) -> Bot:
    return Bot(stored.spec, stored.state, rules_of(stored.spec), stored.created_at_wall, stored.port, stored.source)
