"""Is a lock file held, does anybody listen on a socket: asked without disturbing whoever it is."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def somebody_listens(folder: int, name: str) -> bool:
    """Whether a process has the Unix socket `name` in a folder's descriptor bound. True also when that cannot be told.

    Asked with a datagram socket: a stream socket refuses it for its type, before any connection comes about, and a
    socket file without a process refuses everything.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(f"/proc/self/fd/{folder}/{name}")
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def somebody_holds(folder: int, name: str, how: int = _LOCK) -> bool:
    """Whether a process holds the lock file `name`, opened with the flags `how`. True also when that cannot be told."""
    try:
        fd = os.open(name, how, dir_fd=folder)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def hold(folder: int, name: str, identity: tuple[int, int]) -> Iterator[bool]:
    """Hold a lock file; False when somebody else does, or it is not the file of that identity (st_dev, st_ino)."""
    fd = os.open(name, _LOCK, dir_fd=folder)
    try:
        st = os.fstat(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield (st.st_dev, st.st_ino) == identity
    finally:
        os.close(fd)
