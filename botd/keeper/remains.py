"""What lives leave behind: cages that are not empty yet, and orphans that came to the keeper."""

from __future__ import annotations

import os

from botd.crash import crash_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.cage import Cage
    from botd.keeper.lives import Lives


class Remains:
    """Sees to it that nothing of a former life stands in the way of the next one."""

    def __init__(self, lives: Lives, complain: Callable[[str], None]) -> None:
        self._lives, self._complain = lives, complain
        self._cages: dict[str, list[Cage]] = {}
        self._fresh: list[str] = []
        self._strays_behind = False

    def bury(self, life_id: str, cage: Cage) -> None:
        """Have a cage taken away that should be empty; until it is, it stands in the way of the bot's next life."""
        self._cages.setdefault(life_id, []).append(cage)
        self._fresh.append(life_id)

    def hand_over(self) -> dict[str, list[tuple[str | None, dict[str, str]]]]:
        """(folder, those of controllers) of cages that are not taken away yet, for the program that comes next."""
        return {
            life_id: [(cage.path, cage.fence.folders if cage.fence is not None else {}) for cage in cages]
            for life_id, cages in self._cages.items()
        }

    def tidy(self) -> None:
        """Take away what was buried in this turn; called when the ends were told, which nobody shall wait for."""
        if not self._fresh:
            return
        crash_point("exit-told")
        fresh, self._fresh = self._fresh, []
        for life_id in fresh:
            for cage in self._left(life_id):
                self._complain(f"processes of {life_id} have not ended: {cage.path}")

    def none_of(self, life_id: str) -> bool:
        """Whether every cage of former lives is empty; what is not gets another SIGKILL. OSError: it got none."""
        left = self._left(life_id)
        for cage in left:
            cage.kill(-1)
        return not left

    def _left(self, life_id: str) -> list[Cage]:
        left = [cage for cage in self._cages.pop(life_id, ()) if not cage.remove()]
        if left:
            self._cages[life_id] = left
        return left

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
