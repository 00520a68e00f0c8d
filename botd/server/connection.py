"""One connection: lines in, messages out, bounded in every direction."""

from __future__ import annotations

import asyncio
import inspect
import logging
import select
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from botd.access.peer import Caller
from botd.contract.errors import BotdError
from botd.contract.framing import LINE_MAX, LineSplitter, LineTooLong, decode, encode, failure, notification
from botd.contract.vocabulary import RpcCode
from botd.crash import crash_point
from botd.server.crowd import Crowd
from botd.server.dispatch import Dispatcher

log = logging.getLogger("botd.server")

LINE_TIMEOUT_S = 10.0
"""A line that has begun must end within this time."""
IN_FLIGHT_MAX = 64
"""Calls of one connection that may wait for their outcome at once; then it is not read until one ends."""
BATCH_MAX = 1000
HALF_CLOSED_LOOK_S = 1.0
"""How often to see whether a peer that says no more is still there to be answered."""
STREAM_BUFFER = 64 << 10
"""Unsent bytes over which a stream's messages are dropped and counted instead of kept, and nothing more is read."""
TOLD_MAX = 32 << 10
"""Bytes of one turn's notifications that are gathered for one write."""


_scratch = bytearray(4 << 10)
"""Read into by everybody in turn. Small: lines of a flood are cut when their turn comes, not all at once."""


