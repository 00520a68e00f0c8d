"""From a path to a checked SQLite connection: file mode, pragmas, schema, a look for damage."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from typing import Literal
from urllib.parse import quote

from botd.crash import crash_point
from botd.state.errors import SQLITE_ERRORS, Damaged, StoreError, explain, explain_os, former_path, snapshot_path
from botd.state.pages import Log
from botd.state.schema import MIGRATIONS, check_owner, migrate

SMALLEST = 512
"""Bytes: no SQLite database has less. It takes a shorter file for one that is still to be filled."""

BUSY_TIMEOUT_S = 1.0
"""How long to wait for a lock while opening: an old botd may still be closing."""

CHECKPOINT_PAGES = 4000
"""The write-ahead log is folded into the database at 16 MB at the latest; `Store.checkpoint` does it at leisure."""


class Connection(sqlite3.Connection):
    """The one connection of a store. Knows its path, how durable the next commit is, and damage that was met."""

    path: str = ""
    full: bool = False
    damage: Damaged | None = None

    def explain(self, error: sqlite3.Error | UnicodeDecodeError) -> StoreError:
        """`errors.explain`; damage is remembered."""
        told = explain(self.path, error)
        if isinstance(told, Damaged):
            self.damage = told
        return told

    def set_durable(self, durable: bool) -> None:
        """Whether the commits to come wait for the disk. Not inside of a transaction: SQLite would ignore it."""
        if durable != self.full:
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.full = durable


def connect(path: str, mode: Literal["rw", "ro"] = "rw") -> Connection:
    """An existing database file, as it is. Raises sqlite3.Error; never creates one."""
    connection: Connection = sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        factory=Connection,
    )
    connection.path = path
    # Strict, and without SQLite's habit to quote in its error what could not be decoded.
    connection.text_factory = bytes.decode
    return connection


def open_database(path: str, boot_id: str = "") -> Connection:
    """The database at `path`, created if there is none, migrated, and looked over for damage.

    `boot_id`: of the machine's present boot. A log that was written in it was cut short by no power cut.
    Raises Damaged, or StoreError for everything else that stands in the way.
    """
    try:
        looked = False
        if os.path.lexists(path):
            looked = _look_over(path, boot_id)
        elif os.path.lexists(snapshot_path(path)):
            # A fleet that begins has no snapshot: to begin another one in its place would be to lose it.
            raise Damaged(path, "it is gone")
        else:
            _create(path)
        return _settle(path, looked=looked)
    except OSError as error:
        raise explain_os(path, error) from error
    except SQLITE_ERRORS as error:
        raise explain(path, error) from error


def _look_over(path: str, boot_id: str) -> bool:
    """Raises unless the file is sound and ours; changes nothing but its mode. False: it could not be looked at.

    Read-only, because a connection that may write folds the log into the file when it is closed, and throws
    it away where it cannot: what was damaged would be lost. Such a look needs 32 KiB on the disk, though,
    and a fleet must open on a full one.
    """
    if not os.path.isfile(path):
        raise Damaged(path, "in its place is no regular file")
    if (left := os.stat(path).st_size) < SMALLEST:
        # `_create` renames complete files only: this is no fleet that was just begun, but one that is lost.
        raise Damaged(path, f"{left} bytes are left of it")
    for file in (path, f"{path}-wal"):
        if os.path.isfile(file) and os.stat(file).st_mode & 0o077:
            os.chmod(file, 0o600)
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise OSError(errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES, path)
    connection = connect(path, "ro")
    try:
        check_owner(connection, path)
        check(connection)
        _check_log(connection, boot_id)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN):
            return False
        raise
    finally:
        connection.close()
    return True


def _settle(path: str, *, looked: bool) -> Connection:
    connection = connect(path)
    try:
        # One owner for as long as it is open: a second botd cannot write, a forgotten `sqlite3` shell cannot
        # hold up the event loop, and the index of the log is in our memory instead of a shared file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not looked:
            check_owner(connection, path)
            check(connection)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        # KiB. The whole fleet is in memory already: what is read from the file is read once.
        connection.execute("PRAGMA cache_size = -512")
        connection.set_durable(True)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
        _keep_former(connection)
        migrate(connection, path)
        # Take the lock now and not with the first batch. Nobody else has the file open then, so the index that
        # the look before (or an older shell) has left is nobody's.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        remove(f"{path}-shm")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_former(connection: Connection) -> None:
    """Before a migration: a copy of the database as it is, which an upgrade that fails goes back to."""
    version = check_owner(connection, connection.path)
    if not 0 < version < len(MIGRATIONS):
        return
    goal = former_path(connection.path, version)
    create_private(f"{goal}.new")
    copy = connect(f"{goal}.new")
    try:
        copy.execute("PRAGMA synchronous = FULL")
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    except BaseException:
        copy.close()
        remove(f"{goal}.new", f"{goal}.new-journal", f"{goal}.new-wal")
        raise
    copy.close()
    publish(f"{goal}.new", goal)


def schema_of(path: str) -> int:
    """The schema of the database at `path`, whoever wrote it. StoreError where it cannot be told."""
    try:
        connection = connect(path, "ro")
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except SQLITE_ERRORS as error:
        raise explain(path, error) from error


def restore_former(path: str, version: int) -> None:
    """Put the copy from before the migration that schema `version` went through back in place of the database.

    The migrated one goes aside (`path`.newer). Nobody may have it open. StoreError, and then nothing has changed.
    """
    copy = former_path(path, version)
    try:
        connection = connect(copy, "ro")
        try:
            check(connection)
        finally:
            connection.close()
        # Its log leaves first: SQLite would replay it onto the copy.
        newer = connect(path)
        try:
            newer.execute("PRAGMA journal_mode = DELETE")
        finally:
            newer.close()
        remove(f"{path}-wal", f"{path}-shm", f"{path}.newer")
        # A link: at no instant is there no database, which would be taken for a new fleet.
        os.link(path, f"{path}.newer")
        publish(copy, path)
    except OSError as error:
        raise explain_os(copy, error) from error
    except SQLITE_ERRORS as error:
        raise explain(copy, error) from error


def check(connection: Connection) -> None:
    """Raises Damaged with SQLite's first finding, or sqlite3.Error where it cannot even look."""
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise Damaged(connection.path, str(finding))


