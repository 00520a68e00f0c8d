"""The fleet on disk: one SQLite file, one connection, used from the thread that opened it.

Writing happens in a `Batch` (`with store.batch() as batch:`), everything else is here. What was committed
survives kill -9 of botd; what was committed `durable` survives a power cut as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from botd.state.batch import Batch
from botd.state.codec import decode_spec, decode_state
from botd.state.connection import Connection, check, connect, create_private, open_database, publish, remove
from botd.state.errors import SQLITE_ERRORS, Damaged, StoreError, explain, explain_os, snapshot_path
from botd.state.records import NewEvent, Pruned, Sizes, StoredBot, StoredEvent, StoredRequest

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

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.path = connection.path

    @classmethod
    def open(cls, path: str) -> Self:
        """The database at `path`, created (mode 0600) or migrated where needed. Its folder must exist.

        Raises Damaged when it cannot be trusted (not a database, cut off, malformed), with the way back
        in its hint; StoreError when it is of a newer botd or another program, in use, or out of reach.
        """
        return cls(open_database(path))

    def close(self) -> None:
        """Fold the log into the database and let go of it. May be called twice."""
        self._connection.close()

    @contextmanager
    def _guard(self) -> Iterator[Connection]:
        try:
            yield self._connection
        except SQLITE_ERRORS as error:
            raise explain(self.path, error) from error

    # --- bots -------------------------------------------------------------------------------------

    def batch(self, *, durable: bool = False) -> Batch:
        """One transaction. `durable` waits for the disk: for what a user is told is done."""
        return Batch(self._connection, durable=durable)

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
        with self._guard() as connection:
            rows = connection.execute("SELECT name, value FROM secrets WHERE id = ? ORDER BY name", (bot_id,))
            return {name: value.decode("utf-8", "surrogatepass") for name, value in rows}

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

    def snapshot(self, path: str | None = None) -> str:
        """Copy the database to `path` (default `snapshot_path`), mode 0600; returns where it is.

        The copy replaces an earlier one only when it is complete, sound and on the disk. It is one file
        without a log. Not inside of a batch.
        """
        if self._connection.in_transaction:
            raise RuntimeError("a batch is open: a snapshot is taken between batches")
        goal = snapshot_path(self.path) if path is None else path
        new = f"{goal}.new"
        try:
            create_private(new)
            try:
                _copy(self._connection, new)
                publish(new, goal)
            except BaseException:
                remove(new, f"{new}-journal", f"{new}-wal")
                raise
        except Damaged as error:
            # It is the copy that was looked at, but the original that is meant.
            raise Damaged(self.path, error.detail) from error
        except SQLITE_ERRORS as error:
            raise explain(goal, error) from error
        except OSError as error:
            raise explain_os(goal, error) from error
        return goal


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
