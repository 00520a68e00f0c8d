"""How botd and the keeper talk: one JSON object per SOCK_SEQPACKET packet, descriptors beside it.

Both programs import this module; neither may change the meaning of a message without a line here.

Changes of the protocol
    1  first version
    1, later (every field optional; who does not know it does without)
       start: limits {memory, swap: bytes, pids: count, cpu: cores; null or absent: none}; swap is what may be used
       beyond memory
       limits {id, gen, limits}: other ones for a live life; answered by `error` only, when they cannot be had
       hello: controllers {memory, swap, pids, cpu: "v1", "v2" or null}, why {the null ones: words}
       started, state: limits as they were asked for last; folders {memory, swap, pids, cpu: where the controller
       holds the life, if it does}
       exited: oom {kills, peak_bytes, limit_bytes: null when not known, or not the reason}, pids_refused
       log of start, logs: max_age_s; rotated {id, name, dir, bytes}: a file of a bot was rotated away
       hello: features.log_lock: rotated files are renamed under a flock of the bot's log folder, .gz ones too
       synced: later [[id, gen], ...]: lives that are looked for again because descriptors are short; each is told by
       `started` or by its end

A packet holds at most PACKET_LIMIT bytes. A larger message travels in a memfd: the packet is {"op": "memfd"}, the
first descriptor is the memfd, the message's own descriptors follow it.
"""

from __future__ import annotations

import _socket
import errno
import os
from sys import byteorder

from botd.keeper.lean import Socket, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = dict[str, Any]

VERSION = 1
OLDEST = 1
"""The newest protocol that this program speaks, and the oldest: botd and the keeper are replaced one by one."""
PACKET_LIMIT = 256 * 1024
MESSAGE_LIMIT = 8 * 1024 * 1024
MAX_FDS = 6

_ANCILLARY = _socket.CMSG_SPACE(4 * (MAX_FDS + 1))
_FLAGS = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
_UCRED = 12


class WireError(Exception):
    """A packet that is not a message. The connection stays usable."""


def listener(path: str) -> Socket:
    """A non-blocking listening socket at `path`, mode 0600; the caller holds the lock that makes the path its own."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    previous = os.umask(0o177)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # nothing was left behind
        sock.bind(path)
    finally:
        os.umask(previous)
    sock.listen(16)
    return sock


def listening(fd: int) -> Socket:
    """The listening socket behind a descriptor that a former program left, which it owns from now on.

    ValueError when it is none; then the descriptor stays open.
    """
    sock = _socket.socket(fileno=fd)
    if not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
        sock.detach()
        raise ValueError("a socket that does not listen")
    return sock


def agreed(newest: object, oldest: object) -> int | None:
    """The protocol to speak with who speaks these (`oldest` None: only the one); None: there is none."""
    oldest = newest if oldest is None else oldest
    if type(newest) is not int or type(oldest) is not int:
        return None
    version = min(newest, VERSION)
    return version if version >= max(oldest, OLDEST) else None


def accept(sock: Socket) -> Socket:
    """The next connection, non-blocking; BlockingIOError when there is none, PermissionError for a stranger."""
    fd, _address = sock._accept()  # type: ignore[attr-defined,unused-ignore]  # what socket.accept calls, too
    peer = _socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    peer.setblocking(False)
    _grow(peer)
    _pid, uid = peer_of(peer)
    if uid not in (0, os.geteuid()):
        peer.close()
        raise PermissionError(errno.EPERM, f"uid {uid} may not talk to this keeper")
    return peer


def connect(path: str) -> Socket:
    """A non-blocking connection to the keeper at `path`.

    OSError when nobody listens, BlockingIOError when too many wait at the door, PermissionError for a stranger's.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
        _pid, uid = peer_of(sock)
        if uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, f"the keeper's socket belongs to uid {uid}")
        _grow(sock)
    except OSError:
        sock.close()
        raise
    return sock


def peer_of(sock: Socket) -> tuple[int, int]:
    """(pid, uid) of the other end, as the kernel recorded them when the connection was made."""
    raw = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED)
    return int.from_bytes(raw[0:4], byteorder), int.from_bytes(raw[4:8], byteorder)


