"""The time index beside a log file: 16-byte records "<dQ", the wall time of a move and the offset at which it began.

It is an aid: when it cannot be written the output goes on without.
"""

from __future__ import annotations

import os
from struct import pack, unpack

from botd.keeper.rotation import open_file

RECORD = 16
EVERY_S = 0.1


class Index:
    """The open index of a file of `size` bytes; what it says of bytes beyond them is dropped.

    `born` is when the file's first byte came, as its first record says; 0.0 when there is none.
    """

    __slots__ = ("_fd", "_noted", "born")

    def __init__(self, folder: int, name: str, size: int) -> None:
        """OSError when it can neither be opened nor made."""
        self._fd, _ = open_file(folder, name, os.O_RDWR | os.O_APPEND)
        self._noted = self.born = 0.0
        try:
            self.fit(size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fit(self, size: int) -> None:
        """Drop a torn record and those that begin at or beyond `size`: somebody cut the file."""
        there = os.fstat(self._fd).st_size
        count = there // RECORD
        if count and self._record(count - 1)[1] >= size:
            low = 0
            while low < count:
                middle = (low + count) // 2
                if self._record(middle)[1] >= size:
                    count = middle
                else:
                    low = middle + 1
        if count * RECORD != there:
            os.ftruncate(self._fd, count * RECORD)
            self._noted = 0.0
        self.born = self._record(0)[0] if count else 0.0

    def due(self, now: float) -> bool:
        """Whether a record shall be written for a move that happens now (seconds since the epoch)."""
        # A clock that was set back must not silence the index until it has caught up.
        return now - self._noted >= EVERY_S or now < self._noted

    def note(self, now: float, offset: int) -> None:
        """Append a record."""
        self._noted = now
        self.born = self.born or now
        try:
            if self._fd >= 0:
                os.write(self._fd, pack("<dQ", now, offset))
        except OSError:
            pass  # no room, or no such thing any more

    def _record(self, number: int) -> tuple[float, int]:
        at, offset = unpack("<dQ", os.pread(self._fd, RECORD, number * RECORD))
        return at, offset
