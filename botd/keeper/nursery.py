"""A small process that forks for the keeper.

A fork marks every page of the forking process copy-on-write, and each page that the keeper touches afterwards costs it
a fault: some 250 a start, more than all its other work together. So a helper that touches next to nothing does the
forking, while the keeper prepares the next start. Its children are born as children of the keeper (CLONE_PARENT), which
alone waits for them; a helper that dies takes nothing along, and the keeper forks by itself until it makes another.
"""

from __future__ import annotations

import _socket
import errno
import gc
import marshal
import os
from time import monotonic

from botd.crash import crash_point
from botd.keeper import wire
from botd.keeper.launch import LOCK_FD, Command, Gate, Pipes, child, clone, settle
from botd.keeper.lean import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from botd.keeper.lean import Socket
    from botd.keeper.life import Life
    from botd.keeper.loop import Loop

    Born = Callable[[Gate | OSError], None]

_REQUEST_LIMIT = 128 * 1024
_AGAIN_S = 1.0
_PATIENCE_S = 15.0
"""A fork takes a millisecond. A helper that was stopped by somebody would hold up every start."""

_SOCKET_FD = 63
_FDS = 5
"""wait, report, stdout, stderr and lock travel with every request; a cgroup may follow."""


class Nursery:
    """Forks on request; the answers come through the loop, in order.

    `known` is the keeper's table of children that are no strays.
    """

    def __init__(self, loop: Loop, known: dict[int, Life | None]) -> None:
        self._loop, self._known = loop, known
        self._buffer = bytearray(1024)
        self._asked: list[tuple[Pipes, Born]] = []
        self._sock: Socket | None = None
        self._pid = -1
        self._opened = 0.0
        self._awaited: Pipes | None = None
        self._open()

    def ask(self, command: Command, lock: int, cgroup: int | None, born: Born) -> bool:
        """Have a child born that holds `lock`; `born` is called with its gate, or with why there is none.

        `cgroup` (a directory descriptor) is where it is born, None for the keeper's own. Until `born` is called it is a
        child of the keeper that `known` does not name; it waits at its gate, in the keeper's session.

        False when this request has to be done without the nursery (then nothing was begun). OSError when there are no
        descriptors for the pipes.
        """
        if self._sock is None and monotonic() - self._opened > _AGAIN_S:
            self._open()
        if self._sock is None:
            return False
        request = marshal.dumps([getattr(command, name) for name in Command.__slots__])
        if len(request) > _REQUEST_LIMIT:
            return False
        pipes = Pipes(command.uid)
        try:
            birthplace = () if cgroup is None else (cgroup,)
            wire.send_bytes(self._sock, request, (*pipes.theirs(), lock, *birthplace))
        except OSError:
            pipes.close()
            return False
        pipes.close_theirs()
        self._asked.append((pipes, born))
        if self._awaited is None:
            self._await(pipes)
        return True

    def _await(self, first: Pipes | None) -> None:
        """Look again later whether the oldest request is still this one."""
        self._awaited = first
        if first is not None:
            self._loop.after(_PATIENCE_S, self._overdue)

    def _overdue(self) -> None:
        oldest = self._asked[0][0] if self._asked else None
        if oldest is not None and oldest is self._awaited and self._sock is not None:
            os.kill(self._pid, SIGKILL)  # our child, not reaped: the number is its own. The socket tells the rest.
        self._await(oldest)

    def _open(self) -> None:
        mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            mine.close()
            _serve(theirs)
        theirs.close()
        mine.setblocking(False)
        self._sock, self._pid, self._opened = mine, pid, monotonic()
        self._known[pid] = None
        self._loop.watch(mine.fileno(), self._answered)

    def _answered(self) -> None:
        if self._sock is None:
            return
        try:
            data, fds = wire.receive_bytes(self._sock, self._buffer)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._lost()
            return
        pipes, born = self._asked.pop(0)
        pid, number = marshal.loads(data)
        if fds:
            born(pipes.gate(pid, fds[0]))
            return
        # A child whose pidfd did not fit in finds its gate closed.
        pipes.close()
        number = number or errno.EMFILE
        born(OSError(number, os.strerror(number)))

    def _lost(self) -> None:
        """The helper died. Children that it may just have made find their gates closed; the requests failed."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.unwatch(sock.fileno())
            sock.close()
        os.waitpid(self._pid, 0)
        del self._known[self._pid]
        asked, self._asked = self._asked, []
        for pipes, born in asked:
            pipes.close()
            born(OSError(errno.EAGAIN, "the process that forks was killed"))


def _serve(sock: Socket) -> NoReturn:
    """The helper's whole life: until the keeper is gone, one child per request."""
    status = 0
    try:
        fd = os.dup(sock.fileno())
        sock.close()
        os.dup2(fd, _SOCKET_FD)
        # Nothing of the keeper's stays: neither its lock nor its journal, nor what a killed one would have to wait for.
        os.closerange(LOCK_FD, _SOCKET_FD)
        os.closerange(_SOCKET_FD + 1, 1 << 20)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for low in range(LOCK_FD + 1):
            if low != null:
                os.dup2(null, low, inheritable=low < LOCK_FD)
        sock = _socket.socket(fileno=_SOCKET_FD)
        os.set_inheritable(_SOCKET_FD, False)
        buffer = bytearray(wire.PACKET_LIMIT)
        # Nothing here makes a cycle, and a collection would touch every page that is shared with the keeper.
        gc.disable()
        settled = _settled()
        while True:
            data, fds = wire.receive_bytes(sock, buffer, blocking=True)
            if not data:
                break
            answer, pidfd = _deliver(data, fds, settled)
            wire.send_bytes(sock, marshal.dumps(answer), pidfd, blocking=True)
            wire.close_all((*fds, *pidfd))
    except OSError:
        status = 1
    finally:
        os._exit(status)


def _settled() -> bool:
    try:
        settle()
    except OSError:
        return False  # each child tries for itself, and can say which step failed
    return True


def _deliver(data: bytes, fds: list[int], settled: bool) -> tuple[tuple[int, int], list[int]]:
    """((pid, errno), [pidfd]) of a new child."""
    command = Command.__new__(Command)
    for name, value in zip(Command.__slots__, marshal.loads(data), strict=True):
        setattr(command, name, value)
    if len(fds) not in (_FDS, _FDS + 1):
        return (-1, errno.EMFILE), []
    wait, report, out, err, lock = fds[:_FDS]
    try:
        pid, pidfd = clone(fds[_FDS] if len(fds) > _FDS else None, of_parent=True)
    except OSError as error:
        return (-1, error.errno or 0), []
    if pid == 0:
        # While a child at its gate held the socket, the keeper would not hear that the helper was killed, and would not
        # close that gate: both would wait for ever.
        os.close(_SOCKET_FD)
        child(command, lock, wait, report, out, err, settled)
    crash_point("nursery-forked")
    return (pid, 0), [pidfd]
