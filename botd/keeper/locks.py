"""The lock of a bot: a file that its life holds by flock, to the end of the last process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os

from botd.keeper.launch import LOCK_FD

_TRIES = 16


def take(path: str) -> int | None:
    """A descriptor that holds the bot's lock; None when somebody else holds it. OSError when it cannot be opened."""
    for _ in range(_TRIES):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands_at(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        # Unlinked between the open and the lock: who opens the path now gets another file, and would get its lock too.
        os.close(fd)
    raise OSError(errno.EAGAIN, "it is removed again and again while it is opened")


def remove(path: str) -> None:
    """Remove the lock of a deleted bot. One that somebody holds stays, and so does what cannot be opened."""
    try:
        fd = take(path)
    except OSError:
        return
    if fd is not None:
        os.unlink(path)
        os.close(fd)


def hold(path: str) -> None:
    """The keeper's own lock, at its path for life. OSError; BlockingIOError when another keeper has it."""
    if _stands_at(path, LOCK_FD):
        return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        os.dup2(fd, LOCK_FD, inheritable=False)
    finally:
        os.close(fd)


def _stands_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
