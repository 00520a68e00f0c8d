"""The keeper's socket: who is connected, what is still to be told, and that a deaf botd never blocks anything."""

from __future__ import annotations

import errno
import os
from collections import deque

from botd.keeper import wire
from botd.keeper.life import STALE
from botd.keeper.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from botd.keeper.descriptors import Reserve
    from botd.keeper.lean import Socket
    from botd.keeper.life import Life
    from botd.keeper.wire import Message

PACKETS_PER_TURN = 64
_NOTES = 1000
_STRANGERS = 8
_HELLO_WITHIN_S = 5.0
_DOOR_AGAIN_S = 1.0


class Peer:
    """One connection. Until its hello it is a stranger: it may ping, nothing else, and not for long."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.pid = wire.peer_of(sock)[0]
        self.greeted = False
        self.closed = False


class Door:
    """Listens once it is opened, and knows what botd was told.

    Facts about lives are never queued: a life remembers how much botd was told (`Life.told`), and what is missing is
    sent when the socket takes it. What belongs to no life is queued, up to a bound.
    """

    def __init__(self, loop: Loop, reserve: Reserve, complain: Callable[[str], None]) -> None:
        self._loop, self._reserve, self._complain = loop, reserve, complain
        self._on_message: Callable[[Peer, Message, list[int]], None]
        self._on_lost: Callable[[], None]
        self._listener: Socket
        self._buffer = bytearray(wire.PACKET_LIMIT)
        self._strangers: list[Peer] = []
        self._botd: Peer | None = None
        self._behind: dict[tuple[str, int], Life] = {}
        self._notes: deque[Message] = deque()
        self._syncing = False
        self._later: list[list[str | int]] = []
        self._waiting = False

    def open(
        self,
        path: str,
        on_message: Callable[[Peer, Message, list[int]], None],
        on_lost: Callable[[], None],
        former: int | None = None,
    ) -> None:
        """Listen at `path`, where `former` (a descriptor) may be listening already.

        `on_message(peer, message, fds)` is called for every message (and owns the descriptors), `on_lost()` when botd's
        connection ended.
        """
        self._on_message, self._on_lost = on_message, on_lost
        self._listen(wire.listener(path) if former is None else wire.listening(former))
        self._loop.after_turn.append(self._flush)

    def _listen(self, listener: Socket) -> None:
        self._listener = listener
        self._loop.watch(self._listener.fileno(), self._accept)

    def mend(self, path: str) -> None:
        """Listen at `path` again when somebody removed the socket; who is connected stays so. OSError."""
        if os.path.exists(path):
            return
        former = self._listener
        self._listen(wire.listener(path))
        self._loop.unwatch(former.fileno())
        former.close()

    @property
    def listener(self) -> int:
        """The descriptor that listens."""
        return self._listener.fileno()

    @property
    def connected(self) -> bool:
        return self._botd is not None

    def publish(self, life: Life) -> None:
        """Something about a life changed; it is told at the end of this turn, or as soon as botd reads again."""
        self._behind[life.key] = life

    def tell(self, life: Life) -> None:
        """Like `publish`, at once where the socket takes it."""
        self._behind[life.key] = life
        self._flush()

    def forget(self, life: Life) -> None:
        self._behind.pop(life.key, None)

    def note(self, message: Message) -> None:
        """Queue a message that belongs to no life (refused, error, busy, ...)."""
        if self._botd is None:
            return
        if len(self._notes) >= _NOTES:
            self._notes.popleft()
        self._notes.append(message)

    def answer(self, peer: Peer, message: Message) -> None:
        """Reply on one connection at once; a peer that does not read misses it."""
        if peer is self._botd:
            self.note(message)
            return
        try:
            wire.send(peer.sock, message)
        except OSError:
            self._drop(peer)

    def welcome(self, peer: Peer) -> None:
        """This connection is botd's from now on. What the former one still sent is read first, then it is closed."""
        former = self._botd
        if former is not None:
            while not former.closed and self._read_one(former):
                pass
            self._drop(former, quiet=True)
        peer.greeted = True
        if peer in self._strangers:
            self._strangers.remove(peer)
        self._botd = peer
        self._notes.clear()
        self._behind.clear()
        self._syncing = False

    def sync(self, lives: Iterable[Life], later: Iterable[tuple[str, int]] = ()) -> None:
        """Tell the state of every life, then `synced`; `later` names those that could not be looked for yet."""
        for life in lives:
            life.told = STALE
            self._behind[life.key] = life
        self._syncing = True
        self._later = [list(key) for key in later]

    def close(self) -> None:
        self._listener.close()
        self._flush()
        if self._botd is not None:
            self._drop(self._botd, quiet=True)

    def _accept(self) -> None:
        try:
            peer = Peer(wire.accept(self._listener))
        except BlockingIOError:
            return
        except OSError as error:
            self._complain(f"a connection was refused: {error}")
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._reserve.give()
                # It stays at the door; looking at it all the time would be all that this process does.
                fd = self._listener.fileno()
                self._loop.change(fd, 0)
                self._loop.after(_DOOR_AGAIN_S, lambda: self._loop.change(fd, READ))
            return
        self._strangers.append(peer)
        self._loop.watch(peer.fd, lambda: self._readable(peer))
        if len(self._strangers) > _STRANGERS:
            self._drop(self._strangers[0])
        self._loop.after(_HELLO_WITHIN_S, lambda: None if peer.greeted else self._drop(peer))

    def _readable(self, peer: Peer) -> None:
        for _ in range(PACKETS_PER_TURN):
            if peer.closed or not self._read_one(peer):
                break
        if peer is self._botd and self._waiting:
            self._waiting = False
            self._loop.change(peer.fd, READ)

    def _read_one(self, peer: Peer) -> bool:
        try:
            got = wire.receive(peer.sock, self._buffer)
        except BlockingIOError:
            return False
        except wire.WireError as error:
            self._complain(f"a packet that is no message: {error}")
            self.answer(peer, {"op": "error", "text": str(error)})
            return True
        except OSError:
            got = None
        if got is None:
            self._drop(peer)
            return False
        self._on_message(peer, *got)
        return True

    def _drop(self, peer: Peer, quiet: bool = False) -> None:
        if peer.closed:
            return
        peer.closed = True
        self._loop.unwatch(peer.fd)
        peer.sock.close()
        if peer in self._strangers:
            self._strangers.remove(peer)
        if peer is self._botd:
            self._botd = None
            self._waiting = False
            self._notes.clear()
            self._behind.clear()
            if not quiet:
                self._on_lost()

    def _flush(self) -> None:
        """Tell botd what it does not know yet, until it does not take more."""
        peer = self._botd
        if peer is None or self._waiting or not (self._notes or self._behind or self._syncing):
            return
        try:
            while self._notes:
                wire.send(peer.sock, self._notes[0])
                self._notes.popleft()
            while self._behind:
                life = next(iter(self._behind.values()))
                while (due := life.next_message()) is not None:
                    message, fds, told = due
                    wire.send(peer.sock, message, fds)
                    life.told = told
                del self._behind[life.key]
            if self._syncing:
                wire.send(peer.sock, {"op": "synced", "later": self._later})
                self._syncing = False
        except BlockingIOError:
            self._waiting = True
            self._loop.change(peer.fd, READ | WRITE)
        except OSError as error:
            self._complain(f"botd could not be told: {error}")
            self._drop(peer)
