"""Deleted bots on their way: into the trash, back out of it, or away for good.

What is to become of one is on record before a folder moves (see `state.trash`), in the transaction that removes the bot
or brings it back; the moving itself can be done again. So whoever dies on the way leaves a bot that is there or in the
trash, and `finish` of the next botd moves what is not in its place yet.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as chance
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.bot import NewBot
from botd.core.fleet import Bot
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.state import trash
from botd.state.batch import Batch
from botd.state.store import Store
from botd.state.trash import Discarded
from botd.storage import trashcan

log = logging.getLogger("botd.recycling")

AT_ONCE = 50
"""How many deleted bots are removed before that is on record; what is removed twice after a crash costs a look."""


class Recycler:
    """`load` and `finish` at the start; `enter` and `bury` for a deletion; `returning` and `settle` for its undoing."""

    def __init__(
        self,
        *,
        store: Callable[[], Store],
        paths: Paths,
        settings: Callable[[], Settings],
        size_of: Callable[[str], int] = lambda bot_id: 0,
        sized: Callable[[str], None] = lambda user: None,
    ) -> None:
        """`size_of`: what a bot was last known to take on disk; `sized` hears of users whose trash has another size."""
        self._size_of, self._sized = size_of, sized
        self._store = store
        self._paths = paths
        self._settings = settings
        self._all: dict[str, Discarded] = {}
        self._of: dict[str, list[str]] = {}
        self._entering: dict[str, Discarded] = {}
        self._back: dict[str, Discarded] = {}
        """By the id that it comes back as: what is on record and not in its place."""
        self._bytes: dict[str, int] = {}
        self._guessed: set[str] = set()
        """Keys whose size is that of the bot when it was measured last."""
        self._of_user: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- at the start -------------------------------------------------------------------------------

    def load(self) -> None:
        """What is on record, and what only stands in the trash: a database that was lost and repaired knows less."""
        self._all, self._of, self._back = {}, {}, {}
        for item in trash.load(self._store()):
            self._add(item)
        for key, note in trashcan.notes(self._paths):
            if key not in self._all:
                try:
                    self._add(trash.decode_note(key, note))
                except ValueError as error:
                    log.warning("trash/%s: its note cannot be read: %s", key, error)

    def _add(self, item: Discarded) -> None:
        if item.key not in self._all:
            self._of.setdefault(item.id, []).append(item.key)
        self._all[item.key] = item
        if item.standing != "kept":
            self._weigh(item, 0)
        if item.standing == "back" and item.restored_as is not None:
            self._back[item.restored_as] = item

    def _forget(self, key: str) -> None:
        item = self._all.pop(key, None)
        if item is not None:
            self._weigh(item, 0)
            self._bytes.pop(key, None)
            self._guessed.discard(key)
            keys = self._of[item.id]
            keys.remove(key)
            if not keys:
                del self._of[item.id]

    def finish(self, exists: Callable[[str], bool]) -> None:
        """Do what an earlier botd was killed before: only renames, all that is to be removed goes in the background.

        Nothing happens while the database is in trouble: who knows what it would say.
        """
        if self._store().trouble is not None:
            return
        claimed: set[str] = set()
        for item in sorted(self._all.values(), key=lambda item: item.at_wall, reverse=True):
            if item.standing == "back":
                self._settle(item)
            elif not exists(item.id) and item.id not in claimed:
                # The folders at the bot's place are those of its last deletion.
                claimed.add(item.id)
                self._put(item)
        self._destroy([item for item in self._all.values() if item.standing == "going"])

    # --- into the trash -----------------------------------------------------------------------------

    def enter(self, batch: Batch, bot: Bot, wall: float) -> None:
        """The deletion of a bot, as part of the transaction that it is; may be called again for the same bot."""
        former = self._entering.get(bot.id)
        item = Discarded(
            former.key if former else trashcan.key_of(bot.id, chance.token_hex(6)),
            bot.id,
            wall,
            wall + self._settings().cleaning.delete_grace_s,
            bot.spec,
            self._store().secrets(bot.id),
            bot.port,
            bot.source,
            bot.created_at_wall,
        )
        if bot.state.purge or item.until_wall <= wall:
            item = item.going()
        batch.delete_bot(bot.id)
        trash.put(batch, item)
        self._entering[bot.id] = item

    def bury(self, bot_id: str) -> None:
        """Move the folders of a bot whose deletion is on record. Never raises: `finish` tries again."""
        item = self._entering.pop(bot_id, None)
        if item is None:
            return
        self._back.pop(bot_id, None)
        self._add(item)
        if item.standing == "kept":
            self._weigh(item, self._size_of(bot_id))
            self._guessed.add(item.key)
        self._put(item)
        crash_point("botd-remove-aside")
        if item.standing == "going":
            self._destroy([item])

    def retire(self, bot_id: str, wall: float) -> bool:
        """Folders of a bot that no record knows go to the trash like those of a deleted one. False: not recorded."""
        key = trashcan.key_of(bot_id, chance.token_hex(6))
        item = Discarded(key, bot_id, wall, wall + self._settings().cleaning.delete_grace_s)
        try:
            with self._store().batch(durable=True) as batch:
                trash.put(batch, item)
        except BotdError as error:
            log.warning("%s stays where it is: %s", bot_id, error.message)
            return False
        self._add(item)
        self._put(item)
        return True

    def _put(self, item: Discarded) -> None:
        try:
            problems = trashcan.put(self._paths, item.key, item.id, trash.encode(item, secrets=False))
        except (BotdError, OSError) as error:
            problems = [str(error)]
        for problem in problems:
            log.warning("%s stays where it is until the next start: %s", item.id, problem)

    # --- and back -----------------------------------------------------------------------------------

    def returning(self, item: Discarded, as_id: str) -> Callable[[Batch], None]:
        """What the transaction that brings it back has to record besides the bot itself."""
        back = replace(item, standing="back", restored_as=as_id, spec=None, secrets={})
        return lambda batch: trash.put(batch, back)

    def returned(self, item: Discarded, as_id: str) -> None:
        """The transaction is on record: give it its folders. BotdError(unavailable) when they cannot be moved now."""
        crash_point("botd-undelete-committed")
        self._add(replace(item, standing="back", restored_as=as_id, spec=None, secrets={}))
        self.settle(as_id)

    def settle(self, bot_id: str) -> None:
        """See to it that a bot that came back has its folders. BotdError(unavailable) while they cannot be moved."""
        item = self._back.get(bot_id)
        if item is not None and (problems := self._settle(item)):
            raise BotdError(
                "unavailable",
                f"{bot_id} is back, but its folders are still in the trash: {'; '.join(problems)}",
                hint=f"see to that; they are moved with its next start (they are {self._paths.home}/trash/{item.key})",
            )

    def _settle(self, item: Discarded) -> list[str]:
        assert item.restored_as is not None
        try:
            problems = trashcan.take_back(self._paths, item.key, item.restored_as)
        except (BotdError, OSError) as error:
            problems = [str(error)]
        for problem in problems:
            log.warning("%s is not in its place: %s", item.restored_as, problem)
        if not problems:
            self._drop([item.key])
            self._back.pop(item.restored_as, None)
            crash_point("botd-undelete-done")
        return problems

    # --- away for good ------------------------------------------------------------------------------

    async def empty(self, keys: Iterable[str]) -> dict[str, tuple[int, list[str]]]:
        """Remove these for good: key -> (bytes given back, what could not be removed). On record before it begins."""
        items = [self._all[key].going() for key in keys if key in self._all and self._all[key].standing != "back"]
        if not items:
            return {}
        with self._store().batch(durable=True) as batch:
            for item in items:
                trash.put(batch, item)
        for item in items:
            self._add(item)
        crash_point("botd-purge-committed")
        out: dict[str, tuple[int, list[str]]] = {}
        for first in range(0, len(items), AT_ONCE):
            out |= await self._remove(items[first : first + AT_ONCE])
        return out

    def _destroy(self, items: Collection[Discarded]) -> None:
        if items:
            task = asyncio.get_running_loop().create_task(self._remove_logged(items))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _remove_logged(self, items: Collection[Discarded]) -> None:
        for _, problems in (await self._remove(items)).values():
            for problem in problems:
                log.warning("not removed: %s", problem)

    async def _remove(self, items: Collection[Discarded]) -> dict[str, tuple[int, list[str]]]:
        """Off the loop: a deep tree must not make anybody wait. They stay on record until nothing of them is left."""
        gone: list[str] = []

        def remove(key: str) -> tuple[int, list[str]]:
            try:
                done = trashcan.remove(self._paths, key)
            except (BotdError, OSError) as error:
                return 0, [str(error)]
            gone.append(key)
            return done.bytes, done.problems

        out = await asyncio.to_thread(lambda: {item.key: remove(item.key) for item in items})
        crash_point("botd-purge-removed")
        self._drop(gone)
        return out

    def _drop(self, keys: Collection[str]) -> None:
        try:
            with self._store().batch() as batch:
                for key in keys:
                    trash.drop(batch, key)
        except BotdError as error:
            log.warning("the next botd looks for %s again: %s", ", ".join(keys), error.message)
            return
        for key in keys:
            self._forget(key)

    async def drain(self) -> None:
        """Wait for removals that were begun."""
        if self._tasks:
            await asyncio.gather(*self._tasks)

    # --- looking ------------------------------------------------------------------------------------

    def kept(self) -> list[Discarded]:
        """What can be brought back, the oldest deletion first."""
        kept = [item for item in self._all.values() if item.standing == "kept"]
        return sorted(kept, key=lambda item: (item.at_wall, item.key))

    def occupied(self, item: Discarded, as_id: str) -> bool:
        """Whether folders that belong to nobody stand where a bot that comes back would have its own."""
        if as_id == item.id:
            self._put(item)  # what could not be moved when it was deleted is no stranger's
        return trashcan.occupied(self._paths, as_id)

    def all(self) -> list[Discarded]:
        """Those, and what is just on its way back or away."""
        return list(self._all.values())

    def find(self, name: str) -> list[Discarded]:
        """What `name` means, an id or a key: the newest deletion first."""
        if name in self._all:
            found = [self._all[name]]
        else:
            found = [self._all[key] for key in self._of.get(name, ())]
        return sorted((item for item in found if item.standing == "kept"), key=lambda item: -item.at_wall)

    def new_bot(self, item: Discarded, as_id: str, port: int | None) -> NewBot:
        """What is created again. BotdError(conflict) when its specification is lost.

        Secrets whose values are lost are not named any more: it starts without them, and who brings it back is told.
        """
        if item.spec is None:
            raise BotdError(
                "conflict",
                f"the specification of {item.id} is lost; only its data is kept",
                hint=f"create a bot and copy what it needs from {self._paths.home}/trash/{item.key}/bot/data",
            )
        directory = item.spec.directory
        if as_id != item.id and (directory + "/").startswith(self._paths.bot(item.id) + "/"):
            directory = self._paths.bot(as_id) + directory.removeprefix(self._paths.bot(item.id))
        names = tuple(name for name in item.spec.secret_names if name in item.secrets)
        spec = replace(item.spec, id=as_id, directory=directory, secret_names=names)
        return NewBot(spec, {name: item.secrets[name] for name in names}, port, item.source)

    async def measured(self, items: Iterable[Discarded]) -> dict[str, int]:
        """Key -> bytes on disk. What lies in the trash does not change: each is walked through once."""
        wanted = [item.key for item in items]
        missing = [key for key in wanted if key not in self._bytes or key in self._guessed]
        found = await asyncio.to_thread(lambda: {key: trashcan.measure(self._paths, key) for key in missing})
        for key, size in found.items():
            if key in self._all:
                self._guessed.discard(key)
                self._weigh(self._all[key], size)
        return {key: found.get(key, self._bytes.get(key, 0)) for key in wanted}

    def bytes_of(self, user: str) -> int:
        """What the deleted bots of a user still take: it counts to their storage, else a quota would be no limit."""
        return self._of_user.get(user, 0)

    def _weigh(self, item: Discarded, size: int) -> None:
        more = size - self._bytes.get(item.key, 0)
        self._bytes[item.key] = size
        if more:
            self._of_user[item.user] = self._of_user.get(item.user, 0) + more
            self._sized(item.user)