def encode(message: Message) -> bytes:
    return dumps(message).encode("ascii")


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The message in `data`; WireError when it is not one JSON object with a text "op"."""
    try:
        message = loads(str(data, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise WireError("not an object with an op")
    return message


def send(sock: Socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message, whole or not at all; BlockingIOError when the other end does not read."""
    data = encode(message)
    if len(data) <= PACKET_LIMIT:
        try:
            send_bytes(sock, data, fds)
            return
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
    if len(data) > MESSAGE_LIMIT:
        raise ValueError(f"a message of {len(data)} bytes; the limit is {MESSAGE_LIMIT}")
    memfd = os.memfd_create("botd-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        send_bytes(sock, b'{"op":"memfd"}', (memfd, *fds))
    finally:
        os.close(memfd)


def receive(sock: Socket, buffer: bytearray) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (the caller's to close); None at the end of the connection.

    `buffer` has PACKET_LIMIT bytes and is scratch space. When this process has no room for the descriptors, the message
    comes without them and with "fds_lost": true. Raises BlockingIOError when there is nothing, WireError for a packet
    that is not a message (its descriptors are closed), OSError for a broken connection.
    """
    size, ancillary, flags = _take(sock, buffer, _FLAGS)
    fds = _descriptors(ancillary)
    try:
        if flags & _socket.MSG_TRUNC:
            raise WireError(f"a packet of more than {PACKET_LIMIT} bytes")
        if size == 0:
            if fds:
                raise WireError("an empty packet with descriptors")
            return None
        message = decode(memoryview(buffer)[:size])
        if message["op"] == "memfd":
            message = _from_memfd(fds)
        if flags & _socket.MSG_CTRUNC:
            close_all(fds)
            fds = []
            message["fds_lost"] = True
    except WireError:
        close_all(fds)
        raise
    return message, fds


def send_bytes(sock: Socket, data: bytes, fds: Sequence[int] = (), blocking: bool = False) -> None:
    """One packet, whole or not at all; BlockingIOError when the other end does not read and we do not wait."""
    ancillary = []
    if fds:
        rights = b"".join(fd.to_bytes(4, byteorder) for fd in fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
    sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL | (0 if blocking else _socket.MSG_DONTWAIT))


def receive_bytes(sock: Socket, buffer: bytearray, blocking: bool = False) -> tuple[bytes, list[int]]:
    """One packet and its descriptors (none when they did not all fit in); no bytes at the end of the connection."""
    flags = _socket.MSG_CMSG_CLOEXEC | (0 if blocking else _socket.MSG_DONTWAIT)
    size, ancillary, flags = _take(sock, buffer, flags)
    fds = _descriptors(ancillary)
    if flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC):
        close_all(fds)
        fds = []
    return bytes(memoryview(buffer)[:size]), fds


def _take(sock: Socket, buffer: bytearray, flags: int) -> tuple[int, Any, int]:
    try:
        size, ancillary, got, _address = sock.recvmsg_into([buffer], _ANCILLARY, flags)
    except ConnectionResetError:
        # The other end died with words of ours unread. The kernel says that once, and before what it had still said
        # itself: descriptors of lives that nobody else holds may be among that.
        size, ancillary, got, _address = sock.recvmsg_into([buffer], _ANCILLARY, flags)
    return size, ancillary, got


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _grow(sock: Socket) -> None:
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, PACKET_LIMIT)


def _descriptors(ancillary: Any) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += [int.from_bytes(data[i : i + 4], byteorder) for i in range(0, len(data) - 3, 4)]
    return fds


def _from_memfd(fds: list[int]) -> Message:
    if not fds:
        raise WireError("a memfd message without its memfd")
    memfd = fds.pop(0)
    try:
        size = os.fstat(memfd).st_size
        if size > MESSAGE_LIMIT:
            raise WireError(f"a message of {size} bytes; the limit is {MESSAGE_LIMIT}")
        return decode(os.pread(memfd, size, 0))
    except OSError as error:
        raise WireError(f"an unreadable memfd: {error.strerror}") from None
    finally:
        os.close(memfd)
