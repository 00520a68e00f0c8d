"""One connection to the keeper, driven by the running event loop: neither end ever waits for the other."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from botd.keeper import wire
from botd.keeper.client.errors import KeeperError, KeeperLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Message = dict[str, Any]
    Received = list[tuple[Message, list[int]]]

QUEUE_LIMIT = 20_000
"""Messages that may wait for a keeper that does not read; more is an error, not memory."""

PACKETS_PER_CALLBACK = 256


class Connection:
    """Connected to the socket at `path` as soon as it is made; OSError when nobody listens there.

    `on_received` gets what arrived, in order, each message with its descriptors (its to close); `on_ended` is called
    once when the other end is gone, never after `close`.
    """

    def __init__(self, path: str, on_received: Callable[[Received], None], on_ended: Callable[[], None]) -> None:
        self._on_received, self._on_ended = on_received, on_ended
        self._buffer = bytearray(wire.PACKET_LIMIT)
        self._queue: deque[tuple[Message, Sequence[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._sock = wire.connect(path)
        self._fd = self._sock.fileno()
        self._loop.add_reader(self._fd, self._readable)

    @property
    def pid(self) -> int:
        """The keeper's, as the kernel recorded it when it began to listen."""
        return wire.peer_of(self._sock)[0]

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send now, or as soon as the keeper reads. KeeperError when QUEUE_LIMIT messages wait, KeeperLost at the end.

        The descriptors stay the caller's, and stay open until the message is sent.
        """
        if self._queue:
            if len(self._queue) >= QUEUE_LIMIT:
                raise KeeperError(f"the keeper does not read; {QUEUE_LIMIT} messages wait for it already")
            self._queue.append((message, fds))
            return
        try:
            wire.send(self._sock, message, fds)
        except BlockingIOError:
            self._queue.append((message, fds))
            self._loop.add_writer(self._fd, self._writable)
        except ConnectionError as error:
            # The reader sees the end too, after what the keeper still said.
            raise KeeperLost("the connection to the keeper ended") from error

    def close(self) -> None:
        """End it, with all that waits to be sent. Once is enough."""
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        self._queue.clear()
        self._fd = -1

    def _writable(self) -> None:
        try:
            while self._queue:
                wire.send(self._sock, *self._queue[0])
                self._queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._queue.clear()  # the reader takes care of the rest
        self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        batch: Received = []
        ended = False
        for _ in range(PACKETS_PER_CALLBACK):
            try:
                got = wire.receive(self._sock, self._buffer)
            except BlockingIOError:
                break
            except wire.WireError as error:
                batch.append(({"op": "error", "text": f"the keeper sent {error}"}, []))
                continue
            except OSError:
                got = None
            if got is None:
                ended = True
                break
            batch.append(got)
        if batch:
            self._on_received(batch)
        # Who received that may have closed it.
        if ended and self._fd >= 0:
            self._on_ended()
