"""A bot's output on its way from the pipe into files, by splice: the bytes never enter this process.

A `Sink` is one file (out.log or err.log of one bot) with its time index; a `Source` is one pipe that flows into it. The
file's size is the only record of how far it is written, so a killed keeper goes on where the last one stopped, and so
it does after somebody else cut the file or removed it. rotation.py has the steps of a rotation.
"""

from __future__ import annotations

import errno
import os
from time import monotonic, time

from botd.crash import crash_point
from botd.keeper import rotation
from botd.keeper.logindex import Index
from botd.keeper.rotation import open_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.source import Source

LONGEST_LINE = 1024 * 1024
MOVE_LIMIT = 1024 * 1024
"""At most this much of one bot's output per turn, so that a flood starves nobody."""

LOCK_PATIENCE_S = 2.0
"""A folder's lock is held for an instant; who holds it longer is stopped or hostile, and is passed over."""

_LOOK_EVERY_S = 0.1
_CLOCK_SLACK_S = 60.0
_PAST_LEAST, _PAST_MOST = 4096, 65536
_MOVE, _NONBLOCK = 1, 2
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Full(Exception):
    """The file cannot take bytes now (disk full, quota, descriptors short); they stay in the pipe. args: the cause."""


class Busy(Exception):
    """Somebody holds the folder's lock, and the file is too long to go on without a rotation."""


class Limits:
    """When a file rotates at the next newline, and how many rotated ones stay.

    `max_bytes` is the size, `max_age_s` the age of its first byte (0: however old).
    """

    __slots__ = ("keep", "max_age_s", "max_bytes")

    def __init__(self, max_bytes: int, keep: int, max_age_s: float = 0.0) -> None:
        self.max_bytes, self.keep, self.max_age_s = max_bytes, keep, max_age_s

    def facts(self) -> dict[str, float]:
        """As they stand in messages and in the journal."""
        return {"max_bytes": self.max_bytes, "keep": self.keep, "max_age_s": self.max_age_s}


