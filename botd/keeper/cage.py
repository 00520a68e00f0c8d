"""What holds one life: the interface that both ways of containment have."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.fence import Fence
    from botd.keeper.limits import Limits


class Cage(ABC):
    """Everything that one bot starts, however it forks, renames or daemonises itself.

    `main` is the pid of the life's main process; a cage that the kernel keeps does not need it.
    """

    path: str | None = None
    """The folder of the cage, for the journal; None when there is none."""

    procs: str | None = None
    """A file that a process enters the cage by, writing "0" to it; None when it is born inside."""

    fence: Fence | None = None
    """The controllers that limit it; None when there are none."""

    forgetful = False
    """Whether orphans escape when the main process ends, unless they were met before (see `meet`)."""

    def meet(self, main: int) -> None:
        """Remember who is inside now, so that `sweep` finds them later. OSError when it cannot be looked at now."""
        return

    @abstractmethod
    def make(self, limits: Limits) -> int | None:
        """Prepare it for a start, with limits; a directory descriptor to be born into.

        OSError EBUSY when somebody lives there.
        """

    @abstractmethod
    def members(self, main: int) -> list[int]:
        """Pids inside."""

    @abstractmethod
    def kill(self, main: int) -> int:
        """SIGKILL everything inside; how many were found. There may be new ones: call it again."""

    @abstractmethod
    def sweep(self, main: int) -> int:
        """Kill what outlived the main process; how many there were. OSError when it cannot be looked at now."""

    @abstractmethod
    def remove(self) -> bool:
        """Take the empty cage away; False when somebody is still inside."""
