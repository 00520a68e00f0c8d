"""From a path to a checked SQLite connection: file mode, pragmas, schema, a look for damage."""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote

from botd.state.errors import Damaged, explain, explain_os
from botd.state.schema import migrate

BUSY_TIMEOUT_S = 1.0
"""How long to wait for a lock while opening: an old botd may still be closing."""

CHECKPOINT_PAGES = 4000
"""The write-ahead log is folded into the database at 16 MB at the latest; `Store.checkpoint` does it at leisure."""


class Connection(sqlite3.Connection):
    """The one connection of a store. Knows its path and how durable the next commit is."""

    path: str = ""
    full: bool = False

    def set_durable(self, durable: bool) -> None:
        """Whether the commits to come wait for the disk. Not inside of a transaction: SQLite would ignore it."""
        if durable != self.full:
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.full = durable


def connect(path: str) -> Connection:
    """An existing database file, as it is. Raises sqlite3.Error; never creates one."""
    connection: Connection = sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        factory=Connection,
    )
    connection.path = path
    return connection


def open_database(path: str) -> Connection:
    """The database at `path`, created if there is none, migrated, and looked over for damage.

    Raises Damaged, or StoreError for everything else that stands in the way.
    """
    try:
        _prepare_files(path)
        connection = connect(path)
    except OSError as error:
        raise explain_os(path, error) from error
    except sqlite3.Error as error:
        raise explain(path, error) from error
    try:
        _settle(connection)
    except sqlite3.Error as error:
        connection.close()
        raise explain(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _settle(connection: Connection) -> None:
    # One owner for as long as it is open: a second botd cannot write, a forgotten `sqlite3` shell cannot hold
    # up the event loop, and the index of the log is in our memory instead of a shared file.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.full = True
    check(connection)
    migrate(connection, connection.path)
    connection.execute("PRAGMA journal_mode = WAL")
    # Take the lock now, and learn now whether SQLite had to open the file read-only.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")


def check(connection: Connection) -> None:
    """Raises Damaged with SQLite's first finding, or sqlite3.Error where it cannot even look."""
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise Damaged(connection.path, str(finding))


def _prepare_files(path: str) -> None:
    """Make sure that a file is there which is ours alone, or raise OSError, sqlite3.Error or Damaged.

    A new database is built under another name and renamed when it is complete. So an empty file is never
    one that was just begun: it is one that has lost everything, and must not pass for a new fleet.
    """
    if not os.path.lexists(path):
        _create(path)
    elif os.stat(path).st_size == 0:
        raise Damaged(path, "the file is empty")
    # SQLite gives the log the mode of the database; a file that was copied here may have any.
    for file in (path, f"{path}-wal"):
        if os.path.exists(file) and os.stat(file).st_mode & 0o077:
            os.chmod(file, 0o600)


def _create(path: str) -> None:
    new = f"{path}.new"
    create_private(new)
    connection = connect(new)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, path)
    except BaseException:
        connection.close()
        remove(new)
        raise
    connection.close()
    publish(new, path)


def create_private(path: str) -> None:
    """A new empty file that only its owner may read, from its first moment on. Replaces a leftover."""
    remove(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def remove(path: str) -> None:
    """Remove a database file that nobody uses, with its journal."""
    for file in (path, f"{path}-journal", f"{path}-wal"):
        if os.path.lexists(file):
            os.unlink(file)


def publish(new: str, path: str) -> None:
    """Rename a closed and complete file into place, so that it is there after a power cut as well."""
    os.rename(new, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
