"""Which of the two ways to hold on to a bot's processes this machine offers.

A cgroup (cgroup2.py) holds the whole tree by itself. Without one (tree.py) the keeper follows who descends from whom.
"""

from __future__ import annotations

import errno
import os
from zlib import crc32

from botd.keeper.cgroup2 import Cgroup, can_move_into, own_cgroup
from botd.keeper.launch import can_clone
from botd.keeper.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from botd.keeper.cage import Cage


class Cages:
    """Which containment this machine offers, and one cage for every life.

    `want` is "auto", "cgroup2" or "tree". OSError when "cgroup2" is demanded and cannot be had.
    """

    def __init__(self, home: str, want: str, known: Container[int], without: Container[str] = ()) -> None:
        self._known = known
        self.use_kill = "cgroup_kill" not in without
        self.clone_into = False
        self.base: str | None = None
        if want in ("auto", "cgroup2"):
            self.base = self._find(home, "clone3" in without)
            if self.base is None and want == "cgroup2":
                raise OSError(errno.ENOTSUP, "no cgroup v2 folder that may be written to was found")
        if self.base is not None:
            self.use_kill = self.use_kill and os.path.exists(self.base + "/cgroup.kill")
        self.kind = "cgroup2" if self.base else "tree"

    def cage(self, life_id: str, gen: int, marks: Callable[[], list[int]]) -> Cage:
        """The cage of a life that is about to start."""
        if self.base is None:
            return Tree(self._known, marks, child=True)
        return Cgroup(f"{self.base}/{life_id.replace('/', '+')}+{gen}", self.use_kill)

    def former(self, path: str | None, marks: Callable[[], list[int]]) -> Cage:
        """The cage of a life that an earlier keeper started."""
        return Cgroup(path, self.use_kill) if path else Tree(self._known, marks, child=False)

    def leftovers(self, wanted: Container[str]) -> list[tuple[str, Cgroup]]:
        """(id, cgroup) of lives that nobody knows any more."""
        found = []
        for name in os.listdir(self.base) if self.base is not None else ():
            path = f"{self.base}/{name}"
            if os.path.isdir(path) and path not in wanted:
                found.append((name.rpartition("+")[0].replace("+", "/"), Cgroup(path, self.use_kill)))
        return found

    def close(self) -> None:
        if self.base is not None:
            try:
                os.rmdir(self.base)
            except OSError:
                pass  # a life's folder is still there; the next keeper removes it

    def _find(self, home: str, no_clone: bool) -> str | None:
        own = own_cgroup()
        if own is None:
            return None
        base = f"{own}/{folder_name(home)}"
        probe = base + "/probe"
        try:
            os.makedirs(probe, 0o755, exist_ok=True)
            if not os.access(own + "/cgroup.procs", os.W_OK):
                return None
            fd = os.open(probe, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.clone_into = not no_clone and can_clone(fd)
            finally:
                os.close(fd)
            if not self.clone_into and not can_move_into(probe):
                return None
            os.rmdir(probe)
        except OSError:
            return None
        return base


def folder_name(home: str) -> str:
    """What the cgroup folder of this home is called."""
    return f"botd-{crc32(os.path.realpath(home).encode()):08x}"
