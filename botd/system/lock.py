"""One daemon per home: a lock for life, which says whose it is.

The file is never unlinked: whoever removes a lock file while another process opens it splits the two onto
different files, and both believe they are alone. The kernel gives the lock back when its holder dies in whatever way.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.system.clock import Clock, rfc3339

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Holder:
    """Who wrote its name into a lock file: process id and the RFC 3339 time at which it took the lock."""

    pid: int
    since: str


class InstanceLock:
    """The lock of a running daemon. Keep the object for as long as the daemon lives."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        # flock itself: the filelock package, which does the same, would stay in the daemon with 4 MB.
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor that holds it; -1 when it is not held."""
        return self._fd

    def inherit(self, fd: int, pid: int, wall: float) -> bool:
        """Take over the descriptor by which this process held it as another program; False: it is of another file."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(fd), os.stat(self.path)):
                return False
            os.set_inheritable(fd, False)
        except OSError:
            return False
        self._fd = fd
        self._write(f"{pid}\n{rfc3339(wall)}\n".encode())
        return True

    def acquire(self, home: str, pid: int, wall: float) -> None:
        """Take the lock now or raise BotdError: conflict, naming the holder; unavailable, when it cannot be made."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise
        except BlockingIOError:
            raise _conflict(home, holder(self.path)) from None
        except OSError as error:
            raise BotdError(
                "unavailable",
                f"the lock {self.path} cannot be taken: {error.strerror or error}",
                hint=f"check that {os.path.dirname(self.path)} is a folder that belongs to you and is writable",
            ) from error
        if self._fd >= 0:
            os.close(self._fd)  # that one has lost its name
        self._fd = fd
        self._write(f"{pid}\n{rfc3339(wall)}\n".encode())

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd >= 0:
            self._write(b"")
            # Said aloud: a child that was forked this moment holds the same lock until it executes something.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def stands_at(self, path: str) -> bool:
        """Whether the file that is held is still the one at `path`: else a second daemon could take that one."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(path, follow_symlinks=False))
        except OSError:
            return False

    def _write(self, text: bytes) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, only without a name


def acquire(paths: Paths, clock: Clock, inherited: int = -1) -> InstanceLock:
    """The single-instance lock of this home, held until `release` or the end of the process. BotdError as above.

    `inherited`: the descriptor that holds it already, where another botd was executed in this process before.
    """
    lock = InstanceLock(paths.daemon_lock)
    if inherited < 0 or not lock.inherit(inherited, os.getpid(), clock.wall()):
        lock.acquire(paths.home, os.getpid(), clock.wall())
    return lock


def holder(path: str) -> Holder | None:
    """Whose name stands in a lock file; None when there is none. Says nothing about whether the lock is held."""
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    try:
        lines = os.read(fd, 200).decode("ascii", "replace").splitlines()
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(lines) < 2 or not lines[0].isdigit() or not lines[1].isprintable():
        return None
    return Holder(int(lines[0]), lines[1])


def _conflict(home: str, first: Holder | None) -> BotdError:
    who = f"pid {first.pid}, since {first.since}" if first else "it is just starting or stopping"
    return BotdError(
        "conflict",
        f"botd is already running for {home}: {who}",
        hint="use it as it is, end it with: botctl daemon stop, or set BOTD_HOME for a second fleet",
        details={"pid": first.pid, "since": first.since} if first else None,
    )
