"""One question to the keeper: what became of botd. It answers also while there is no botd that could."""

from __future__ import annotations

import _socket
import os
import sys

from botctl import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botd.contract.paths import Paths

_PATIENCE_S = 2.0
_ANSWER_MAX = 256 * 1024


class Keeper:
    """`pid` is None where no keeper listens or it is not ours to ask; `answer` is None when it did not answer."""

    __slots__ = ("answer", "pid")

    def __init__(self, pid: int | None, answer: dict[str, Any] | None) -> None:
        self.pid, self.answer = pid, answer


def ask(paths: Paths) -> Keeper:
    """The keeper of this home and its status: {pid, live, botd: {state, since, attempt, next_s, last_exit, said}}."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid = None
    try:
        sock.settimeout(_PATIENCE_S)
        sock.connect(paths.keeper_socket)
        pid, uid = peer_of(sock)
        if uid not in (0, os.geteuid()):
            return Keeper(None, None)
        sock.send(b'{"op":"status"}')
        answer = wire.decode(sock.recv(_ANSWER_MAX).decode("utf-8", "replace"))
    except (OSError, ValueError, RecursionError):
        answer = None
    finally:
        sock.close()
    # A keeper of a former version knows the question not, and answers with an error.
    good = isinstance(answer, dict) and answer.get("op") == "status" and isinstance(answer.get("botd"), dict)
    return Keeper(pid, answer if good else None)


def peer_of(sock: _socket.socket) -> tuple[int, int]:
    """(pid, uid) of who listens at the other end."""
    raw = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[:4], sys.byteorder), int.from_bytes(raw[4:8], sys.byteorder)
