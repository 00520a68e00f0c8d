"""One connection: lines in, messages out, bounded in every direction."""

from __future__ import annotations

import asyncio
import inspect
import logging
import select
from collections import deque
from collections.abc import Callable
from typing import Any

from botd.access.peer import Caller
from botd.contract.errors import BotdError
from botd.contract.framing import LINE_MAX, LineSplitter, LineTooLong, decode, encode, failure, notification
from botd.contract.vocabulary import RpcCode
from botd.crash import crash_point
from botd.server.dispatch import Dispatcher

log = logging.getLogger("botd.server")

LINE_TIMEOUT_S = 10.0
"""A line that has begun must end within this time."""
IN_FLIGHT_MAX = 64
"""Calls of one connection that may wait for their outcome at once; then it is not read until one ends."""
BATCH_MAX = 1000
HALF_CLOSED_LOOK_S = 1.0
"""How often to see whether a peer that says no more is still there to be answered."""
STREAM_BUFFER = 1 << 20
"""Unsent bytes over which a stream's messages are dropped and counted instead of kept."""
TOLD_MAX = 64 << 10
"""Bytes of one turn's notifications that are gathered for one write."""


class Connection(asyncio.Protocol):
    def __init__(self, dispatcher: Dispatcher, caller_of: Callable[[Any], Caller], gone: Callable[[Connection], None]):
        self._dispatcher = dispatcher
        self._caller_of = caller_of
        self._gone = gone
        self._lines = LineSplitter()
        self._waiting: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hooks: list[Callable[[], None]] = []
        self._told = bytearray()
        self._line_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._closing = False
        self._congested = False
        self._ended = False
        self._room = asyncio.Event()
        self._room.set()
        self.caller: Caller | None = None

    # --- asyncio ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=STREAM_BUFFER)
        try:
            self.caller = self._caller_of(transport.get_extra_info("socket"))
        except BotdError as error:
            self._farewell(error)
        except OSError:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._stop_line_timer()
        for task in self._tasks:
            task.cancel()
        for hook in self._hooks:
            hook()
        self._hooks.clear()
        self._gone(self)

    def pause_writing(self) -> None:
        # Whoever does not read its answers is not read either: nothing grows without bound.
        self._congested = True
        self._room.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._congested = False
        self._room.set()
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._closing or self.caller is None:
            return
        waited = len(self._waiting)
        try:
            self._waiting.extend(self._lines.feed(data))
        except LineTooLong:
            self._farewell(BotdError("invalid", f"a line of more than {LINE_MAX} bytes", code=RpcCode.INVALID_REQUEST))
            return
        if len(self._waiting) > waited:
            # What is pending now is another line, with a time of its own.
            self._stop_line_timer()
        self._pump()
        if not self._lines.pending:
            self._stop_line_timer()

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

    def _pump(self) -> None:
        while self._waiting and not self._closing and not self._congested and len(self._tasks) < IN_FLIGHT_MAX:
            self._answer(self._waiting.popleft())
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
        assert self.caller is not None
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
            self._pump()

    def _batch(self, messages: list[Any]) -> Any:
        if not messages or len(messages) > BATCH_MAX:
            text = f"a batch has 1 to {BATCH_MAX} messages, not {len(messages)}"
            return failure(None, BotdError("invalid", text, code=RpcCode.INVALID_REQUEST))
        assert self.caller is not None
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

    def close(self) -> None:
        """Let what was answered leave, then end."""
        self._flush()
        self._closing = True
        self._transport.close()


def _is_gone(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed both directions, not only its own."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))
