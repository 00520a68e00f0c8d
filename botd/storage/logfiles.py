"""The files that the keeper writes for one bot, as a reader finds them, at any instant of a rotation.

    out.log.N ... out.log.1   rotated, the newest is .1         out.idx[.N]   their time index
    out.log                   the current one                   out.log.tail  a copy that nobody needs to read
    out.log.cut-OFFSET        a rotation under way: out.log ends at OFFSET, and this goes on from there

An index is a row of 16-byte records "<dQ": the wall time of a move and the offset at which the bytes moved then
begin. There is at most one record for each 100 ms. It is an aid: without one, the file's own time has to do.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Literal

Stream = Literal["stdout", "stderr"]
BASES: dict[Stream, str] = {"stdout": "out", "stderr": "err"}

_RECORD = Struct("<dQ")
_RECORDS_AT_ONCE = 4096
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LAST_TIME = 253402300800.0  # the year 10000: nothing can write such a time
_ATTEMPTS = 5


class Index:
    """The time index of one file; with `fd` -1 an empty one. Closed by its owner."""

    __slots__ = ("count", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.count = os.fstat(fd).st_size // _RECORD.size if fd >= 0 else 0

    def record(self, number: int) -> tuple[float, int]:
        """Time and offset of one record. A damaged one has the time nan."""
        raw = os.pread(self.fd, _RECORD.size, number * _RECORD.size)
        if len(raw) < _RECORD.size:
            return math.nan, 0
        at, offset = _RECORD.unpack(raw)
        return (at if 0 <= at < _LAST_TIME else math.nan), offset

    def first_at_or_after(self, at: float) -> int:
        """The number of the first record that is not before `at`; `count` when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.record(middle)[0] < at:
                low = middle + 1
            else:
                high = middle
        return low

    def last_covering(self, offset: int) -> int:
        """The number of the last record that begins at or before `offset`; -1 when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.record(middle)[1] <= offset:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def times(self, offsets: Sequence[int], before: float) -> Iterator[float]:
        """The time of each of these ascending offsets; `before` for those that the first record does not reach."""
        if not offsets:
            return
        number = self.last_covering(offsets[0])
        at = before if number < 0 else _or(self.record(number)[0], before)
        coming = self._from(number + 1)
        pending = next(coming, None)
        for offset in offsets:
            while pending is not None and pending[1] <= offset:
                at = _or(pending[0], at)
                pending = next(coming, None)
            yield at

    def _from(self, number: int) -> Iterator[tuple[float, int]]:
        while number < self.count:
            raw = os.pread(self.fd, _RECORDS_AT_ONCE * _RECORD.size, number * _RECORD.size)
            raw = raw[: len(raw) // _RECORD.size * _RECORD.size]
            if not raw:
                return
            for at, offset in _RECORD.iter_unpack(raw):
                yield (at if 0 <= at < _LAST_TIME else math.nan), offset
            number += len(raw) // _RECORD.size


class LogFile:
    """One open file of a stream. `size`: where it ends (bytes); `before`: the time of what its index does not reach."""

    __slots__ = ("before", "fd", "index", "inode", "limited", "mtime", "size")

    def __init__(self, fd: int, index: Index, size: int | None = None) -> None:
        st = os.fstat(fd)
        self.fd = fd
        self.index = index
        self.inode = st.st_ino
        self.mtime = st.st_mtime if 0 <= st.st_mtime < _LAST_TIME else 0.0
        self.limited = size is not None
        self.size = st.st_size if size is None else min(size, st.st_size)
        self.before = self.mtime

    def shrunk(self) -> bool:
        """A rotation has moved the end of this file into the next one since it was opened."""
        return os.fstat(self.fd).st_size < self.size

    def close(self) -> None:
        os.close(self.fd)
        if self.index.fd >= 0:
            os.close(self.index.fd)


def open_stream(folder: int, base: str) -> list[LogFile]:
    """The files of a stream ("out" or "err") in a folder's descriptor, the oldest first. The caller closes them."""
    for _ in range(_ATTEMPTS):
        files = _open_all(folder, base)
        # A rotation always gives the current file another inode.
        if not files or files[-1].limited or files[-1].inode == inode_of(folder, f"{base}.log"):
            break
        close_all(files)
    else:
        files = _open_all(folder, base)
    _inherit(files)
    return files


def close_all(files: list[LogFile]) -> None:
    for file in files:
        file.close()


def inode_of(folder: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except OSError:
        return None


def rotated(names: Sequence[str], name: str) -> list[int]:
    """The numbers of the rotated files of `name` ("out.log") among these names, the oldest (largest) first."""
    start = len(name) + 1
    numbers = [n[start:] for n in names if n.startswith(name + ".")]
    return sorted((int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 7), reverse=True)


def cut_mark(names: Sequence[str], name: str) -> tuple[str, int] | None:
    """The file of a rotation under way and the offset at which the current one ends."""
    prefix = f"{name}.cut-"
    for mark in names:
        digits = mark[len(prefix) :] if mark.startswith(prefix) else ""
        if digits.isascii() and digits.isdigit() and len(digits) < 16:
            return mark, int(digits)
    return None


def _open_all(folder: int, base: str) -> list[LogFile]:
    names = os.listdir(folder)
    log, idx = f"{base}.log", f"{base}.idx"
    mark = cut_mark(names, log)
    # A rotation shifts the indexes before the files.
    ahead = 1 if mark is not None and log in names and idx not in names else 0
    plan: list[tuple[str, str, int | None]] = [(f"{log}.{n}", f"{idx}.{n + ahead}", None) for n in rotated(names, log)]
    plan.append((log, f"{idx}.1" if ahead else idx, None if mark is None else mark[1]))
    if mark is not None:
        plan.append((mark[0], "", None))
    files: list[LogFile] = []
    for name, index, size in plan:
        fd = _open_file(folder, name)
        if fd >= 0:
            files.append(LogFile(fd, Index(_open_file(folder, index) if index else -1), size))
    return files


def _open_file(folder: int, name: str) -> int:
    """A descriptor of a regular file; -1 when there is none (links, pipes and devices are none)."""
    try:
        fd = os.open(name, _OPEN, dir_fd=folder)
    except OSError:
        return -1
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return -1
    return fd


def _inherit(files: list[LogFile]) -> None:
    """What a rotation carried over into a file stands before its first record and has the time of the file before."""
    last = math.nan
    for file in files:
        first = file.index.record(0)[0] if file.index.count else math.nan
        file.before = _or(last, _or(first, file.mtime))
        if file.index.count:
            last = _or(file.index.record(file.index.count - 1)[0], last)


def _or(at: float, otherwise: float) -> float:
    return otherwise if math.isnan(at) else at
