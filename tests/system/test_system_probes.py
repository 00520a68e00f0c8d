import asyncio
import os
import resource
import socket
from contextlib import asynccontextmanager

import pytest

from botd.contract.errors import BotdError
from botd.core.bot import Probe
from botd.system import probes
from botd.system.clock import Clock
from botd.system.probes import Prober, ask, parse_status, parse_target

LIMIT_S = 20  # of a test that has gone wrong; nothing waits for it otherwise
QUICK = {"interval_s": 0.01, "timeout_s": 5.0, "failures": 2, "start_grace_s": 0.0}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def run(main):
    async def limited():
        async with asyncio.timeout(LIMIT_S):
            return await main()

    return asyncio.run(limited())


async def until(condition):
    while not condition():  # noqa: ASYNC110  # nothing announces it
        await asyncio.sleep(0.001)


@asynccontextmanager
async def server(answer, host="127.0.0.1"):
    """A bot's port; `answer(reader, writer)` is one connection. Gives its number."""
    tasks = set()

    async def connected(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(asyncio.current_task())
            writer.close()

    listening = await asyncio.start_server(connected, host, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()


def says(raw):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return answer


async def silence(reader, writer):
    await asyncio.Event().wait()


def http(port, path="/health", host="127.0.0.1"):
    return parse_target(Probe("http", url=f"http://{host}:{port}{path}"), None)


@pytest.mark.parametrize(
    ("raw", "healthy", "note"),
    [
        (OK, True, "HTTP 200"),
        (b"HTTP/1.0 302 Found\r\n\r\n", True, "HTTP 302"),
        (b"HTTP/1.1 399 x\n\n", True, "HTTP 399"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "HTTP 404"),
        (b"HTTP/1.1 503\r\n\r\n", False, "HTTP 503"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\n\r\n", False, "HTTP 500"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, True, "HTTP 200"),
        (b"", False, "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", False, "the answer is not HTTP"),
        (b"\x00\xff" * 5000, False, "the answer is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", False, "the answer is not HTTP"),
        (b"HTTP/1.1 \r\n\r\n", False, "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK", False, "the answer is not HTTP"),
        (b"HTTP/1.1 +20 OK\r\n\r\n", False, "the answer is not HTTP"),
    ],
)
def test_the_status_decides(raw, healthy, note):
    async def main():
        async with server(says(raw)) as port:
            return await ask(http(port), 5)

    outcome = run(main)
    assert (outcome.healthy, outcome.note) == (healthy, note)


def test_what_is_asked():
    seen = []

    async def answer(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async def main():
        async with server(answer) as port:
            await ask(http(port, "/a/é?x=1#part"), 5)
            return port

    port = run(main)
    assert seen[0].startswith(f"GET /a/%C3%A9?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    assert b"\r\nConnection: close\r\n" in seen[0]


def test_an_answer_is_split_anywhere():
    async def answer(reader, writer):
        for byte in OK:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    async def main():
        async with server(answer) as port:
            return await ask(http(port), 5)

    assert run(main).healthy


def test_a_server_that_says_nothing_or_drips_is_cut_and_never_healthy():
    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def main():
        outcomes = []
        for answer in (silence, drip):
            async with server(answer) as port:
                outcomes.append(await ask(http(port), 0.2))
        return outcomes

    for outcome in run(main):
        assert not outcome.healthy
        assert outcome.note == "no answer within 0.2 s"


def test_nobody_listens():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]

        async def main():
            return [await ask(parse_target(Probe("tcp", port=port), None), 5), await ask(http(port), 5)]

        for outcome in run(main):
            assert not outcome.healthy
            assert outcome.note == f"connection refused on port {port}"


def test_tcp_needs_only_a_connection_on_either_loopback():
    async def main():
        outcomes = []
        for host in ("127.0.0.1", "::1"):
            try:
                async with server(silence, host) as port:
                    outcomes.append(await ask(parse_target(Probe("tcp"), port), 5))
                    outcomes.append(await ask(http(port, host="localhost"), 0.1))
            except OSError:
                assert host == "::1"  # a machine without IPv6
        return outcomes

    outcomes = run(main)
    assert all(outcome.healthy for outcome in outcomes[::2])
    assert all(outcome.note == "no answer within 0.1 s" for outcome in outcomes[1::2])


def test_a_shortage_of_our_own_is_no_verdict():
    async def main():
        async with server(says(OK)) as port:
            target = http(port)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
            hog = []
            try:
                try:
                    while True:
                        hog.append(os.dup(0))
                except OSError:
                    pass
                return await ask(target, 5)
            finally:
                for fd in hog:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert run(main) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://10.0.0.1/",
        "https://127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:²/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1@evil/",
        "http://[::2]/",
        "",
        "127.0.0.1",
    ],
)
def test_a_probe_never_leaves_the_machine(url):
    with pytest.raises(BotdError) as refused:
        parse_target(Probe("http", url=url), 1)
    assert refused.value.kind == "invalid"


def test_a_probe_of_a_port_that_the_bot_does_not_have():
    for probe in (Probe("tcp"), Probe("http", url="http://127.0.0.1:{port}/")):
        with pytest.raises(BotdError):
            parse_target(probe, None)
    target = parse_target(Probe("http", url="http://[::1]:{port}/x"), 4000)
    assert (target.port, target.addresses) == (4000, ((socket.AF_INET6, "::1"),))
    assert parse_target(Probe("http", url="http://localhost"), None).port == 80


def test_an_incomplete_head_is_awaited():
    assert parse_status(b"") == (None, False)
    assert parse_status(b"HTTP/1.1 20") == (None, False)
    assert parse_status(b"HTTP/1.1 200 OK\r\n") == (200, False)
    assert parse_status(b"HTTP/1.1 100 Continue\r\n\r\n") == (None, False)
    assert parse_status(b"HTTQ") == (None, True)


class Reports:
    """What a prober has reported; `wait(n)` for the n-th of it."""

    def __init__(self):
        self.all = []
        self._more = asyncio.Event()

    def __call__(self, id, generation, outcome):
        self.all.append((id, generation, outcome.healthy))
        self._more.set()

    async def wait(self, number):
        while len(self.all) < number:
            self._more.clear()
            await self._more.wait()
        return self.all


@asynccontextmanager
async def prober():
    reports = Reports()
    prober = Prober(Clock(), lambda: 0.5, reports)
    prober.reports = reports
    try:
        yield prober
    finally:
        await prober.close()
        assert not prober._running


def test_only_a_change_of_the_verdict_is_reported():
    status, asked = [b"200"], [0]

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        asked[0] += 1
        writer.write(b"HTTP/1.1 " + status[0] + b" x\r\n\r\n")

    async def main():
        async with server(answer) as port, prober() as p:
            p.watch("a/b", 7, Probe("http", url="http://127.0.0.1:{port}/", **QUICK), port)
            await p.reports.wait(1)
            await until(lambda: asked[0] >= 5)
            status[0] = b"500"
            await p.reports.wait(2)
            status[0] = b"200"
            return await p.reports.wait(3)

    assert run(main) == [("a/b", 7, True), ("a/b", 7, False), ("a/b", 7, True)]


def test_a_hanging_bot_holds_up_nobody():
    async def main():
        async with server(silence) as hanging, server(says(OK)) as well, prober() as p:
            for i in range(probes.SLOTS - 1):
                p.watch(f"slow/{i}", 1, Probe("http", url=f"http://127.0.0.1:{hanging}/", **QUICK), None)
            await until(lambda: len(p._running) == probes.SLOTS - 1)
            for i in range(20):
                p.watch(f"well/{i}", 1, Probe("http", url=f"http://127.0.0.1:{well}/", **QUICK), None)
            return await p.reports.wait(20)

    assert {report[0] for report in run(main)} == {f"well/{i}" for i in range(20)}


def test_no_more_than_the_slots_are_under_way_and_all_get_their_turn():
    async def main():
        async with server(silence) as port, prober() as p:
            most = 0
            quick = {**QUICK, "timeout_s": 0.2, "failures": 1}
            for i in range(3 * probes.SLOTS):
                p.watch(f"a/{i}", 1, Probe("http", url=f"http://127.0.0.1:{port}/", **quick), None)
            while len({report[0] for report in p.reports.all}) < 3 * probes.SLOTS:
                most = max(most, len(p._running))
                await asyncio.sleep(0.001)
            return most, p.reports.all

    most, reports = run(main)
    assert most == probes.SLOTS
    assert not any(healthy for _, _, healthy in reports)


def test_what_a_probe_finds_after_unwatch_is_discarded():
    asked, go = asyncio.Event(), asyncio.Event()

    async def answer(reader, writer):
        asked.set()
        await go.wait()
        writer.write(OK)

    async def main():
        async with server(answer) as port, server(says(OK)) as other, prober() as p:
            p.watch("a/b", 1, Probe("http", url=f"http://127.0.0.1:{port}/", **QUICK), None)
            await asked.wait()
            p.watch("a/b", 2, Probe("tcp", **QUICK), other)
            go.set()
            await p.reports.wait(1)
            p.unwatch("a/b")
            p.unwatch("a/b")
            p.watch("a/c", 1, Probe("tcp", **QUICK), other)
            return await p.reports.wait(2)

    assert run(main) == [("a/b", 2, True), ("a/c", 1, True)]


def test_lives_that_come_and_go_leave_nothing_in_the_heap():
    async def main():
        async with prober() as p:
            for generation in range(5000):
                p.watch("a/b", generation, Probe("tcp", interval_s=86400), 1)
            return len(p._heap)

    assert run(main) <= 2 + probes.SLOTS + 1


def test_a_report_that_raises_is_told_and_the_next_one_comes():
    told, reported = [], []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
        done = asyncio.Event()

        def report(id, generation, outcome):
            reported.append(id)
            if len(reported) == 2:
                done.set()
            raise RuntimeError("handler broken")

        async with server(says(OK)) as port:
            p = Prober(Clock(), lambda: 0.5, report)
            p.watch("a/b", 1, Probe("tcp", **QUICK), port)
            p.watch("a/c", 1, Probe("tcp", **QUICK), port)
            await done.wait()
            await until(lambda: len(told) >= 2)
            await p.close()

    run(main)
    assert sorted(reported) == ["a/b", "a/c"]
    assert [str(error) for error in told] == ["handler broken"] * 2
