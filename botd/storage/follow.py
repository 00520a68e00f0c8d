"""Following the output of a bot: the lines that come after a position, across rotations.

The files are the buffer, so nothing piles up in memory for a slow reader: it reads on where it was. One that falls
further behind than LAG_MAX is taken forward, and what it missed is counted.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time

from botd.contract.errors import BotdError
from botd.storage.logfiles import BASES, Stream, inode_of, rotated
from botd.storage.logs import BLOCK, LINE_MAX, LogLine, Position, decode
from botd.storage.watch import FolderWatch

LAG_MAX = 4 << 20
"""Bytes of one stream that a reader may be behind."""
LAG_KEPT = 256 << 10
LINES_MAX = 2000
"""Lines of one stream that are given out at a time."""
_READ_MAX = 4 * BLOCK
_ATTEMPTS = 100

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Follower:
    """The lines of one bot that are yet to come. For one task of the event loop; call `close` in the end.

        follower = Follower("alice/shop", folder, tail.positions["alice/shop"])
        while (lines := await follower.read()) is not None:
            ...

    `position` comes from a `Tail` of the same streams (with `partial=False`, or the end of an unfinished line would
    come as a line of its own); None: from now on. `missed` counts the lines that were left out so far; the reader may
    set it back to zero.
    """

    def __init__(
        self, id: str, folder: str, position: Position | None = None, streams: tuple[Stream, ...] = ("stdout", "stderr")
    ) -> None:
        """BotdError(not_found) when the bot has no log folder yet (`folders.prepare` makes it)."""
        self.id = id
        self.missed = 0
        self._path = folder
        try:
            self._folder = os.open(folder, _FOLDER)
        except OSError as error:
            raise BotdError("not_found", f"{id} has no folder for its output: {error.strerror}") from None
        self._streams = [_Stream(self._folder, stream, position) for stream in streams]
        self._watch = FolderWatch(self._folder)

    async def read(self) -> list[LogLine] | None:
        """Wait for lines and return them, in order within each stream; None when the folder has been removed."""
        # A flood must not keep everybody else from their turn.
        await asyncio.sleep(0)
        while True:
            self._watch.clear()
            lines = self._collect()
            if lines:
                return lines
            if self._is_gone():
                return None
            await self._watch.wait()

    def close(self) -> None:
        self._watch.close()
        for stream in self._streams:
            stream.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _is_gone(self) -> bool:
        """The folder was removed: the first step of that is to rename it."""
        try:
            st = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return True
        ours = os.fstat(self._folder)
        return (st.st_dev, st.st_ino) != (ours.st_dev, ours.st_ino)

    def _collect(self) -> list[LogLine]:
        found: list[LogLine] = []
        now = time.time()
        for stream in self._streams:
            for offset, text in stream.read():
                found.append(LogLine(self.id, stream.stream, now, text, stream.inode, offset))
            self.missed += stream.missed
            stream.missed = 0
        return found


class _Stream:
    """Where the reader is in one stream: an open file, which no rotation takes away, and an offset in it."""

    __slots__ = ("_folder", "_inside", "_log", "_offset", "fd", "inode", "missed", "stream")

    def __init__(self, folder: int, stream: Stream, position: Position | None) -> None:
        self._folder = folder
        self._log = f"{BASES[stream]}.log"
        self._offset = 0
        self._inside = False
        """The beginning of this line was given out already (it is too long): the rest of it is passed over."""
        self.stream: Stream = stream
        self.fd = -1
        self.inode = 0
        self.missed = 0
        if position is None:
            if self._open(self._log):
                self._offset = os.fstat(self.fd).st_size
        elif stream in position:
            inode, offset = position[stream]
            name = self._name_of(inode)
            if name is not None and self._open(name):
                self._offset = offset
            else:
                self._open_oldest()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self) -> list[tuple[int, str]]:
        """The next lines with their offsets; none when there are none now."""
        if self.fd < 0 and not self._open_oldest():
            return []
        while True:
            lines = self._read_file(final=False)
            if lines:
                return lines
            if inode_of(self._folder, self._log) in (self.inode, None):
                return []
            # The file is finished: what came into it up to its end, and then on to the next one.
            lines = self._read_file(final=True)
            if lines:
                return lines
            if not self._advance():
                return []

    def _read_file(self, *, final: bool) -> list[tuple[int, str]]:
        size = os.fstat(self.fd).st_size
        if size - self._offset > LAG_MAX:
            self._skip(size - LAG_KEPT)
        while self._offset < size:
            data = os.pread(self.fd, min(_READ_MAX, size - self._offset), self._offset)
            if not data:
                return []
            at_end = final and self._offset + len(data) >= size
            lines, used = self._split(data, at_end)
            self._offset += used
            if lines or not used:
                return lines
        return []

    def _split(self, data: bytes, at_end: bool) -> tuple[list[tuple[int, str]], int]:
        """The lines in `data`, and how many of its bytes they took; an unfinished line stays for the next time."""
        lines: list[tuple[int, str]] = []
        begin = 0
        while (newline := data.find(b"\n", begin)) >= 0:
            if len(lines) == LINES_MAX:
                return lines, begin
            if self._inside:
                self._inside = False
            else:
                raw = data[begin:newline]
                lines.append((self._offset + begin, decode(raw[:LINE_MAX], len(raw))))
            begin = newline + 1
        rest = len(data) - begin
        if self._inside:
            return lines, len(data)
        if rest and (at_end or rest > LINE_MAX):
            raw = data[begin:]
            text = decode(raw[:LINE_MAX], rest) if at_end else f"{decode(raw[:LINE_MAX], LINE_MAX)} [cut]"
            lines.append((self._offset + begin, text))
            self._inside = not at_end
            begin = len(data)
        return lines, begin

    def _skip(self, to: int) -> None:
        """Go forward to the line after `to` and count the lines on the way."""
        while self._offset < to:
            data = os.pread(self.fd, min(1 << 20, to - self._offset), self._offset)
            if not data:
                return
            self.missed += data.count(b"\n")
            self._offset += len(data)
        # The middle of a line: what is left of it is missed like its beginning.
        self.missed += 0 if self._inside else 1
        self._inside = True

    def _advance(self) -> bool:
        """On to the file that came after this one. Bytes beyond its end were moved there by the rotation."""
        beyond = max(0, self._offset - os.fstat(self.fd).st_size)
        own = self.inode
        for _ in range(_ATTEMPTS):
            name = self._name_of(own)
            if name is None:
                break
            number = int(name.rpartition(".")[2]) if name != self._log else 0
            if number < 1:
                return False
            fd = self._descriptor(self._log if number == 1 else f"{self._log}.{number - 1}")
            # A rotation moves the oldest first: where ours has not moved, its neighbour had not either.
            if inode_of(self._folder, name) == own:
                if fd < 0:
                    return False
                self._take(fd)
                self._offset = beyond
                return True
            if fd >= 0:
                os.close(fd)
        if name is None:
            # Deleted by a later rotation: how many lines went with the files after it, nobody can tell. Where no
            # rotated files are kept at all, that is how every rotation looks.
            if rotated(os.listdir(self._folder), self._log):
                self.missed += 1
            return self._open_oldest()
        return False  # it rotates faster than we look: the next look will do

    def _open_oldest(self) -> bool:
        numbers = rotated(os.listdir(self._folder), self._log)
        return self._open(f"{self._log}.{numbers[0]}" if numbers else self._log)

    def _open(self, name: str) -> bool:
        fd = self._descriptor(name)
        if fd < 0:
            return False
        self._take(fd)
        return True

    def _descriptor(self, name: str) -> int:
        """Of a regular file; -1 when there is none of that name."""
        try:
            fd = os.open(name, _OPEN, dir_fd=self._folder)
        except OSError:
            return -1
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return -1
        return fd

    def _take(self, fd: int) -> None:
        self.close()
        self.fd, self.inode = fd, os.fstat(fd).st_ino
        self._offset, self._inside = 0, False

    def _name_of(self, inode: int) -> str | None:
        """None when it is gone: seen only by two equal looks, for in between a rotation may be moving everything."""
        before: list[tuple[str, int | None]] = []
        for _ in range(_ATTEMPTS):
            names = [self._log, *(f"{self._log}.{n}" for n in reversed(rotated(os.listdir(self._folder), self._log)))]
            now = [(name, inode_of(self._folder, name)) for name in names]
            found = next((name for name, there in now if there == inode), None)
            if found is not None or now == before:
                return found
            before = now
        return None