class Connection(asyncio.BufferedProtocol):
    def __init__(self, dispatcher: Dispatcher, caller: Caller, crowd: Crowd) -> None:
        self.caller = caller
        self._dispatcher = dispatcher
        self._crowd = crowd
        self._lines = LineSplitter()
        self._waiting: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hooks: list[Callable[[], None]] = []
        self._told = bytearray()
        self._line_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._waiting_bytes = 0
        self._made = False
        self.queued = False
        self._closing = False
        self._congested = False
        self._ended = False
        self._room = asyncio.Event()
        self._room.set()

    # --- asyncio ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._made = transport, True
        transport.set_write_buffer_limits(high=STREAM_BUFFER)
        if self._closing:
            transport.abort()  # it had to make room before its first turn

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._stop_line_timer()
        for task in self._tasks:
            task.cancel()
        for hook in self._hooks:
            hook()
        self._hooks.clear()
        self._crowd.leave(self)

    def pause_writing(self) -> None:
        # Whoever does not read its answers is not read either: nothing grows without bound.
        self._congested = True
        self._room.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._congested = False
        self._crowd.holds(self)
        self._room.set()
        self.pump()

    def get_buffer(self, sizehint: int) -> bytearray:
        return _scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        data = memoryview(_scratch)[:nbytes]
        waited = len(self._waiting)
        try:
            for line in self._lines.feed(data):
                self._waiting.append(line)
                self._waiting_bytes += len(line)
        except LineTooLong:
            self._farewell(BotdError("invalid", f"a line of more than {LINE_MAX} bytes", code=RpcCode.INVALID_REQUEST))
            return
        if len(self._waiting) > waited:
            # What is pending now is another line, with a time of its own.
            self._stop_line_timer()
            self._crowd.spoke(self)
        self.pump()
        if not self._lines.pending:
            self._stop_line_timer()
        self._crowd.holds(self)

    def eof_received(self) -> bool:
        """Whether to stay: who says no more (`echo ... | socat`) still waits for what it asked; who is gone, not."""
        self._ended = True
        if self._owes() and not _is_gone(self._transport):
            asyncio.get_running_loop().call_later(HALF_CLOSED_LOOK_S, self._look_after_half)
            return True
        return False

    def _owes(self) -> bool:
        return bool(self._tasks or self._waiting or self._hooks) and not self._closing

    def _look_after_half(self) -> None:
        """Nobody reads any more, so the end of a peer that has half closed its side has to be looked for."""
        if self._transport.is_closing():
            return
        if not self._owes() or _is_gone(self._transport):
            self._closing = True
            self._transport.close()
        else:
            asyncio.get_running_loop().call_later(HALF_CLOSED_LOOK_S, self._look_after_half)

    # --- lines to answers ---------------------------------------------------------------------------

    def pump(self) -> None:
        """Begin what waits, as far as it is this connection's turn."""
        turns = self._crowd.turns
        while self._waiting and not self._closing and not self._congested and len(self._tasks) < IN_FLIGHT_MAX:
            if not turns.may(self):
                break
            began = monotonic()
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            self._answer(line)
            turns.spent(self, monotonic() - began)
        if self._closing:
            return
        if self._ended:
            if not self._owes():
                self.close()
        elif self._congested or self._waiting:
            # A line whose end we do not read is not late.
            self._stop_line_timer()
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            if self._lines.pending and self._line_timer is None:
                loop = asyncio.get_running_loop()
                self._line_timer = loop.call_later(LINE_TIMEOUT_S, self._line_timed_out)

    def _answer(self, line: bytes) -> None:
        try:
            message = decode(line)
        except BotdError as error:
            self._send(failure(None, error))
            return
        if isinstance(message, list):
            answer: Any = self._batch(message)
        else:
            answer = self._dispatcher.dispatch(message, self.caller, self)
        if inspect.iscoroutine(answer):
            task = asyncio.get_running_loop().create_task(self._settle(answer))
            self._tasks.add(task)
            task.add_done_callback(self._settled)
        elif answer is not None:
            self._send(answer)

    async def _settle(self, answer: Any) -> None:
        result = await answer
        crash_point("botd-request-done")
        if result is not None:
            self._send(result)
        crash_point("botd-request-answered")

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call ended unexpectedly", exc_info=error)
        if self._waiting or self._ended:
            self.pump()

    def _batch(self, messages: list[Any]) -> Any:
        if not messages or len(messages) > BATCH_MAX:
            text = f"a batch has 1 to {BATCH_MAX} messages, not {len(messages)}"
            return failure(None, BotdError("invalid", text, code=RpcCode.INVALID_REQUEST))
        return self._answer_batch(messages, self.caller)

    async def _answer_batch(self, messages: list[Any], caller: Caller) -> list[Any] | None:
        answers = []
        for message in messages:
            answer = self._dispatcher.dispatch(message, caller, self)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                answers.append(answer)
        return answers or None

    # --- out ----------------------------------------------------------------------------------------

    def _send(self, message: object) -> None:
        if not self._closing:
            self._flush()
            self._transport.write(encode(message))
            self._crowd.holds(self)

    def notify(self, method: str, params: dict[str, Any]) -> bool:
        """What is told in one turn of the loop leaves in one write: a thousand bots that end at once are one event."""
        if self._closing or self._congested:
            return False
        if not self._told:
            asyncio.get_running_loop().call_soon(self._flush)
        self._told += encode(notification(method, params))
        if len(self._told) >= TOLD_MAX:
            self._flush()
        return True

    def _flush(self) -> None:
        if self._told and not self._transport.is_closing():
            told, self._told = self._told, bytearray()
            self._transport.write(told)
            self._crowd.holds(self)

    async def room(self) -> None:
        """Wait until the reader has taken enough for `notify` to send again."""
        await self._room.wait()

    def on_close(self, hook: Callable[[], None]) -> int:
        self._hooks.append(hook)
        return len(self._hooks)

    def _farewell(self, error: BotdError) -> None:
        """One last error, then the end: what follows on this connection cannot be trusted."""
        self._send(failure(None, error))
        self._closing = True
        self._transport.close()

    def _line_timed_out(self) -> None:
        self._line_timer = None
        if self._lines.pending and not self._closing:
            text = f"a line was begun and not ended within {LINE_TIMEOUT_S:g} s"
            self._farewell(BotdError("timeout", text, code=RpcCode.INVALID_REQUEST))

    def _stop_line_timer(self) -> None:
        if self._line_timer is not None:
            self._line_timer.cancel()
            self._line_timer = None

    # --- as one of many -----------------------------------------------------------------------------

    def waits_for(self) -> int:
        """How much would be lost with this connection, see `crowd.Member`."""
        if self._congested or (self._made and self._transport.get_write_buffer_size()):
            return 1
        return 3 if self._tasks or self._waiting else 2 if self._hooks else 0

    def pending(self) -> int:
        """Bytes that are neither understood nor taken yet."""
        return (
            self._lines.pending + self._waiting_bytes + (self._transport.get_write_buffer_size() if self._made else 0)
        )

    def dismiss(self, error: BotdError) -> None:
        """The descriptor is needed at once: who does not take the last word now does not get it."""
        if self._made and not self._closing:
            if not self._transport.get_write_buffer_size():
                self._send(failure(None, error))
            self._transport.abort()
        self._closing = True
        self._lines = LineSplitter()
        self._waiting.clear()

    def close(self) -> None:
        """Let what was answered leave, then end."""
        self._closing = True
        if self._made:
            self._flush()
            self._transport.close()


def _is_gone(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed both directions, not only its own."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))
