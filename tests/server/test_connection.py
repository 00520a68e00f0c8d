"""One connection against a dispatcher of our own: slow lines, slow readers, what is cut and what is kept."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from types import SimpleNamespace

import pytest

from botd.access.peer import Caller
from botd.contract.framing import response
from botd.server import connection
from botd.server.connection import Connection
from botd.server.crowd import Crowd

US = Caller(0, 1, "root", "admin")


class Echo:
    """Answers with the params; `hold` answers when it is let go; `stream` keeps the channel to push through."""

    def __init__(self):
        self.channels = []
        self.gate = asyncio.Event()
        self.cancelled = 0
        self.seen = []

    def dispatch(self, message, caller, channel):
        self.seen.append(message.get("method"))
        if message["method"] == "hold":
            return self._held(message)
        if message["method"] == "stream":
            channel.on_close(lambda: self.channels.remove(channel))
            self.channels.append(channel)
        return response(message["id"], message.get("params"))

    async def _held(self, message):
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return response(message["id"], "let go")


async def until(condition):
    """The outermost edge: `talk` gives up when it never comes true."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.001)


class Door:
    """Our end of a connection to `Connection`."""

    def __init__(self, sock):
        self.sock = sock
        self._data = b""

    async def send(self, data):
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def line(self):
        while b"\n" not in self._data:
            piece = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
            if not piece:
                return None
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return json.loads(line)


def talk(conversation):
    """Run `conversation(door, echo)` against one connection, within a time that only a hang exceeds."""

    async def run():
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        echo, gone = Echo(), asyncio.Event()
        crowd = Crowd()
        made = Connection(echo, US, crowd)
        crowd.enter(made)
        crowd.leave = lambda _: gone.set()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: made, theirs)
        try:
            async with asyncio.timeout(30):
                await conversation(
                    Door(ours), SimpleNamespace(echo=echo, connection=made, gone=gone, transport=transport)
                )
        finally:
            ours.close()
            transport.abort()

    asyncio.run(run())


def request(number, method="echo", **params):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "LINE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connection, "HALF_CLOSED_LOOK_S", 0.02)


def test_a_line_that_does_not_end_is_told_and_cut(impatient):
    async def conversation(door, there):
        await door.send(b'{"jsonrpc":"2.0",')
        answer = await door.line()
        assert answer["error"]["code"] == -32600
        assert "not ended within 0.2 s" in answer["error"]["message"]
        assert await door.line() is None
        await there.gone.wait()

    talk(conversation)


def test_a_byte_now_and_then_does_not_keep_a_line_alive(impatient):
    async def conversation(door, there):
        async def drip():
            while not there.gone.is_set():
                try:
                    await door.send(b" ")
                except OSError:
                    return
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        answer = await door.line()
        assert "not ended" in answer["error"]["message"]
        await dripping

    talk(conversation)


def test_a_quiet_connection_without_half_a_line_is_left_alone(impatient):
    async def conversation(door, there):
        await door.send(request(1))
        assert (await door.line())["id"] == 1
        await asyncio.sleep(0.5)  # twice the limit: silence between lines is nobody's fault
        await door.send(request(2))
        assert (await door.line())["id"] == 2

    talk(conversation)


def test_every_line_has_a_time_of_its_own(impatient):
    """A steady sender whose pieces never end with a line is cut for none of them."""

    async def conversation(door, there):
        stream = b"".join(request(number) for number in range(20))
        size = len(stream) // 20 + 1
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        for piece in pieces:
            await door.send(piece)
            await asyncio.sleep(0.03)
        answers = [await door.line() for _ in range(20)]
        assert [answer["id"] for answer in answers] == list(range(20))

    talk(conversation)


def test_a_line_that_we_do_not_read_on_is_not_late(impatient):
    """With all places taken botd stops reading; the half line in its buffer waits with it."""

    async def conversation(door, there):
        full = b"".join(request(number, "hold") for number in range(connection.IN_FLIGHT_MAX + 1))
        last = request("last")
        await door.send(full + last[:10])
        await until(lambda: len(there.echo.seen) >= connection.IN_FLIGHT_MAX)
        await asyncio.sleep(0.4)
        await door.send(last[10:])
        there.echo.gate.set()
        answers = [await door.line() for _ in range(connection.IN_FLIGHT_MAX + 2)]
        assert "last" in [answer["id"] for answer in answers]
        assert not [answer for answer in answers if "error" in answer]

    talk(conversation)


