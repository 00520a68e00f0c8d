"""The files that the keeper writes for one bot, as a reader finds them, at any instant of a rotation.

    out.log.N ... out.log.1   rotated, the newest is .1         out.idx[.N]   their time index
    out.log.N.gz              the same, compressed (`packed`): the truth where both stand, for it gets its name complete
    out.log                   the current one                   out.log.tail  a copy that nobody needs to read
    out.log.cut-OFFSET        a rotation under way: out.log ends at OFFSET, and this goes on from there

An index (`logindex`) is an aid: without one, the file's own time has to do.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from typing import Literal, NamedTuple

from botd.storage.logindex import LAST_TIME, Index, known
from botd.storage.packed import SUFFIX, Packed, inode_of_plain

Stream = Literal["stdout", "stderr"]
BASES: dict[Stream, str] = {"stdout": "out", "stderr": "err"}

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ATTEMPTS = 5


class LogFile:
    """One open file of a stream. `before`: the time of what its index does not reach; `limit`: where it ends although
    there is more (bytes); `inode`: the one that it had when it was plain.
    """

    __slots__ = ("_packed", "_size", "before", "fd", "index", "inode", "limited", "mtime", "name")

    def __init__(self, fd: int, name: str, index: Index, limit: int | None = None) -> None:
        st = os.fstat(fd)
        self.fd = fd
        self.name = name
        self.index = index
        self.mtime = st.st_mtime if 0 <= st.st_mtime < LAST_TIME else 0.0
        self.limited = limit is not None
        self._packed = Packed(fd) if name.endswith(SUFFIX) else None
        self._size = st.st_size if limit is None else min(limit, st.st_size)
        self.inode = st.st_ino if self._packed is None else self._packed.inode
        self.before = self.mtime

    @property
    def size(self) -> int:
        """Plain bytes in it when it was opened. `Unreadable` for a damaged packed file."""
        return self._size if self._packed is None else self._packed.size

    @property
    def began(self) -> float:
        """The time of its first record, 0 without one: with the inode it tells two files apart."""
        return known(self.index.record(0)[0], 0.0) if self.index.count else 0.0

    def read(self, length: int, offset: int) -> bytes:
        """As os.pread. `Unreadable` where a packed file is damaged."""
        return os.pread(self.fd, length, offset) if self._packed is None else self._packed.read(length, offset)

    def now(self) -> int:
        """Plain bytes in it now: the current file grows."""
        return os.fstat(self.fd).st_size if self._packed is None else self._packed.size

    @property
    def packed(self) -> bool:
        """Whether it has to be unpacked on the way; such a file is never the current one."""
        return self._packed is not None

    def number_in(self, folder: int, log: str) -> int | None:
        """The number that this open file has now, also when it was packed meanwhile; None when it is gone."""
        if self._packed is None:
            found = find(folder, log, self.inode)
            return None if found is None else found.number
        # While it is open nothing else has its inode.
        own = os.fstat(self.fd).st_ino
        numbers = reversed(rotated(os.listdir(folder), log))
        return next((n for n in numbers if inode_of(folder, f"{log}.{n}{SUFFIX}") == own), None)

    def shrunk(self) -> bool:
        """A rotation has moved the end of this file into the next one since it was opened."""
        return self._packed is None and os.fstat(self.fd).st_size < self._size

    def release(self) -> None:
        """Give back what reading it has taken of memory."""
        if self._packed is not None:
            self._packed.release()

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
    numbers = {n[start:].removesuffix(SUFFIX) for n in names if n.startswith(name + ".")}
    return sorted((int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 7), reverse=True)


class Found(NamedTuple):
    """A file of a stream: its number (0: the current one) and its name."""

    number: int
    name: str


def find(folder: int, log: str, inode: int, began: float = 0.0) -> Found | None:
    """Where the file with this inode stands now, packed or plain; None when it is in none of the names.

    An inode is used again once its file is gone, so `began` decides where two claim the same.
    """
    names = os.listdir(folder)
    claims: list[Found] = []
    for number in (0, *reversed(rotated(names, log))):
        name = f"{log}.{number}" if number else log
        packed = name + SUFFIX
        if number and packed in names:
            if _packed_inode(folder, packed) == inode:
                claims.append(Found(number, packed))
        elif inode_of(folder, name) == inode:
            claims.append(Found(number, name))
    if began:
        times = {claim: _began(folder, log, claim.number) for claim in claims}
        claims = [claim for claim in claims if times[claim] == began] or [c for c in claims if not times[c]]
    return claims[0] if claims else None


def _began(folder: int, log: str, number: int) -> float:
    index = log.removesuffix("log") + "idx"
    fd = open_regular(folder, f"{index}.{number}" if number else index)
    if fd < 0:
        return 0.0
    try:
        return known(Index(fd).record(0)[0], 0.0)
    finally:
        os.close(fd)


def _packed_inode(folder: int, name: str) -> int | None:
    fd = open_regular(folder, name)
    if fd < 0:
        return None
    try:
        return inode_of_plain(fd)
    finally:
        os.close(fd)


def open_number(folder: int, log: str, number: int, *, limit: int | None = None, index: str = "") -> LogFile | None:
    """A file of a stream by its number (0: the current one), packed or plain; None when there is none.

    `index` is the name of its index, where that differs in a rotation under way.
    """
    name = f"{log}.{number}" if number else log
    index = index or _index_of(name)
    # It may be packed between the two looks; it is never unpacked again.
    for candidate in (name + SUFFIX, name, name + SUFFIX) if number else (name,):
        fd = open_regular(folder, candidate)
        if fd >= 0:
            try:
                return LogFile(fd, candidate, Index(open_regular(folder, index)), limit)
            except BaseException:
                os.close(fd)
                raise
    return None


def _index_of(name: str) -> str:
    base, _, rest = name.partition(".log")
    return f"{base}.idx{rest}"


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
    files = [open_number(folder, log, n, index=f"{idx}.{n + ahead}") for n in rotated(names, log)]
    limit = None if mark is None else mark[1]
    files.append(open_number(folder, log, 0, limit=limit, index=f"{idx}.1" if ahead else idx))
    if mark is not None:
        fd = open_regular(folder, mark[0])
        files.append(LogFile(fd, mark[0], Index(-1)) if fd >= 0 else None)
    return [file for file in files if file is not None]


def open_regular(folder: int, name: str) -> int:
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
        file.before = known(last, known(first, file.mtime))
        if file.index.count:
            last = known(file.index.record(file.index.count - 1)[0], last)
