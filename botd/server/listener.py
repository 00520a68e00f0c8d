"""The socket itself: bound privately, opened as far as `socketAccess` says, bounded in connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from collections import Counter
from typing import Any

from botd.access.peer import Caller, peer_of
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.server.connection import Connection
from botd.server.dispatch import Dispatcher

CONNECTIONS_MAX = 1024
CONNECTIONS_PER_UID = 512
RESERVED = 64
"""Of all connections, kept for administrators."""


_KEEP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""asyncio shall not remove the socket behind our back: it may belong to the next botd already."""


class Listener:
    """The caller holds the daemon's lock: whatever socket stands at the path is nobody's any more."""

    def __init__(self, paths: Paths, access: str, dispatcher: Dispatcher) -> None:
        self._paths = paths
        self._path = paths.socket
        self._access = access
        self._dispatcher = dispatcher
        self._server: asyncio.AbstractServer | None = None
        self._socket: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._per_uid: Counter[int] = Counter()
        self._open: set[Connection] = set()

    async def open(self, inherited: int = -1) -> None:
        """Raises BotdError when the socket cannot be bound. `inherited`: one that listens there already."""
        sock = _taken_over(inherited, self._path) or _bind(self._path)
        try:
            open_to(self._paths, self._access)
            about = os.stat(self._path)
            self._identity = (about.st_dev, about.st_ino)
            self._socket = sock
            self._server = await asyncio.get_running_loop().create_unix_server(
                self._accept, sock=sock, backlog=512, **_KEEP
            )
        except BaseException:
            sock.close()
            raise

    async def mend(self) -> bool:
        """Listen at the path again when our socket is gone from it. Whether it was. Raises BotdError."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self._path)
            if (about.st_dev, about.st_ino) == self._identity:
                return False
        if self._server is not None:
            self._server.close()  # who is connected stays connected
            self._server = None
        await self.open()
        return True

    def _accept(self) -> Connection:
        connection = Connection(self._dispatcher, self._admit, self._gone)
        self._open.add(connection)
        return connection

    def _admit(self, sock: Any) -> Caller:
        caller = peer_of(sock)
        limit = CONNECTIONS_MAX if caller.role == "admin" else CONNECTIONS_MAX - RESERVED
        total = self._per_uid.total()
        if total >= limit or (caller.uid != 0 and self._per_uid[caller.uid] >= CONNECTIONS_PER_UID):
            raise BotdError("unavailable", f"too many connections ({total})", hint="close some and try again", exit=7)
        self._per_uid[caller.uid] += 1
        return caller

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        caller = connection.caller
        if caller is not None:
            self._per_uid[caller.uid] -= 1

    def hand_over(self) -> int:
        """A descriptor of the listening socket, for the next program in this process: who knocks meanwhile waits.

        The socket stays at its path then, and `close` closes only what is connected.
        """
        assert self._socket is not None
        self._identity = None
        return os.dup(self._socket.fileno())

    async def close(self) -> None:
        """Stop listening and remove the socket, if it still is ours."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self._path)
            if (about.st_dev, about.st_ino) == self._identity:
                os.unlink(self._path)
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._open):
            connection.close()


def _taken_over(fd: int, path: str) -> socket.socket | None:
    """The socket behind an inherited descriptor, if it is the one that stands at `path`; else it is closed."""
    if fd < 0:
        return None
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        os.set_inheritable(fd, False)
        if sock.getsockname() == path and _stands_at(path):
            return sock
    except OSError:
        pass  # no socket that listens there: it is bound anew
    sock.close()
    return None


def _stands_at(path: str) -> bool:
    """Whether who connects at the path would come to somebody at all, and there is nobody but us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _bind(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise BotdError(
                "conflict", f"{path} exists and is no socket", hint="move it away, or set BOTD_SOCKET to another path"
            )
        _refuse_taken(path)
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise BotdError(
            "unavailable", f"cannot bind {path}: {os.strerror(error.errno or errno.EIO)}", hint="set BOTD_SOCKET"
        ) from None
    finally:
        os.umask(before)
    return sock


def _refuse_taken(path: str) -> None:
    """Raise BotdError when somebody else's program listens at `path`: by our lock it is no botd of this home."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            pid = None  # so many wait for it that there is no place in the queue
        except OSError:
            return  # left behind by a dead one (or no stream socket, or not for us: binding will tell)
        else:
            pid = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
            if not os.path.exists(f"/proc/{pid}"):
                return  # a dead botd's, which a child of it that is about to end still has open
    who = "another program" if pid is None else f"another program (pid {pid}, {_name_of(pid)})"
    raise BotdError(
        "conflict",
        f"{path} is in use: {who} listens there",
        hint="end that program, or set BOTD_SOCKET to another path",
    )


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "which just ended"


def open_to(paths: Paths, access: str) -> None:
    """`owner`: 0600. `group:NAME`: 0660. `everyone`: 0666, and the peer's uid decides. The way to it follows.

    A socket that was put elsewhere (BOTD_SOCKET) stands in a folder that is not ours to open or close.
    """
    ours = os.path.dirname(paths.socket) == paths.run
    if access == "owner":
        os.chmod(paths.socket, 0o600)
        if ours:
            os.chmod(paths.run, 0o700)
        return
    group = _group_of(access) if access != "everyone" else -1
    step, mode = (0o011, 0o666) if access == "everyone" else (0o010, 0o660)
    try:
        for folder in (paths.home, paths.run) if ours else ():
            os.chown(folder, -1, group)
            os.chmod(folder, 0o700 | step)
        os.chown(paths.socket, -1, group)
    except PermissionError as error:
        raise _cannot_open(access, error) from None
    os.chmod(paths.socket, mode)


def _group_of(access: str) -> int:
    import grp

    try:
        return grp.getgrnam(access.partition(":")[2]).gr_gid
    except KeyError as error:
        raise _cannot_open(access, error) from None


def _cannot_open(access: str, error: Exception) -> BotdError:
    return BotdError(
        "invalid",
        f"security.socketAccess: cannot open the socket to {access}: {error}",
        hint="name an existing group that the daemon's user belongs to",
        exit=9,
    )
