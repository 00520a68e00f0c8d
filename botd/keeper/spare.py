"""Space on the disk that is the journal's own: on a full disk lives go on being started and their ends noted.

Given up a page at a time at the moment of need, so that nobody else's output takes it; taken back when there is space.
"""

from __future__ import annotations

import os
from time import monotonic

PAGE, SIZE = 4096, 65536
_AGAIN_S = 5.0


class Spare:
    """A file of SIZE bytes that holds nothing but its place. Without room for it there is just none."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._size = 0
        self._tried = 0.0
        self.fill()

    def give(self) -> bool:
        """Let go of one page; False when there is none left."""
        if self._size < PAGE:
            return False
        try:
            os.truncate(self.path, self._size - PAGE)
        except OSError:
            self._size = 0
            return False
        self._size -= PAGE
        self._tried = monotonic()
        return True

    def fill(self) -> None:
        """Take back what was given up, if there is room; now and then, however often it is called."""
        now = monotonic()
        if self._size == SIZE or (self._tried and now - self._tried < _AGAIN_S):
            return
        self._tried = now
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE)
            finally:
                os.close(fd)
        except OSError:
            return  # full, or a file system that cannot promise space
        self._size = SIZE
