"""The connection to botd: one JSON line each way over a Unix stream socket, blocking.

`_socket` instead of `socket`: the latter builds its enums with `re` and `selectors` at import, 10 ms
for nothing that a client of one Unix socket needs.
"""

from __future__ import annotations

import _socket
import os
import time

from botctl import wire
from botd.contract.errors import BotdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from botd.contract.paths import Paths

    Notify = Callable[[str, dict[str, Any]], None]

ANSWER_MAX = 64 << 20
CONNECT_PATIENCE_S = 10.0
READ_PATIENCE_S = 30.0
LOOK_S = 3.0
"""Who has not answered for so long is looked at: a stopped botd answers nobody."""
_CHUNK = 1 << 18


class Client:
    """One connection. Calls are made one after the other."""

    __slots__ = ("_buffer", "_id", "_path", "_paths", "_scanned", "_socket", "_stopped")

    def __init__(self, socket: _socket.socket, paths: Paths) -> None:
        self._socket = socket
        self._paths = paths
        self._path = paths.socket
        self._stopped = ""
        self._buffer = bytearray()
        self._scanned = 0
        self._id = 0

    def call(
        self,
        method: str,
        params: dict[str, Any],
        *,
        timeout: float = READ_PATIENCE_S,
        on_notification: Notify | None = None,
        on_silence: Callable[[], None] | None = None,
        silence: float = 0.5,
    ) -> Any:
        """The result of one call; raises BotdError, the daemon's own or one about the connection.

        Notifications that arrive before the answer go to `on_notification`. `on_silence` is called
        once when nothing has come for `silence` seconds. `timeout` (seconds) is how long botd may go
        without a sign of life: a roll-out over many bots may take as long as it keeps reporting.
        """
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        deadline = time.monotonic() + timeout
        self._send(wire.encode(request).encode("utf-8", "replace") + b"\n", deadline)
        look_at = time.monotonic() + LOOK_S
        while True:
            patience = min(deadline, look_at) if on_silence is None else min(deadline, time.monotonic() + silence)
            message = self._receive(patience)
            if message is None and on_silence is not None:
                on_silence()
                on_silence = None
                continue
            if message is None and time.monotonic() < deadline:
                self._look()
                look_at = time.monotonic() + LOOK_S
                continue
            if message is None:
                raise BotdError(
                    "timeout",
                    f"botd has not answered {method} within {timeout:g} s{self._stopped and f': {self._stopped}'}",
                    hint="botctl daemon status",
                )
            look_at = time.monotonic() + LOOK_S
            deadline = time.monotonic() + timeout
            if "method" in message:
                if on_notification is not None:
                    on_notification(str(message["method"]), _params(message))
            elif message.get("id") in (self._id, None):
                if isinstance(message.get("error"), dict):
                    raise BotdError.from_rpc(message["error"])
                return message.get("result")

    def _look(self) -> None:
        """Tell once, on stderr, that botd is stopped; the call goes on when it is woken."""
        import sys

        from botctl.keeper import peer_of
        from botctl.stopped import see_to

        words = see_to(self._paths, peer_of(self._socket)[0])
        if words and not self._stopped and sys.stderr is not None:
            sys.stderr.write(f"botctl: {words}\n")
        self._stopped = words

    def follow(self, on_notification: Notify) -> None:
        """Hand on notifications until botd ends the connection, which raises BotdError."""
        while True:
            message = self._receive(None)
            if message is not None and "method" in message:
                on_notification(str(message["method"]), _params(message))

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise BotdError("timeout", "botd does not read", hint="botctl daemon status") from None
        except OSError as error:
            # What botd said before it hung up (a refusal, a limit) is worth more than the broken pipe.
            message = self._receive(deadline)
            if message is not None and isinstance(message.get("error"), dict):
                raise BotdError.from_rpc(message["error"]) from None
            raise _lost(error.strerror or str(error)) from None

    def _receive(self, deadline: float | None) -> dict[str, Any] | None:
        """The next message, or None when `deadline` (monotonic seconds) has passed."""
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            if self._scanned > ANSWER_MAX:
                raise _lost(f"its answer is longer than {ANSWER_MAX >> 20} MiB")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                return None
            except OSError as error:
                raise _lost(error.strerror or str(error)) from None
            if not data:
                raise _lost("it closed the connection")
            self._buffer += data
        line = self._buffer[:end].decode("utf-8", "replace")
        del self._buffer[: end + 1]
        self._scanned = 0
        try:
            message = wire.decode(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise BotdError(
                "unavailable",
                f"what answers at {self._path} does not speak JSON-RPC",
                hint="check BOTD_SOCKET and BOTD_HOME",
            )
        return message


def _params(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def _lost(why: str) -> BotdError:
    return BotdError(
        "unavailable",
        f"the connection to botd was lost: {why}",
        hint="the call may or may not have taken effect; look with: botctl list",
    )


def connect(paths: Paths, *, autostart: bool) -> Client:
    """A connection to the fleet's daemon, which is started when none answers and `autostart` allows.

    Raises BotdError: unavailable (exit 7), denied (5), or invalid when the path cannot be a socket.
    """
    paths.check_socket()
    try:
        return _connect(paths)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    except OSError as error:
        raise _unreachable(paths, error) from None
    if not autostart:
        raise BotdError(
            "unavailable",
            f"botd is not running (nothing answers at {paths.socket})",
            hint="botctl daemon start",
        )
    from botctl import autostart as starter

    starter.start_daemon(paths)
    try:
        return _connect(paths)
    except OSError as error:
        raise _unreachable(paths, error) from None


def _connect(paths: Paths) -> Client:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    deadline = time.monotonic() + CONNECT_PATIENCE_S
    try:
        sock.settimeout(CONNECT_PATIENCE_S)
        while True:
            try:
                sock.connect(paths.socket)
                return Client(sock, paths)
            except BlockingIOError:
                # A Unix socket does not wait for a place in a full queue; a moment later there is one.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    except BaseException:
        sock.close()
        raise


def _unreachable(paths: Paths, error: OSError) -> BotdError:
    if isinstance(error, PermissionError):
        return BotdError(
            "denied",
            f"you may not connect to {paths.socket}: {_who_may(paths)}",
            hint="run botctl as that user, ask for security.socketAccess, or set BOTD_HOME to a fleet of your own",
        )
    if isinstance(error, BlockingIOError):
        return BotdError(
            "unavailable",
            f"botd accepts no connection at {paths.socket}: too many are waiting",
            hint="botctl daemon status",
        )
    return BotdError(
        "unavailable", f"cannot connect to {paths.socket}: {error.strerror or error}", hint="botctl doctor"
    )


def _who_may(paths: Paths) -> str:
    """Who may, as far as the permissions of the socket, or of the first folder on the way, tell."""
    path = paths.socket
    while path != "/":
        try:
            status = os.stat(path)
        except PermissionError:
            path = os.path.dirname(path)
            continue
        except OSError:
            break
        import pwd

        try:
            owner = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            owner = f"uid {status.st_uid}"
        if status.st_mode & 0o020 and path == paths.socket:
            return f"it is for {owner} and the group with gid {status.st_gid}"
        return f"it is for {owner} alone"
    return "its owner has not opened it"
