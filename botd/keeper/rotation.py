"""The names of a log file and of those before it, and the steps by which they move on.

out.log is followed by out.log.1 (the newest) to out.log.KEEP. Any of them may be out.log.N.gz instead, which botd
writes under another name, so that it is complete once it has this one: where a crash left both, the .gz is the truth
and the other goes. Each has its time index under the same number (out.idx, out.idx.1, ...).

A rotation cuts at the end of a line. The file has then already taken some bytes beyond the cut, and they move in steps
that a kill between any two of them neither loses nor doubles:
    1  the bytes beyond the cut are written to out.log.tail           (left alone: thrown away, nothing had begun)
    2  out.log.tail is renamed to out.log.cut-OFFSET                  (from here on the rotation is always completed)
    3  out.log is cut at OFFSET, the oldest file goes where all numbers are taken, and each moves up by one
       (each step sees from the names whether it is due)
    4  out.log.cut-OFFSET becomes out.log
Whoever renames or removes a numbered file holds the lock of the folder meanwhile: `lock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from stat import S_ISREG

from botd.crash import crash_point

_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


def open_folder(path: str) -> int:
    """A descriptor of a log folder, made (0700) when it is missing; OSError when it is a link or no directory.

    Neither the folder of the bot nor the one of its user may be a link; what is above them is the administrator's.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    above, _, name = path.rpartition("/")
    try:
        user = os.open(above or "/", flags)
    except FileNotFoundError:
        os.makedirs(above, 0o700, exist_ok=True)
        user = os.open(above, flags)
    try:
        try:
            return os.open(name, flags, dir_fd=user)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=user)
            return os.open(name, flags, dir_fd=user)
    finally:
        os.close(user)


def open_file(folder: int, name: str, flags: int) -> tuple[int, bool]:
    """(descriptor, False) of a file that is nobody else's; made when it is missing.

    A link, a pipe, a directory, or a file that has a second name is set aside as NAME.strange: (descriptor, True).
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
    else:
        found = os.fstat(fd)
        if S_ISREG(found.st_mode) and found.st_nlink < 2:
            return fd, False
        os.close(fd)
    os.rename(name, f"{name}.strange", src_dir_fd=folder, dst_dir_fd=folder)
    return os.open(name, flags | os.O_EXCL, 0o600, dir_fd=folder), True


def lock(folder: int) -> bool:
    """Take the lock of a folder until its descriptor is closed; False when somebody else has it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        # A file system without locks: there nobody else can have it either.
    return True


def pending(folder: int, name: str) -> str | None:
    """The mark of a rotation of name.log that was committed and not finished."""
    prefix = f"{name}.log.cut-"
    with os.scandir(folder) as entries:
        for entry in entries:
            digits = entry.name[len(prefix) :]
            if entry.name.startswith(prefix) and digits.isascii() and digits.isdigit() and len(digits) < 16:
                return entry.name
    return None


def commit(folder: int, name: str, log: int, cut: int, size: int) -> str:
    """Steps 1 and 2: set aside what name.log (open as `log`) has beyond `cut`. The mark for `complete`."""
    tail, mark = f"{name}.log.tail", f"{name}.log.cut-{cut}"
    fd = os.open(tail, _WRITE | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
    try:
        crash_point("rotate-tail")
        at = cut
        while at < size:
            data = os.pread(log, size - at, at)
            if not data:
                break  # somebody truncated it just now
            at += os.write(fd, data)
    finally:
        os.close(fd)
    crash_point("rotate-copied")
    os.rename(tail, mark, src_dir_fd=folder, dst_dir_fd=folder)
    crash_point("rotate-committed")
    return mark


def complete(folder: int, base: str, mark: str, keep: int) -> int:
    """Steps 3 and 4, from wherever they were left; how many bytes were rotated away. The caller holds the lock."""
    cut = int(mark.rpartition("-")[2])
    log, index = f"{base}.log", f"{base}.idx"
    names = set(os.listdir(folder))
    if log in names:
        fd = os.open(log, _WRITE, dir_fd=folder)
        try:
            if os.fstat(fd).st_size > cut:
                os.ftruncate(fd, cut)
        finally:
            os.close(fd)
        crash_point("rotate-truncated")
    for name in (index, log):
        if name in names:
            _shift(folder, name, keep, names)
            crash_point(f"rotate-shifted-{name[-3:]}")
    os.rename(mark, log, src_dir_fd=folder, dst_dir_fd=folder)
    crash_point("rotate-renamed")
    return cut


def _shift(folder: int, name: str, keep: int, names: set[str]) -> None:
    """name.1 -> name.2 -> ... up to a free number (a shift that was cut short left one), then name -> name.1."""
    if keep < 1:
        os.unlink(name, dir_fd=folder)
        return
    rows = [name]
    while len(rows) <= keep and (found := _numbered(folder, name, len(rows), names)) is not None:
        rows.append(found)
    if len(rows) > keep:
        os.unlink(rows.pop(), dir_fd=folder)
        crash_point("rotate-oldest-gone")
    for number in range(len(rows), 0, -1):
        older = rows[number - 1]
        suffix = ".gz" if older.endswith(".gz") else ""
        os.rename(older, f"{name}.{number}{suffix}", src_dir_fd=folder, dst_dir_fd=folder)
        crash_point("rotate-step")


def _numbered(folder: int, name: str, number: int, names: set[str]) -> str | None:
    """The file of one number, plain or compressed."""
    plain = f"{name}.{number}"
    packed = f"{plain}.gz"
    if packed not in names:
        return plain if plain in names else None
    if plain in names:
        os.unlink(plain, dir_fd=folder)
        crash_point("rotate-packed")
    return packed
