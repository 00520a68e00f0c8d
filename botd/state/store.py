"""The fleet on disk: one SQLite file, one connection, used from the thread that opened it.

Writing happens in a `Batch` (`with store.batch() as batch:`), everything else is here. What was committed
survives kill -9 of botd; what was committed `durable` survives a power cut as well.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from botd.crash import crash_point
from botd.state.batch import Batch, Memory
from botd.state.codec import decode_spec, decode_state
from botd.state.connection import Connection, check, connect, create_private, open_database, publish, remove
from botd.state.errors import SQLITE_ERRORS, Damaged, StoreError, explain, explain_os, snapshot_path
from botd.state.records import NewEvent, Pruned, Sizes, StoredBot, StoredEvent, StoredRequest
from botd.state.repair import finish, restored_path, take_place
from botd.state.salvage import Salvage, fill, salvage, write
from botd.state.schema import MIGRATIONS, migrate

__all__ = [
    "Batch",
    "Damaged",
    "NewEvent",
    "Pruned",
    "Sizes",
    "Store",
    "StoreError",
    "StoredBot",
    "StoredEvent",
    "StoredRequest",
    "snapshot_path",
]

_LOAD = """
    SELECT id, wanted, spec, port, source, created_at, boot_id, generation, phase, state
    FROM desired LEFT JOIN observed USING (id) ORDER BY id
"""

_EVENTS = "SELECT seq, id, at, kind, text, generation FROM events WHERE seq > ?"
# `IS` because the daemon's own lines have no id. The index holds (id, seq): only what goes is touched.
_PRUNE_ONE = """
    DELETE FROM events WHERE id IS ? AND seq <= (
        SELECT seq FROM events WHERE id IS ? ORDER BY seq DESC LIMIT 1 OFFSET ?
    )