def test_no_more_calls_than_there_are_places_are_begun():
    async def conversation(door, there):
        await door.send(b"".join(request(number, "hold") for number in range(200)))
        await until(lambda: len(there.echo.seen) >= connection.IN_FLIGHT_MAX)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(there.echo.seen) == connection.IN_FLIGHT_MAX
        there.echo.gate.set()
        assert sorted([(await door.line())["id"] for _ in range(200)]) == list(range(200))

    talk(conversation)


def test_who_says_no_more_still_gets_its_answers(impatient):
    async def conversation(door, there):
        await door.send(request(1, "hold") + request(2))
        door.sock.shutdown(socket.SHUT_WR)
        assert (await door.line())["id"] == 2
        await asyncio.sleep(0.1)
        there.echo.gate.set()
        assert (await door.line())["result"] == "let go"
        assert await door.line() is None
        await there.gone.wait()

    talk(conversation)


def test_who_says_no_more_and_has_nothing_coming_is_let_go(impatient):
    async def conversation(door, there):
        await door.send(request(1))
        door.sock.shutdown(socket.SHUT_WR)
        assert (await door.line())["id"] == 1
        assert await door.line() is None
        await there.gone.wait()

    talk(conversation)


@pytest.mark.parametrize("half_first", [False, True])
def test_what_somebody_waited_for_who_is_gone_is_cancelled(impatient, half_first):
    async def conversation(door, there):
        await door.send(request(1, "hold"))
        await until(lambda: there.echo.seen)
        if half_first:
            door.sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.1)
            assert not there.gone.is_set()
        door.sock.close()
        await there.gone.wait()
        await asyncio.sleep(0)
        assert there.echo.cancelled == 1

    talk(conversation)


def test_a_stream_goes_on_for_who_says_no_more_and_ends_with_who_is_gone(impatient):
    async def conversation(door, there):
        await door.send(request(1, "stream"))
        door.sock.shutdown(socket.SHUT_WR)
        assert (await door.line())["id"] == 1
        await asyncio.sleep(0.1)
        [channel] = there.echo.channels
        assert channel.notify("events.event", {"n": 1})
        assert (await door.line())["params"] == {"n": 1}
        door.sock.close()
        await there.gone.wait()
        assert there.echo.channels == []

    talk(conversation)


def test_a_stream_that_is_not_read_is_refused_more_and_nothing_grows():
    async def conversation(door, there):
        await door.send(request(1, "stream"))
        assert (await door.line())["id"] == 1
        [channel] = there.echo.channels
        told = 0
        while channel.notify("events.event", {"n": told, "text": "x" * 1000}):
            told += 1
            assert told < 10_000, "it is told without bound"
        assert there.transport.get_write_buffer_size() <= connection.STREAM_BUFFER + connection.TOLD_MAX + 2000
        refused = sum(not channel.notify("events.event", {"n": "no"}) for _ in range(1000))
        assert refused == 1000
        assert there.transport.get_write_buffer_size() <= connection.STREAM_BUFFER + connection.TOLD_MAX + 2000
        heard = [(await door.line())["params"]["n"] for _ in range(told)]
        assert heard == list(range(told))  # what was accepted is whole and in order
        assert channel.notify("events.event", {"n": "again"})
        assert (await door.line())["params"]["n"] == "again"

    talk(conversation)


def test_who_does_not_read_its_answers_is_not_read_either():
    async def conversation(door, there):
        big = request(1, text="x" * 100_000)
        sending = asyncio.create_task(door.send(big * 200))
        await until(lambda: there.connection._congested)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(there.echo.seen) < 200
        assert there.transport.get_write_buffer_size() < connection.STREAM_BUFFER + 110_000  # and one answer more
        answers = [await door.line() for _ in range(200)]
        await sending
        assert [answer for answer in answers if "error" in answer] == []
        assert all(len(answer["result"]["text"]) == 100_000 for answer in answers)

    talk(conversation)
