"""Containment without a cgroup: the bot is made a subreaper, and the tree below it is walked, stopped and killed.

Its orphans stay below it while it lives, and come to the keeper when it dies. After the keeper was killed they would go
to init: the next one meets them while the main process lives, now and then and before it asks it to end. Where a
controller of version 1 limits the life, its folder names everybody too.
"""

from __future__ import annotations

import os

from botd.keeper import proc
from botd.keeper.cage import Cage
from botd.keeper.kill import kill_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from botd.keeper.fence import Fence
    from botd.keeper.limits import Limits


class Strays:
    """Orphans that came to the keeper. `known` names the children of the keeper that are none.

    Looking for them reads the keeper's whole list of children. Lives whose ends are seen in one turn of the loop had
    all ended before its first callback, so one look that finds nothing serves them all; `turned` comes between turns.
    """

    def __init__(self, known: Container[int]) -> None:
        self.known = known
        self._none = False

    def turned(self) -> None:
        self._none = False

    def kill(self) -> int:
        """Kill those that there are; how many there were."""
        if self._none:
            return 0
        found = kill_trees(self._find)
        self._none = found == 0
        return found

    def _find(self) -> list[int]:
        # Every bot leads a session of its own, and nobody can enter another one: who is in the keeper's own session
        # was left behind by no bot. It waits at its gate, and the keeper has not heard of its birth yet.
        mine = os.getsid(0)
        found = []
        for pid in proc.children(os.getpid()):
            if pid not in self.known:
                fields = proc.stat(pid)
                if fields and fields[0] not in proc.DEAD and int(fields[3]) != mine:
                    found.append(pid)
        return found


class Tree(Cage):
    """One life's process tree. `marks`: the life's pipes; `child`: whether this keeper started it."""

    def __init__(self, strays: Strays, marks: Callable[[], list[int]], child: bool, fence: Fence | None = None) -> None:
        self._strays = strays
        self._marks = marks
        self._child = child
        self.fence = fence
        self.forgetful = not child and not (fence and fence.own())
        self._met: dict[int, tuple[int, int]] = {}
        self._born = b""

    def meet(self, main: int) -> None:
        born = proc.read("/proc/loadavg").rpartition(b" ")[2]
        if born == self._born:
            return  # the machine has started nothing since
        for pid in self.members(main):
            if pid != main and pid not in self._met and (identity := _identity(pid)) is not None:
                self._met[pid] = identity
        self._born = born

    def make(self, limits: Limits) -> None:
        if self.fence is not None:
            self.fence.make(limits)

    def members(self, main: int) -> list[int]:
        found = dict.fromkeys(self._roots(main))
        queue = list(found)
        for pid in queue:
            for child in proc.children(pid):
                if child not in found:
                    found[child] = None
                    queue.append(child)
        return queue

    def kill(self, main: int) -> int:
        if self.fence is not None:
            self.fence.no_more()
        return kill_trees(lambda: self._roots(main))

    def sweep(self, main: int) -> int:
        inside = self.kill(-1) if self._roots(-1) else 0
        if self._child:
            return inside + self._strays.kill()
        return inside + kill_trees(lambda: [*self._bearers(main), *self._acquaintances()])

    def _acquaintances(self) -> list[int]:
        """Who was met below the main process and lives on; a number that was given to another is forgotten."""
        for pid, (ticks, inode) in list(self._met.items()):
            pidfd = proc.reopen(pid, ticks, inode)
            if pidfd is None:
                del self._met[pid]
            else:
                os.close(pidfd)
        return list(self._met)

    def remove(self) -> bool:
        return self.fence is None or self.fence.remove()

    def _roots(self, main: int) -> list[int]:
        """The main process (-1: it is gone) and who is in the folders of the life's controllers."""
        inside = [] if self.fence is None else self.fence.members()
        return inside if main < 0 or main in inside else [main, *inside]

    def _bearers(self, main: int) -> list[int]:
        # An earlier keeper was this bot's ancestor, so its orphans went elsewhere. They still bear the marks of the
        # bot: its session, or one of its pipes.
        above, inodes = proc.ancestors(), self._marks()
        found = []
        for pid in proc.pids():
            if pid in above or pid == main or pid in self._strays.known:
                continue
            fields = proc.stat(pid)
            if not fields or fields[0] in proc.DEAD:
                continue
            if int(fields[3]) == main or proc.pipe_fds(pid, inodes):
                found.append(pid)
        return found


def _identity(pid: int) -> tuple[int, int] | None:
    """(start in ticks, inode of its pidfd); None when it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        ticks = proc.start_ticks(pid)
        return None if ticks is None or not proc.send_signal_0(pidfd) else (ticks, proc.pidfd_inode(pidfd))
    finally:
        os.close(pidfd)
