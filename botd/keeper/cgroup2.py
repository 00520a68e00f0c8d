"""Containment by cgroup: version 2, its core only (no controllers are needed), where a folder may be written to.

Whatever controllers there are come with the fence (fence.py), of either version.
"""

from __future__ import annotations

import errno
import os

from botd.keeper import groups, proc
from botd.keeper.cage import Cage
from botd.keeper.kill import kill_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.fence import Fence
    from botd.keeper.limits import Limits


class Cgroup(Cage):
    """One life's own cgroup. The kernel knows who is inside, and kills them in one step."""

    def __init__(self, path: str, use_kill: bool = True, fence: Fence | None = None) -> None:
        self.path = self._folder = path
        self.procs = path + "/cgroup.procs"
        self.fence = fence
        self._use_kill = use_kill

    def make(self, limits: Limits) -> int | None:
        groups.renew(self._folder)
        if self.fence is not None:
            self.fence.make(limits)
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def members(self, main: int) -> list[int]:
        return groups.members(self._folder)

    def empty(self) -> bool:
        """Whether nobody lives inside; False also when that cannot be seen."""
        try:
            return b"populated 0" in proc.read(self._folder + "/cgroup.events")
        except OSError as error:
            return error.errno in groups.GONE

    def kill(self, main: int) -> int:
        if self._use_kill:
            found = self.members(main)
            try:
                groups.write(self._folder + "/cgroup.kill", b"1")
                return len(found)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.EOPNOTSUPP):
                    raise
                self._use_kill = error.errno == errno.EOPNOTSUPP
        if self.fence is not None:
            self.fence.no_more()
        return kill_trees(lambda: self.members(main))

    def sweep(self, main: int) -> int:
        return 0 if self.empty() else self.kill(main)

    def remove(self) -> bool:
        outside = self.fence is None or self.fence.remove()
        return groups.remove(self._folder) and outside