def _check_log(connection: Connection, boot_id: str) -> None:
    """Raises Damaged when changes that were committed lie beyond a broken place in the log.

    SQLite takes everything from there on for what a crash has cut off, and forgets it without a word. A crash of a
    program cannot do that, because the system has all that it wrote; a power cut can, and then nobody was promised
    anything: so only a log of the present boot is told on.
    """
    row = None
    try:
        with open(f"{connection.path}-wal", "rb") as file:
            data = file.read()
        # "the mxFrame field": https://www.sqlite.org/walformat.html
        with open(f"{connection.path}-shm", "rb") as file:
            (reached,) = struct.unpack_from("=I", file.read(48), 16)
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            row = connection.execute("SELECT value FROM meta WHERE key = 'boot_id'").fetchone()
    except (FileNotFoundError, struct.error):
        return  # no log: nothing to lose
    if not boot_id or row is None or row[0] != boot_id:
        return
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    log = Log(data, page_size)
    lost = log.ends() - reached
    if lost > 0:
        raise Damaged(connection.path, f"its log is broken after page {reached} of {reached + lost}")


def _create(path: str) -> None:
    """Build a new database under another name and rename it when it is complete."""
    new = f"{path}.new"
    create_private(new)
    connection = connect(new)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, path)
    except BaseException:
        connection.close()
        remove(new, f"{new}-journal")
        raise
    connection.close()
    crash_point("botd-database-built")
    publish(new, path)
    crash_point("botd-database-published")


def create_private(path: str) -> None:
    """A new empty file that only its owner may read, from its first moment on. Replaces a leftover."""
    remove(path, f"{path}-journal", f"{path}-wal")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def remove(*paths: str) -> None:
    """Remove those of the files that are there."""
    for path in paths:
        if os.path.lexists(path):
            os.unlink(path)


def publish(new: str, path: str) -> None:
    """Rename a closed and complete file into place, so that it is there after a power cut as well."""
    os.rename(new, path)
    sync_folder(path)


def sync_folder(path: str) -> None:
    """Make what became of the names beside `path` outlive a power cut."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
