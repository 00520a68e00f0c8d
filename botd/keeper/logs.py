"""A bot's output on its way from the pipe into files, by splice: the bytes never enter this process.

A `Sink` is one file (out.log or err.log of one bot) with its time index; a `Source` is one pipe that flows into it. The
file's size is the only record of how far it is written, so a killed keeper goes on where the last one stopped.

Index (out.idx, err.idx): 16-byte records "<dQ": wall time of a move, offset in the file at which that move began.

Rotation happens at a newline. The file has then already taken some bytes beyond the cut, and they move in steps that a
kill between any two of them neither loses nor doubles:
    1  the bytes beyond the cut are written to out.log.tail           (left alone: thrown away, nothing had begun)
    2  out.log.tail is renamed to out.log.cut-OFFSET                  (from here on the rotation is always completed)
    3  out.log is cut at OFFSET, and the numbered files shift up      (each step sees from the names whether it is due)
    4  out.log.cut-OFFSET becomes out.log
"""

from __future__ import annotations

import errno
import os
from struct import pack
from time import time

from botd.keeper.crash import crash_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.source import Source

INDEX_RECORD = 16
INDEX_EVERY_S = 0.1
LONGEST_LINE = 1024 * 1024
MOVE_LIMIT = 1024 * 1024
"""At most this much of one bot's output per turn, so that a flood starves nobody."""

_PAST_LEAST, _PAST_MOST = 4096, 65536
_MOVE, _NONBLOCK = 1, 2
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Full(Exception):
    """The file cannot take bytes now (disk full, quota, descriptors short); they stay in the pipe. args: the cause."""