class Sink:
    """One log file of one bot: `folder`/`name`.log (name is "out" or "err").

    Sources flow into it one after another: those of a former life first. `more` says that the last move was cut short
    by a limit and not by the end of the bytes, `rotated` counts the bytes that rotations took away since somebody set
    it to zero, and `strange` that something else stood in the file's place and was set aside.
    """

    __slots__ = (
        "_busy_since", "_fd", "_index", "_looked", "_seek", "_size", "folder", "id", "limits", "more", "name",
        "rotated", "sources", "strange",
    )  # fmt: skip

    def __init__(self, folder: str, name: str, max_bytes: int, keep: int, max_age_s: float = 0.0) -> None:
        self.folder, self.name = folder, name
        self.limits = Limits(max_bytes, keep, max_age_s)
        self.id = ""
        self.sources: list[Source] = []
        self.more = self.strange = False
        self.rotated = 0
        self._fd = -1
        self._index: Index | None = None
        self._size = 0
        self._looked = self._busy_since = 0.0
        self._seek = -1

    @property
    def seeking(self) -> bool:
        """Whether the file is long enough and the end of its last line is looked for."""
        return self._seek >= 0

    def mend(self) -> None:
        """Finish a rotation that a killed keeper cut short, where that can be done: the bot may never write again.

        OSError only when descriptors are short.
        """
        if self._fd >= 0:
            return
        try:
            folder = open_folder(self.folder)
            try:
                self._complete(folder)
            finally:
                os.close(folder)
        except Busy:
            pass  # the next byte tries again, and readers know such files
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # A broken folder is no reason to lose sight of a life; its next byte tries again, and complains.

    def open(self) -> None:
        """Open the file (finishing a rotation that was cut short).

        `Full` when there is no room, `Busy` when it cannot be finished now, OSError otherwise.
        """
        if self._fd >= 0:
            return
        try:
            folder = open_folder(self.folder)
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
        except OSError as error:
            self.close()
            if error.errno in _ROOM:
                raise Full(error) from error
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._index is not None:
            self._index.close()
            self._index = None
        self._seek = -1

    def move(self, source: Source) -> int:
        """Move what the pipe holds, up to MOVE_LIMIT; the number of bytes, 0 at its end.

        BlockingIOError when it is empty, `Full` or `Busy` when the file cannot take it, OSError for a broken file.
        """
        self.more = False
        if self._fd < 0:
            # A bot that never printed leaves no files, and its end costs no opening of them.
            if not source.has_bytes():
                return 0
            self.open()
        try:
            now = time()
            if not 0 <= now - self._looked < _LOOK_EVERY_S and self._is_lost(now):
                self.close()
                self.open()
            # Whatever others did to it: the end of the file is where it is now.
            size = os.lseek(self._fd, 0, os.SEEK_END)
            if size < self._size:
                self._was_cut(size)
            limits = self.limits
            room = limits.max_bytes - size
            if room > 0 and not (limits.max_age_s and self._is_old(now, size)):
                self._seek = -1
                return self._splice(source, now, size, MOVE_LIMIT if room > MOVE_LIMIT else room)
            self._size = size
            return self._move_past(source, now, size)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EFBIG and self._begin_anew():
                return self.move(source)
            if error.errno in _ROOM:
                raise Full(error) from error
            raise

    def _was_cut(self, size: int) -> None:
        self._seek = -1
        if self._index is not None:
            self._index.fit(size)

    def _is_lost(self, now: float) -> bool:
        """Somebody moved or removed the file, or its folder. Until this look it took bytes there."""
        self._looked = now
        try:
            named = os.stat(f"{self.folder}/{self.name}.log", follow_symlinks=False)
        except OSError:
            return True
        return not os.path.samestat(os.fstat(self._fd), named)

    def _is_old(self, now: float, size: int) -> bool:
        # What lies in the future was written by a clock that has been set back, or is damaged: a new file is in order.
        if self._index is None or not size:
            return False
        return not now - self.limits.max_age_s < self._index.born <= now + _CLOCK_SLACK_S

    def _splice(self, source: Source, now: float, size: int, limit: int) -> int:
        moved = os.splice(source.fd, self._fd, limit, offset_dst=size, flags=_MOVE | _NONBLOCK)
        if moved:
            crash_point("log-moved")
            self._size = size + moved
            self.more = moved == limit
            if self._index is not None and self._index.due(now):
                self._index.note(now, size)
        return moved

    def _move_past(self, source: Source, now: float, size: int) -> int:
        """The file is long or old enough: take a little more, and rotate at its first newline."""
        if self._seek < 0:
            if not source.has_bytes():
                return 0
            self._seek = size
            if size and os.pread(self._fd, 1, size - 1) == b"\n" and self._rotate(size):
                return self._splice(source, now, self._size, min(MOVE_LIMIT, max(1, self.limits.max_bytes)))
        if self._busy_since and size >= 2 * self.limits.max_bytes + LONGEST_LINE:
            if not self._begin_anew():
                raise Busy
            size = self._size
        # Little enough that what is beyond the cut does not fill the next file at once.
        moved = self._splice(source, now, size, max(_PAST_LEAST, min(_PAST_MOST, self.limits.max_bytes // 8)))
        if moved:
            self.more = True
            newline = os.pread(self._fd, moved, size).find(b"\n")
            if newline >= 0:
                self._rotate(size + newline + 1)
            elif self._size - self._seek >= LONGEST_LINE:
                self._rotate(self._size)
        return moved

    def _begin_anew(self) -> bool:
        """The file must not grow any more: rotate behind its last line."""
        if self._fd < 0:
            return False
        size = self._size = os.lseek(self._fd, 0, os.SEEK_END)
        if not size:
            return False
        start = max(0, size - _PAST_MOST)
        newline = os.pread(self._fd, size - start, start).rfind(b"\n")
        return self._rotate(size if newline < 0 else start + newline + 1)

    def _rotate(self, cut: int) -> bool:
        """False: not now, somebody holds the folder."""
        folder = open_folder(self.folder)
        try:
            if not self._lock(folder):
                self._seek = -1
                return False
            named = os.stat(f"{self.name}.log", dir_fd=folder, follow_symlinks=False)
            if not os.path.samestat(os.fstat(self._fd), named):
                self._looked = 0.0
                return False
            mark = rotation.commit(folder, self.name, self._fd, cut, self._size)
            self.close()
            self.rotated += rotation.complete(folder, self.name, mark, self.limits.keep)
            self._open_in(folder)
        finally:
            os.close(folder)
        if self._size and self._index is not None:
            self._index.note(time(), 0)
        return True

    def _lock(self, folder: int) -> bool:
        if rotation.lock(folder):
            self._busy_since = 0.0
            return True
        now = monotonic()
        self._busy_since = self._busy_since or now
        return now - self._busy_since > LOCK_PATIENCE_S

    def _complete(self, folder: int) -> None:
        """Finish a rotation that was committed; nothing happens when there is none."""
        mark = rotation.pending(folder, self.name)
        if mark is not None:
            if not self._lock(folder):
                raise Busy
            self.rotated += rotation.complete(folder, self.name, mark, self.limits.keep)

    def _open_in(self, folder: int) -> None:
        self._fd, strange = rotation.open_file(folder, f"{self.name}.log", os.O_RDWR)
        self.strange |= strange
        there = os.fstat(self._fd)
        self._size = there.st_size
        self._looked = time()
        try:
            self._index = Index(folder, f"{self.name}.idx", self._size)
            if self._size and not self._index.born:
                self._index.note(min(self._looked, there.st_mtime), 0)
        except OSError as error:
            # Without room there will be none for the lines either; without an index they are as good.
            if error.errno in _ROOM:
                raise
