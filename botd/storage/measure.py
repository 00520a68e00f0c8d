"""What lies in a folder: a walk that follows no link, crosses no mount and holds one descriptor at any depth."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from botd.storage.beneath import DIRECTORY, open_here
from botd.storage.tree import BLOCK


@dataclass(slots=True)
class Survey:
    """What lies in a folder: bytes on disk, entries (itself included), and when anything in it changed last.

    `changed_at` is the newest mtime or ctime, seconds since the epoch: a restored backup has old mtimes but a new
    ctime. `complete` is False when something could not be read or lies on another file system.
    """

    bytes: int = 0
    entries: int = 0
    changed_at: float = 0.0
    complete: bool = True
    _linked: set[tuple[int, int]] = field(default_factory=set)

    def count(self, st: os.stat_result) -> None:
        self.entries += 1
        self.changed_at = max(self.changed_at, st.st_mtime, st.st_ctime)
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            inode = (st.st_dev, st.st_ino)
            if inode in self._linked:
                return
            self._linked.add(inode)
        self.bytes += st.st_blocks * BLOCK


def survey(directory: int) -> Survey:
    """Walk everything below a directory descriptor (left open); follows no link and crosses no mount.

    Holds one descriptor at any depth. A tree that is moved about meanwhile is counted in part (`complete` False).
    """
    found = Survey()
    root = os.fstat(directory)
    found.count(root)
    fd = os.dup(directory)
    # Of each directory above `fd`: its identity, and the names in it that are still to be visited.
    above: list[tuple[tuple[int, int], list[str]]] = []
    try:
        here, pending = (root.st_dev, root.st_ino), _list(fd, root.st_dev, found)
        while True:
            if pending:
                below = _enter(fd, pending.pop(), here, found)
                if below is None:
                    continue
                above.append((here, pending))
                os.close(fd)
                fd = below
                st = os.fstat(fd)
                here, pending = (st.st_dev, st.st_ino), _list(fd, root.st_dev, found)
            elif above:
                here, pending = above.pop()
                up = os.open("..", DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = up
                if not _is(os.fstat(fd), here):
                    found.complete = False
                    return found
            else:
                return found
    except OSError:
        found.complete = False
        return found
    finally:
        os.close(fd)


def _list(fd: int, device: int, found: Survey) -> list[str]:
    """Count the entries of a directory; the names of those to go down into."""
    directories = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    st = entry.stat(follow_symlinks=False)
                except OSError:
                    found.complete = False
                    continue
                if st.st_dev != device:
                    found.complete = False
                    continue
                found.count(st)
                if stat.S_ISDIR(st.st_mode):
                    directories.append(entry.name)
    except OSError:
        found.complete = False
    return directories


def _enter(fd: int, name: str, here: tuple[int, int], found: Survey) -> int | None:
    """A descriptor of the directory below, if there is a way back up from it."""
    try:
        below = open_here(fd, name)
    except OSError:
        found.complete = False
        return None
    try:
        if _is(os.stat("..", dir_fd=below), here):
            return below
    except OSError:
        pass  # no search permission in it
    found.complete = False
    os.close(below)
    return None


def _is(st: os.stat_result, identity: tuple[int, int]) -> bool:
    return (st.st_dev, st.st_ino) == identity
