"""One file copied into a bot's folder, compared with another, or found to have lost its content in a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_HERE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.EIO)
PRIVATE_FILE = 0o600
PRIVATE_PROGRAM = 0o700

_no_clones: set[int] = set()
"""File systems (st_dev) that said that they share no blocks, so that not every file asks again."""


def copy(source: str | int, parent: int, name: str, mode: int) -> None:
    """Make `name` in the directory `parent` with the content of `source` (a path, or a descriptor at its beginning).

    Blocks are shared where the file system can (FICLONE), copied inside the kernel where that can, else by hand.
    FileExistsError when something has the name; other OSErrors as they come, and then nothing is left behind.
    """
    reading = os.open(source, _READ) if isinstance(source, str) else os.dup(source)
    try:
        writing = os.open(name, _WRITE, mode, dir_fd=parent)
        try:
            _fill(reading, writing)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _fill(reading: int, writing: int) -> None:
    device = os.fstat(writing).st_dev
    if device not in _no_clones:
        try:
            fcntl.ioctl(writing, _FICLONE, reading)
            return
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            if error.errno != errno.EXDEV:
                _no_clones.add(device)
    try:
        while os.copy_file_range(reading, writing, _CHUNK << 8):
            pass
        return
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    # What was copied before has moved both positions.
    while block := os.read(reading, _CHUNK):
        while block:
            block = block[os.write(writing, block) :]


def open_file(name: str, parent: int | None = None) -> int | None:
    """A descriptor of a regular file for reading; None when it is none (as a link) or not ours to read."""
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except (FileNotFoundError, PermissionError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            return None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def is_same(name: str, parent: int | None, source: str) -> bool:
    """Whether two regular files have the same content; False when one of them is none. OSError."""
    return _compare(name, parent, source, same)


def is_torn(name: str, parent: int | None, source: str) -> bool:
    """`torn`, by names; False when one of them is no regular file. OSError."""
    return _compare(name, parent, source, torn)


def _compare(name: str, parent: int | None, source: str, test: Callable[[int, int], bool]) -> bool:
    first = open_file(name, parent)
    if first is None:
        return False
    try:
        second = open_file(source)
        if second is None:
            return False
        try:
            return test(first, second)
        finally:
            os.close(second)
    finally:
        os.close(first)


def same(one: int, other: int) -> bool:
    """Whether two open files have the same content; their positions do not matter and stay."""
    a, b = os.fstat(one), os.fstat(other)
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino):
        return True
    if a.st_size != b.st_size:
        return False
    at = 0
    while at < a.st_size:
        block = os.pread(one, _CHUNK, at)
        if not block or block != os.pread(other, _CHUNK, at):
            return False
        at += len(block)
    return True


def torn(copied: int, source: int) -> bool:
    """Whether `copied` is what a power cut leaves of a copy of `source`: the beginning of it, then zeros or nothing.

    The name of a new file reaches the disk before its content does, so it may come back short, empty or full of zeros.
    """
    a, b = os.fstat(copied), os.fstat(source)
    if a.st_size > b.st_size:
        return False
    at = 0
    while at < a.st_size:
        block = os.pread(copied, _CHUNK, at)
        whole = os.pread(source, len(block), at)
        if not block:
            return False
        if block != whole:
            kept = block.rstrip(b"\0")
            # From here on there may be only zeros.
            return whole.startswith(kept) and _zeros(copied, at + len(block), a.st_size)
        at += len(block)
    return a.st_size < b.st_size


def _zeros(fd: int, at: int, end: int) -> bool:
    while at < end:
        block = os.pread(fd, _CHUNK, at)
        if not block or block.strip(b"\0"):
            return False
        at += len(block)
    return True
