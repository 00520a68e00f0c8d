"""What the logs of a bot take on disk, and removing rotated ones. Blocks: call it in a thread.

The keeper renames the files of a folder only while it holds a lock on it (flock on the folder itself). Whoever removes
or replaces one holds the same lock for that instant, and leaves a folder alone in which a rotation is under way.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from botd.contract.errors import BotdError
from botd.core.logbudget import File
from botd.storage import tree
from botd.storage.logfiles import BASES, cut_mark
from botd.storage.packed import SUFFIX

_split = re.compile(r"\A(out|err)\.(log|idx)\.([1-9][0-9]{0,5})(\.gz)?\Z").match
WAIT_S = 5.0


class Busy(Exception):
    """A rotation is under way in this folder; later it is not."""


def parts(id: str) -> tuple[str, ...]:
    """The names from the home down to the log folder of a bot."""
    return ("logs", *id.split("/"))


def look(home: int, id: str) -> list[File]:
    """The log files of a bot; none when there is no folder. What is no rotated file counts as the current one."""
    try:
        folder = tree.descend(home, parts(id))
    except (OSError, BotdError):
        return []
    try:
        return _look(folder, id)
    finally:
        os.close(folder)


def _look(folder: int, id: str) -> list[File]:
    files: dict[tuple[str, int], File] = {}
    indexes: dict[tuple[str, int], int] = {}
    packed: set[tuple[str, int]] = set()
    other = 0
    for name in os.listdir(folder):
        try:
            st = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue  # renamed or removed in this moment
        size = st.st_blocks * tree.BLOCK
        match = _split(name)
        if match is None or not stat.S_ISREG(st.st_mode):
            other += size
            continue
        key = (match[1], int(match[3]))
        if match[2] == "idx" or (key in packed and not match[4]):
            # A plain file beside its packed one is about to go, like an index, with it.
            indexes[key] = indexes.get(key, 0) + size
            continue
        if match[4]:
            packed.add(key)
            if key in files:
                indexes[key] = indexes.get(key, 0) + files[key].bytes
        files[key] = File(id, *key, size, st.st_mtime, st.st_ino, bool(match[4]))
    for key, size in indexes.items():
        if key in files:
            files[key] = files[key]._replace(bytes=files[key].bytes + size)
        else:
            other += size
    return [File(id, "", 0, other, 0.0), *files.values()]


def remove(home: int, id: str, files: Iterable[File]) -> list[File]:
    """Remove these rotated files of a bot with their indexes; those that were still what they were. Raises Busy."""
    try:
        folder = tree.descend(home, parts(id))
    except (OSError, BotdError):
        return []
    try:
        with locked(folder):
            return [file for file in files if _remove(folder, file)]
    finally:
        os.close(folder)


def _remove(folder: int, file: File) -> bool:
    log = f"{file.stream}.log.{file.number}"
    names = [name for name in (log + SUFFIX, log) if _inode(folder, name) is not None]
    if file.number < 1 or not any(_inode(folder, name) == file.inode for name in names):
        return False
    # The index last: a log without one is read, an index without a log is only rubbish.
    for name in (*names, f"{file.stream}.idx.{file.number}"):
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass  # it never had an index
    return True


def _inode(folder: int, name: str) -> int | None:
    try:
        st = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return st.st_ino if stat.S_ISREG(st.st_mode) else None


@contextmanager
def locked(folder: int, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a log folder, which is an open descriptor of its own. Raises Busy, also in mid-rotation.

    `wait`: for up to WAIT_S; only for a main thread that uses no other timer.
    """
    try:
        if wait:
            _wait_for(folder)
        else:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Busy from None
    try:
        names = os.listdir(folder)
        if any(cut_mark(names, f"{base}.log") is not None for base in BASES.values()):
            raise Busy
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _wait_for(folder: int) -> None:
    """OSError when the time is over: a stopped keeper may hold the lock for ever."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