class Sink:
    """One log file of one bot: `folder`/`name`.log (name is "out" or "err").

    `max_bytes` is the size after which it rotates at the next newline, `keep` how many rotated files stay.
    Sources flow into it one after another: those of a former life first.
    """

    __slots__ = ("_fd", "_index", "_indexed", "_offset", "_seek", "folder", "keep", "max_bytes", "name", "sources")

    def __init__(self, folder: str, name: str, max_bytes: int, keep: int) -> None:
        self.folder, self.name = folder, name
        self.max_bytes, self.keep = max_bytes, keep
        self.sources: list[Source] = []
        self._fd = self._index = -1
        self._offset = 0
        self._indexed = 0.0
        self._seek = -1

    @property
    def seeking(self) -> bool:
        """Whether the file is long enough and the end of its last line is looked for."""
        return self._seek >= 0

    def mend(self) -> None:
        """Finish a rotation that a killed keeper cut short; the bot may never write again. OSError: a broken file."""
        if self._fd >= 0:
            return
        folder = self._folder()
        try:
            self._complete(folder)
        except OSError as error:
            if error.errno not in _ROOM:
                raise
            # The next byte tries again, and readers know such files.
        finally:
            os.close(folder)

    def open(self) -> None:
        """Open the file (finishing a rotation that was cut short). `Full` when there is no room, OSError otherwise."""
        if self._fd >= 0:
            return
        try:
            self._open()
        except OSError as error:
            self.close()
            if error.errno in _ROOM:
                raise Full(error) from error
            raise

    def close(self) -> None:
        for fd in (self._fd, self._index):
            if fd >= 0:
                os.close(fd)
        self._fd = self._index = -1

    def move(self, source: Source) -> int:
        """Move what the pipe holds, up to MOVE_LIMIT; the number of bytes, 0 at its end.

        BlockingIOError when it is empty, `Full` when the file cannot take it, OSError for a broken file.
        """
        if self._fd < 0:
            # A bot that never printed leaves no files, and its end costs no opening of them.
            if not source.has_bytes():
                return 0
            self.open()
        try:
            if self._offset >= self.max_bytes:
                return self._move_past(source)
            self._seek = -1
            return self._splice(source, min(MOVE_LIMIT, self.max_bytes - self._offset))
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in _ROOM:
                raise Full(error) from error
            raise

    def _splice(self, source: Source, limit: int) -> int:
        moved = os.splice(source.fd, self._fd, limit, offset_dst=self._offset, flags=_MOVE | _NONBLOCK)
        if moved:
            crash_point("log-moved")
            began = self._offset
            self._offset += moved
            now = time()
            # A clock that was set back must not silence the index until it has caught up.
            if now - self._indexed >= INDEX_EVERY_S or now < self._indexed:
                self._indexed = now
                self._note(now, began)
        return moved

    def _move_past(self, source: Source) -> int:
        """The file is long enough: take a little more, and rotate at its first newline."""
        if self._seek < 0:
            self._seek = self._offset
            if self._offset and os.pread(self._fd, 1, self._offset - 1) == b"\n":
                self._rotate(self._offset)
                return self._splice(source, min(MOVE_LIMIT, max(1, self.max_bytes)))
        began = self._offset
        # Little enough that what is beyond the cut does not fill the next file at once.
        moved = self._splice(source, max(_PAST_LEAST, min(_PAST_MOST, self.max_bytes // 8)))
        if moved:
            newline = os.pread(self._fd, moved, began).find(b"\n")
            if newline >= 0:
                self._rotate(began + newline + 1)
            elif self._offset - self._seek >= LONGEST_LINE:
                self._rotate(self._offset)
        return moved

    def _rotate(self, cut: int) -> None:
        folder = self._folder()
        try:
            tail = f"{self.name}.log.tail"
            fd = os.open(
                tail, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
            try:
                crash_point("rotate-tail")
                at = cut
                while at < self._offset:
                    at += os.write(fd, os.pread(self._fd, self._offset - at, at))
            finally:
                os.close(fd)
            crash_point("rotate-copied")
            os.rename(tail, f"{self.name}.log.cut-{cut}", src_dir_fd=folder, dst_dir_fd=folder)
            crash_point("rotate-committed")
            self.close()
            self._complete(folder)
            self._open_in(folder)
        finally:
            os.close(folder)
        if self._offset:
            self._note(time(), 0)

    def _complete(self, folder: int) -> None:
        """Finish a rotation that was committed; nothing happens when there is none."""
        prefix = f"{self.name}.log.cut-"
        with os.scandir(folder) as entries:
            marks = [e.name for e in entries if e.name.startswith(prefix) and e.name[len(prefix) :].isdigit()]
        if not marks:
            return
        mark = marks[0]
        log, index = f"{self.name}.log", f"{self.name}.idx"
        names = set(os.listdir(folder))
        if log in names:
            fd = os.open(log, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.ftruncate(fd, int(mark[len(prefix) :]))
            os.close(fd)
            crash_point("rotate-truncated")
        for name in (index, log):
            if name in names:
                self._shift(folder, name)
                crash_point(f"rotate-shifted-{name[-3:]}")
        os.rename(mark, log, src_dir_fd=folder, dst_dir_fd=folder)
        crash_point("rotate-renamed")

    def _shift(self, folder: int, name: str) -> None:
        """name.1 -> name.2 -> ... up to the first gap (a shift that was cut short left one), then name -> name.1."""
        if self.keep < 1:
            os.unlink(name, dir_fd=folder)
            return
        names = set(os.listdir(folder))
        gap = next((n for n in range(1, self.keep) if f"{name}.{n}" not in names), self.keep)
        for n in range(gap, 0, -1):
            older = f"{name}.{n - 1}" if n > 1 else name
            os.rename(older, f"{name}.{n}", src_dir_fd=folder, dst_dir_fd=folder)
            crash_point("rotate-step")

    def _open(self) -> None:
        folder = self._folder()
        try:
            self._complete(folder)
            self._open_in(folder)
            # Left by a rotation that had not begun; the bytes are still in the file.
            try:
                os.unlink(f"{self.name}.log.tail", dir_fd=folder)
            except FileNotFoundError:
                pass  # the usual case
        finally:
            os.close(folder)

    def _open_in(self, folder: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        # The index first: a log file without one would rotate out of step with it.
        index = os.open(f"{self.name}.idx", flags | os.O_APPEND, 0o600, dir_fd=folder)
        try:
            torn = os.fstat(index).st_size % INDEX_RECORD
            if torn:
                os.ftruncate(index, os.fstat(index).st_size - torn)
        finally:
            os.close(index)
        self._fd = os.open(f"{self.name}.log", flags, 0o600, dir_fd=folder)
        self._offset = os.fstat(self._fd).st_size
        self._seek = -1
        self._indexed = 0.0

    def _note(self, now: float, offset: int) -> None:
        """Append to the index. It is an aid: when there is no room for it the output goes on without."""
        try:
            if self._index < 0:
                folder = self._folder()
                try:
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    self._index = os.open(f"{self.name}.idx", flags, 0o600, dir_fd=folder)
                finally:
                    os.close(folder)
            os.write(self._index, pack("<dQ", now, offset))
        except OSError as error:
            if error.errno not in _ROOM:
                raise

    def _folder(self) -> int:
        return open_folder(self.folder)


def open_folder(path: str) -> int:
    """A descriptor of a log directory, made (0700) when it is missing; OSError when it is a link or no directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        os.makedirs(path, 0o700, exist_ok=True)
        return os.open(path, flags)
