"""The socket itself: bound privately, opened as far as `socketAccess` says, bounded in connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import sys
import time

from botd.access.peer import peer_of
from botd.contract.errors import BotdError
from botd.contract.framing import encode, failure
from botd.contract.paths import Paths
from botd.server.connection import Connection
from botd.server.crowd import Crowd
from botd.server.dispatch import Dispatcher

log = logging.getLogger("botd.server")

BACKLOG = 512
ACCEPTED_AT_ONCE = 128
"""Newcomers of one turn of the loop; who is connected has its turn in between."""
SHORT_S = 0.05
"""How long to wait for a descriptor when there is none and nobody can go."""
SPARE = 2
"""Descriptors kept back, so that somebody gets in when all others are taken."""


class Listener:
    """The caller holds the daemon's lock: whatever socket stands at the path is nobody's any more."""

    def __init__(self, paths: Paths, access: str, dispatcher: Dispatcher, crowd: Crowd) -> None:
        self._paths = paths
        self._path = paths.socket
        self._access = access
        self._dispatcher = dispatcher
        self._crowd = crowd
        self._sock: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._entering: set[asyncio.Task[object]] = set()
        self._spare: list[int] = []
        self._complained = float("-inf")

    async def open(self, inherited: int = -1) -> None:
        """Raises BotdError when the socket cannot be bound. `inherited`: one that listens there already."""
        sock = _taken_over(inherited, self._path) or _bind(self._path)
        try:
            open_to(self._paths, self._access)
            about = os.stat(self._path)
            self._identity = (about.st_dev, about.st_ino)
            sock.setblocking(False)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._refill()
        asyncio.get_running_loop().add_reader(sock.fileno(), self._knocked)

    async def mend(self) -> bool:
        """Listen at the path again when our socket is gone from it. Whether it was. Raises BotdError."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self._path)
            if (about.st_dev, about.st_ino) == self._identity:
                return False
        self._hang_up()  # who is connected stays connected
        await self.open()
        return True

    # --- newcomers ----------------------------------------------------------------------------------
    # asyncio's own server logs a traceback and is deaf for a second when descriptors run out, and makes a
    # transport also for those who are turned away.

    def _knocked(self) -> None:
        if len(self._spare) < SPARE:
            self._refill()
        # Who makes room for a newcomer is closed at the end of this turn.
        for _ in range(max(1, min(ACCEPTED_AT_ONCE, self._crowd.most // 8))):
            if self._sock is None or not self._accept(self._sock):
                return

    def _accept(self, listening: socket.socket) -> bool:
        """Whether to look for another one at once."""
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            self._out_of_descriptors(error)
            return False
        sock.setblocking(False)
        try:
            caller = peer_of(sock)
            self._crowd.make_room(caller)
        except OSError:
            sock.close()  # gone already
            return True
        except BotdError as error:
            _turn_away(sock, error)
            return True
        connection = Connection(self._dispatcher, caller, self._crowd)
        self._crowd.enter(connection)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(lambda: connection, sock))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    def _out_of_descriptors(self, error: OSError) -> None:
        """Somebody idle goes, or a spare one is given away; else it waits: the queue of the socket keeps them."""
        if time.monotonic() - self._complained > 60:
            self._complained = time.monotonic()
            log.warning("connections wait: %s", os.strerror(error.errno or errno.EMFILE))
        if self._crowd.relieve():
            return  # it is closed before the next turn
        if self._spare:
            os.close(self._spare.pop())
            return
        loop = asyncio.get_running_loop()
        assert self._sock is not None
        loop.remove_reader(self._sock.fileno())
        loop.call_later(SHORT_S, self._look_again, self._sock)

    def _look_again(self, sock: socket.socket) -> None:
        if sock is self._sock:
            self._refill()
            asyncio.get_running_loop().add_reader(sock.fileno(), self._knocked)

    def _refill(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE:
                self._spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def _hang_up(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        while self._spare:
            os.close(self._spare.pop())

    def hand_over(self) -> int:
        """A descriptor of the listening socket, for the next program in this process: who knocks meanwhile waits.

        The socket stays at its path then, and `close` closes only what is connected.
        """
        assert self._sock is not None
        self._identity = None
        return os.dup(self._sock.fileno())

    async def close(self) -> None:
        """Stop listening and remove the socket, if it still is ours."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self._path)
            if (about.st_dev, about.st_ino) == self._identity:
                os.unlink(self._path)
        self._hang_up()
        for member in self._crowd.members():
            member.close()


def _turn_away(sock: socket.socket, error: BotdError) -> None:
    """Tell it why, if that can be done at once."""
    with contextlib.suppress(OSError):
        sock.send(encode(failure(None, error)), socket.MSG_NOSIGNAL)
    sock.close()


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
