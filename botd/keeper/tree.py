"""Containment without a cgroup: the bot is made a subreaper, and the tree below it is walked, stopped and killed.

Its orphans stay below it while it lives, and come to the keeper when it dies.
"""

from __future__ import annotations

import os

from botd.keeper import proc
from botd.keeper.cage import Cage
from botd.keeper.kill import kill_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container


class Tree(Cage):
    """One life's process tree. `known`: the children of the keeper that are no strays; `marks`: the life's pipes."""

    def __init__(self, known: Container[int], marks: Callable[[], list[int]], child: bool) -> None:
        self._known = known
        self._marks = marks
        self._child = child

    def make(self) -> None:
        return None

    def members(self, main: int) -> list[int]:
        found = [main]
        for pid in found:
            found += [p for p in proc.children(pid) if p not in found]
        return found

    def kill(self, main: int) -> int:
        return kill_trees(lambda: [main])

    def sweep(self, main: int) -> int:
        if self._child:
            return kill_trees(self._strays)
        return kill_trees(lambda: self._bearers(main))

    def remove(self) -> bool:
        return True

    def _strays(self) -> list[int]:
        # Every bot leads a session of its own, and nobody can enter another one: who is in the keeper's own session
        # was left behind by no bot. It waits at its gate, and the keeper has not heard of its birth yet.
        mine = os.getsid(0)
        found = []
        for pid in proc.children(os.getpid()):
            if pid not in self._known:
                fields = proc.stat(pid)
                if fields and fields[0] not in proc.DEAD and int(fields[3]) != mine:
                    found.append(pid)
        return found

    def _bearers(self, main: int) -> list[int]:
        # An earlier keeper was this bot's ancestor, so its orphans went elsewhere. They still bear the marks of the
        # bot: its session, or one of its pipes.
        above, inodes = proc.ancestors(), self._marks()
        found = []
        for pid in proc.pids():
            if pid in above or pid == main or pid in self._known:
                continue
            fields = proc.stat(pid)
            if not fields or fields[0] in proc.DEAD:
                continue
            if int(fields[3]) == main or proc.pipe_fds(pid, inodes):
                found.append(pid)
        return found
