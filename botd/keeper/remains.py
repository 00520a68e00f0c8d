"""What lives leave behind: cages that are not empty yet, and orphans that came to the keeper."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.cage import Cage
    from botd.keeper.lives import Lives


class Remains:
    """Sees to it that nothing of a former life stands in the way of the next one."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._cages: dict[str, list[Cage]] = {}
        self._strays_behind = False

    def bury(self, life_id: str, cage: Cage) -> bool:
        """Take a cage away that should be empty. False: it is not, and stands in the way of the bot's next life."""
        if cage.remove():
            return True
        self._cages.setdefault(life_id, []).append(cage)
        return False

    def none_of(self, life_id: str) -> bool:
        """Whether every cage of former lives is empty; what is not gets another SIGKILL. OSError: it got none."""
        left = [cage for cage in self._cages.pop(life_id, ()) if not cage.remove()]
        if left:
            self._cages[life_id] = left
        for cage in left:
            cage.kill(-1)
        return not left

    def reap_strays(self) -> None:
        """Take the ends of children that are nobody's main process: orphans that came to this process."""
        self._strays_behind = False
        try:
            while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if info.si_pid in self._lives.children:
                    # The kernel shows the same one until it is reaped; there may be strays behind it.
                    self._strays_behind = True
                    return
                os.waitpid(info.si_pid, 0)
        except ChildProcessError:
            return  # no child at all

    def reaped(self) -> None:
        """A child that is no stray was reaped: look at those that it hid."""
        if self._strays_behind:
            self.reap_strays()
