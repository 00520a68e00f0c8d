"""The peer of a connection, by the kernel's word (SO_PEERCRED) and never by its own."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from botd.contract.errors import BotdError
from botd.contract.methods import Method
from botd.contract.vocabulary import is_user

_UCRED = struct.Struct("3i")

Role = Literal["admin", "stranger"]


@dataclass(frozen=True, slots=True)
class Caller:
    """`user` is the tenant that a bare name belongs to."""

    uid: int
    pid: int
    user: str
    role: Role


def peer_of(connection: socket.socket) -> Caller:
    """Raises OSError when the peer is gone already."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    role: Role = "admin" if uid in (0, os.geteuid()) else "stranger"
    return Caller(uid, pid, _user_of(uid), role)


_names: dict[int, str] = {}
"""Users that were looked up already: a crowd of connections is one user."""


def _user_of(uid: int) -> str:
    known = _names.get(uid)
    if known is None:
        try:
            name = pwd.getpwuid(uid).pw_name.lower()
        except KeyError:
            return f"uid{uid}"  # who has no name yet may get one
        known = _names[uid] = name if is_user(name) else f"uid{uid}"
    return known


def authorise(caller: Caller, method: Method) -> None:
    """Raises BotdError(denied)."""
    if method.who == "anyone" or caller.role == "admin":
        return
    raise BotdError(
        "denied",
        f"{caller.user} (uid {caller.uid}) may not call {method.name}",
        hint="root and the daemon's own user administer this fleet: ask them, or run a fleet of your own "
        "with BOTD_HOME set to a folder of yours",
    )