"""
_PRUNE_ALL = "DELETE FROM events WHERE seq <= (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?)"


class Store:
    """Open with `Store.open`. Every method may raise StoreError (kind `unavailable`), or Damaged."""

    def __init__(self, connection: Connection, path: str, trouble: StoreError | None = None) -> None:
        self.path = path
        self.on_rewritten: Callable[[str], None] | None = None
        """Called with words when the file had been taken away and was written again."""
        self._trouble = trouble
        self._adopt(connection)

    @classmethod
    def open(cls, path: str, boot_id: str = "") -> Self:
        """The database at `path`, created (mode 0600) or migrated where needed. Its folder must exist.

        `boot_id`: of this boot of the machine; with it, a log that was damaged is told from one that a power cut has
        cut short. Raises Damaged when it cannot be trusted (not a database, cut off, malformed, gone); StoreError when
        it is of a newer botd or another program, in use, or out of reach.
        """
        try:
            finish(path)
        except OSError as error:
            raise explain_os(path, error) from error
        connection = open_database(path, boot_id)
        try:
            return cls(connection, path)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def stand_in(cls, path: str, saved: Salvage, trouble: StoreError) -> Self:
        """A store in memory that holds what was saved of the database at `path`. It can be read; writing raises."""
        return cls(_in_memory(path, saved), path, trouble)

    def _adopt(self, connection: Connection) -> None:
        self._connection = connection
        secrets: dict[str, dict[str, bytes]] = {}
        with self._guard():
            for bot_id, name, value in connection.execute("SELECT id, name, value FROM secrets ORDER BY id, name"):
                secrets.setdefault(bot_id, {})[name] = value
        # In memory as the rest of the fleet is: a bot is started again also while its database is damaged.
        self._memory = Memory(secrets)
        self._identity = self._look() if self._trouble is None else None

    def close(self) -> None:
        """Fold the log into the database and let go of it. May be called twice."""
        self._connection.close()

    @contextmanager
    def _guard(self) -> Iterator[Connection]:
        try:
            yield self._connection
        except SQLITE_ERRORS as error:
            raise self._connection.explain(error) from error

    # --- the file itself --------------------------------------------------------------------------

    @property
    def trouble(self) -> StoreError | None:
        """Why nothing can be written until somebody sees to it, or None."""
        return self._trouble or self._connection.damage

    @property
    def schema(self) -> int:
        """The version of the tables."""
        return len(MIGRATIONS)

    def condemn(self, detail: str) -> None:
        """Somebody found that the file is damaged: nothing is written to it any more."""
        if self.trouble is None:
            self._trouble = Damaged(self.path, detail)

    def _look(self) -> dict[str, tuple[int, int, int]]:
        """(device, inode, size) of the database and of its log, where they are."""
        out = {}
        for path in (self.path, f"{self.path}-wal"):
            try:
                found = os.stat(path)
            except OSError:
                continue
            out[path] = (found.st_dev, found.st_ino, found.st_size)
        return out

    def watch(self) -> None:
        """See whether the file is still ours and whole. One that was taken away is written again, nothing lost.

        Raises StoreError when that cannot be done; Damaged when the file was cut off.
        """
        if self._identity is None or self.trouble is not None:
            return
        now, before = self._look(), self._identity
        for path, (device, inode, size) in before.items():
            found = now.get(path)
            if found is None or found[:2] != (device, inode):
                self._write_again("removed" if found is None else "replaced", path)
                return
            if path == self.path and found[2] < size:
                self.condemn(f"it was cut off: {found[2]} bytes are left of {size}")
                return
        self._identity = now

    def _write_again(self, what: str, path: str) -> None:
        """We still have the file that has no name any more, with all that is in it."""
        new = f"{restored_path(self.path)}.new"
        try:
            create_private(new)
            try:
                _copy(self._connection, new)
                publish(new, restored_path(self.path))
            except BaseException:
                remove(new, f"{new}-journal", f"{new}-wal")
                raise
            log = f"{self.path}-wal"
            if self._identity is not None and self._look().get(log, ())[:2] == self._identity.get(log, (None,))[:2]:
                remove(log)  # ours: everything in it is in the copy
            aside = self._take_place()
        except SQLITE_ERRORS as error:
            raise self._connection.explain(error) from error
        except OSError as error:
            raise explain_os(self.path, error) from error
        if self.on_rewritten is not None:
            kept = f"; what stood there is {aside}" if aside else ""
            self.on_rewritten(f"{os.path.basename(path)} was {what}; it is written again, nothing is lost{kept}")

    def _take_place(self) -> str | None:
        aside = take_place(self.path)
        # Its end removes a log by name: it has to be over before the next one has its own.
        self._connection.close()
        try:
            connection = open_database(self.path)
        except StoreError as error:
            self._trouble = error
            self._adopt(_in_memory(self.path, salvage(self.path)))
            raise
        self._trouble = None
        self._adopt(connection)
        return aside

    def restore(self, saved: Salvage) -> str | None:
        """Put a new database with exactly this in the place of what is there. Where the former is now, or None.

        Raises StoreError; the one that was there is in its place then, or its successor.
        """
        new = f"{restored_path(self.path)}.new"
        try:
            write(saved, new)
            publish(new, restored_path(self.path))
            return self._take_place()
        except SQLITE_ERRORS as error:
            raise explain(self.path, error) from error
        except OSError as error:
            raise explain_os(self.path, error) from error

    def reopen(self, boot_id: str) -> None:
        """Leave the memory and use the file again, now that its trouble has passed. Raises StoreError."""
        connection = open_database(self.path, boot_id)
        self._connection.close()
        self._trouble = None
        self._adopt(connection)

    def make_room(self) -> bool:
        """Give the space of the log back, on a full disk. Whether there was any."""
        log = f"{self.path}-wal"
        before = _size(log)
        with self._guard() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return _size(log) < before

    def check(self) -> None:
        """Look through the whole database. Raises Damaged. Takes its time with a large one."""
        with self._guard() as connection:
            connection.execute("PRAGMA shrink_memory")  # else it looks at sound pages in memory
            try:
                check(connection)
            except Damaged as error:
                self.condemn(error.detail)
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a SELECT finds, for the modules of this package that have tables of their own."""
        with self._guard() as connection:
            return connection.execute(sql, values).fetchall()

    # --- bots -------------------------------------------------------------------------------------

    def batch(self, *, durable: bool = False) -> Batch:
        """One transaction. `durable` waits for the disk: for what a user is told is done."""
        if durable:
            self.watch()
        if (trouble := self.trouble) is not None:
            raise trouble.with_traceback(None)
        return Batch(self._connection, self._memory, durable=durable)

    def load(self) -> list[StoredBot]:
        """Every bot on record, sorted by id."""
        bots = []
        with self._guard() as connection:
            rows = connection.execute(_LOAD).fetchall()
        for bot_id, wanted, spec, port, source, created_at, boot_id, generation, phase, state in rows:
            try:
                decoded = decode_state(
                    "{}" if state is None else state,
                    wanted=bool(wanted),
                    generation=generation or 0,
                    phase=phase or "stopped",
                )
                bots.append(StoredBot(decode_spec(bot_id, spec), decoded, created_at, port, source, boot_id or ""))
            except ValueError as error:
                raise Damaged(self.path, f"the record of {bot_id} cannot be read: {error}") from error
        return bots

    def secrets(self, bot_id: str) -> dict[str, str]:
        """Name -> value, empty for an unknown bot. For the environment of a life and for nothing else."""
        with self._guard():
            return {
                name: value.decode("utf-8", "surrogatepass")
                for name, value in self._memory.secrets.get(bot_id, {}).items()
            }

    def raw_secrets(self) -> dict[str, dict[str, bytes]]:
        """All of them as they are stored, for a repair."""
        return self._memory.secrets

    @property
    def snapshot_due(self) -> bool:
        """Whether the fleet itself (not only what it does) has changed since the last snapshot."""
        return self._memory.fleet_changed

    def secrets_equal(self, bot_id: str, secrets: Mapping[str, str]) -> bool:
        """Whether a bot has exactly these secrets."""
        return self.secrets(bot_id) == secrets

    def sources(self, source: str) -> set[str]:
        """The ids of the bots that the manifest `source` brought."""
        with self._guard() as connection:
            return {bot_id for (bot_id,) in connection.execute("SELECT id FROM desired WHERE source = ?", (source,))}

    def ports(self) -> dict[int, str]:
        """Port -> id of the bot that it belongs to."""
        with self._guard() as connection:
            return dict(connection.execute("SELECT port, id FROM desired WHERE port IS NOT NULL"))

    # --- history, requests, notes -----------------------------------------------------------------

    def events(
        self, ids: Collection[str] | None = None, after_seq: int | None = None, limit: int = 100
    ) -> list[StoredEvent]:
        """The newest `limit` lines of history, oldest first: of these bots only, later than `after_seq` only.

        `ids` None is everything, the daemon's own lines included.
        """
        only = "" if ids is None else "AND id IN (SELECT value FROM json_each(?))"
        chosen = () if ids is None else (json.dumps(list(ids)),)
        with self._guard() as connection:
            rows = connection.execute(
                f"{_EVENTS} {only} ORDER BY seq DESC LIMIT ?",
                (-1 if after_seq is None else after_seq, *chosen, limit),
            ).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def find_request(self, key: str, not_before_wall: float) -> StoredRequest | None:
        """A call of this key that began at `not_before_wall` or later, or None."""
        with self._guard() as connection:
            row = connection.execute(
                "SELECT at, answer FROM requests WHERE key = ? AND at >= ?", (key, not_before_wall)
            ).fetchone()
        return None if row is None else StoredRequest(*row)

    def meta(self, key: str) -> str | None:
        """What `Batch.set_meta` noted, or None."""
        with self._guard() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    # --- upkeep -----------------------------------------------------------------------------------

    def sizes(self) -> Sizes:
        """Bytes on disk now."""
        return Sizes(_size(self.path), _size(f"{self.path}-wal"))

    def prune(self, *, requests_before_wall: float, events_per_bot: int = 200, events_in_all: int = 100_000) -> Pruned:
        """Forget the oldest history beyond these numbers and the requests that began before a time.

        The daemon's own lines count as one bot's. The newest line of all always stays.
        """
        events = 0
        with self.batch(), self._guard() as connection:
            crowded = connection.execute(
                "SELECT id FROM events GROUP BY id HAVING count(*) > ?", (events_per_bot,)
            ).fetchall()
            for (bot_id,) in crowded:
                events += connection.execute(_PRUNE_ONE, (bot_id, bot_id, events_per_bot)).rowcount
            events += connection.execute(_PRUNE_ALL, (max(events_in_all, 1),)).rowcount
            requests = connection.execute("DELETE FROM requests WHERE at < ?", (requests_before_wall,)).rowcount
        return Pruned(events, requests)

    def checkpoint(self) -> None:
        """Fold the log into the database. It waits for the disk: call it when there is nothing else to do."""
        with self._guard() as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        crash_point("botd-checkpoint-done")

    def snapshot(self, path: str | None = None) -> str:
        """Copy the database to `path` (default `snapshot_path`), mode 0600; returns where it is.

        The copy replaces an earlier one only when it is complete, sound and on the disk. It is one file
        without a log. Not inside of a batch.
        """
        if self._connection.in_transaction:
            raise RuntimeError("a batch is open: a snapshot is taken between batches")
        if (trouble := self.trouble) is not None:
            raise trouble.with_traceback(None)
        goal = snapshot_path(self.path) if path is None else path
        new = f"{goal}.new"
        try:
            create_private(new)
            try:
                _copy(self._connection, new)
                crash_point("botd-snapshot-copied")
                publish(new, goal)
                crash_point("botd-snapshot-published")
                self._memory.fleet_changed = False
            except BaseException:
                remove(new, f"{new}-journal", f"{new}-wal")
                raise
        except Damaged as error:
            # It is the copy that was looked at, but the original that is meant.
            self.condemn(error.detail)
            raise Damaged(self.path, error.detail) from error
        except SQLITE_ERRORS as error:
            raise explain(goal, error) from error
        except OSError as error:
            raise explain_os(goal, error) from error
        return goal


def _in_memory(path: str, saved: Salvage) -> Connection:
    connection: Connection = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
    connection.path = path
    migrate(connection, path)
    fill(connection, saved)
    return connection


def _copy(source: Connection, path: str) -> None:
    target = connect(path)
    try:
        target.execute("PRAGMA locking_mode = EXCLUSIVE")
        target.execute("PRAGMA synchronous = FULL")
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
        check(target)
    finally:
        target.close()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
