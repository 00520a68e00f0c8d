"""The read end of one pipe that a bot writes its output to."""

from __future__ import annotations

import fcntl
import select

from botd.keeper.pacing import FLOOD_BYTES, Flood

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.logs import Sink

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032


class Source:
    """A pipe by its descriptor, its capacity in bytes, and the sink it flows into.

    `final` once nothing will be written to it any more; `flood` is its rhythm once it is large.
    """

    __slots__ = ("_grown", "capacity", "fd", "final", "flood", "sink")

    def __init__(self, fd: int, sink: Sink) -> None:
        self.fd, self.sink = fd, sink
        self.final = self._grown = False
        self.flood: Flood | None = None
        self.capacity = _fcntl(fd, _F_GETPIPE_SZ, 0) or 65536

    def grow(self) -> None:
        """Make the pipe larger after it was found full; a limit on pipe memory is simply respected."""
        if not self._grown:
            self._grown = True
            self.capacity = _fcntl(self.fd, _F_SETPIPE_SZ, FLOOD_BYTES) or self.capacity
            if self.capacity >= FLOOD_BYTES:
                self.flood = Flood()

    def has_bytes(self) -> bool:
        """Whether there is something to move; False at the end of the pipe, BlockingIOError when there may be later."""
        events = _events(self.fd)
        if events == select.POLLHUP:
            # The last writer may have written and gone between the kernel's looks at the bytes and at the writers.
            events = _events(self.fd)
        if not events and not self.final:
            raise BlockingIOError
        return bool(events & select.POLLIN)


def _events(fd: int) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return sum(events for _fd, events in poll.poll(0))


def _fcntl(fd: int, command: int, value: int) -> int | None:
    try:
        return fcntl.fcntl(fd, command, value)
    except OSError:
        return None
