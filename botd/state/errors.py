"""What can go wrong with the database, in words that its operator can act on.

An environment that fails (disk, permissions, damage) is `unavailable`; a statement that should never
have been asked for is `internal`. Neither ever carries a stored value: SQLite's messages name columns only.
"""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit, Kind


class StoreError(BotdError):
    """The database could not do what was asked of it; the batch was rolled back, nothing was changed.

    `passes`: the cause is outside of the file (space, permissions, a lock), and goes when somebody sees to it.
    """

    def __init__(self, path: str, cause: str, hint: str, *, kind: Kind = "unavailable", passes: bool = False) -> None:
        # The daemon was reached: its `unavailable` is no exit 7.
        super().__init__(kind, f"the database {path}: {cause}", hint=hint, exit=Exit.FAILED)
        self.path = path
        self.passes = passes


class Damaged(StoreError):
    """The database cannot be trusted. Nothing was written to it; the bots run on. `detail` is what was found."""

    def __init__(self, path: str, detail: str) -> None:
        # SQLite's findings come in several lines; an error is one.
        super().__init__(path, f"is damaged: {' '.join(detail.split())}", "botctl daemon repair")
        self.detail = detail


class NewerSchema(StoreError):
    """The database was migrated by a newer botd. `version` is its schema, `known` the newest of this one."""

    def __init__(self, path: str, version: int, known: int) -> None:
        copy = former_path(path, known)
        hint = "upgrade botd, or restore a copy from before the upgrade"
        if os.path.exists(copy):
            hint = f"upgrade botd, or give up what was recorded since and restore {copy} (docs/operations.md)"
        super().__init__(path, f"was written by a newer botd (schema {version}, this one knows {known})", hint)
        self.version, self.known = version, known


def former_path(path: str, version: int) -> str:
    """Where the database at `path` is kept as it was in that schema, before it was migrated."""
    return f"{path}.v{version}"


def snapshot_path(path: str) -> str:
    """Where the last good copy of the database at `path` is kept."""
    return f"{path}.snapshot"


_DISK_FULL = ("the disk is full", "free some space (botctl cleanup, df -h), then try again")
_DENIED = (
    "cannot be written",
    "check the owner and mode of the file and of its folder, and whether the disk is read-only",
)
_CAUSES = {
    sqlite3.SQLITE_FULL: _DISK_FULL,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", _DENIED[1]),
    sqlite3.SQLITE_BUSY: ("is locked by another process", "only one botd may use it: botctl daemon status"),
    sqlite3.SQLITE_LOCKED: ("is locked by another process", "only one botd may use it: botctl daemon status"),
    sqlite3.SQLITE_IOERR: (
        "the disk refuses to read or write it",
        "look for a full disk, a quota, a file size limit (ulimit -f) or a failing disk (dmesg)",
    ),
    sqlite3.SQLITE_NOMEM: ("not enough memory", "free some memory, then try again"),
}


SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises; the second for a text (also that of an error) that is not UTF-8 any more."""


def explain(path: str, error: sqlite3.Error | UnicodeDecodeError) -> StoreError:
    """The StoreError that says what `error` means for the database at `path`."""
    if isinstance(error, UnicodeDecodeError):
        return Damaged(path, "a text in it is not UTF-8")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Damaged(path, str(error))
    if code in _CAUSES:
        cause, hint = _CAUSES[code]
        return StoreError(path, f"{cause} ({error})", hint, passes=True)
    return StoreError(path, str(error), "this is a fault of botd: please report it", kind="internal")


def explain_os(path: str, error: OSError) -> StoreError:
    """The same for a system call on the file itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        cause, hint = _DISK_FULL
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cause, hint = _DENIED
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        cause, hint = "its folder does not exist", f"create it: mkdir -p {shlex.quote(os.path.dirname(path))}"
    else:
        cause, hint = "cannot be used", "check the path, the disk and the limits of the process"
    return StoreError(path, f"{cause} ({os.strerror(error.errno or 0)})", hint, passes=True)
