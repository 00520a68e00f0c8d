"""Asking bots whether they are well: HTTP and TCP on loopback, many at once, none waiting for another.

Mechanism only: when to ask and what an answer means is decided by `core.health`. Due times stand in one heap with one
timer; a bot that does not answer holds one of SLOTS until its own timeout and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import socket
import time
from collections.abc import Callable
from itertools import count

from botd.contract.errors import invalid
from botd.core import health
from botd.core.bot import Probe
from botd.core.health import Outcome, ProbeState, interval
from botd.system import descriptors
from botd.system.clock import Clock

SLOTS = 64
"""Probes under way at once (fewer where descriptors are short). The rest waits for a free slot: late, never failed."""
READ_MAX = 4096
"""Bytes of an answer that are looked at."""

SLEPT_S = 5.0
"""A machine that was suspended for longer has its probes spread again."""

Address = tuple[socket.AddressFamily, str]
_V4: Address = (socket.AF_INET, "127.0.0.1")
_V6: Address = (socket.AF_INET6, "::1")
# "localhost" is both: Node listens on ::1 where Python listens on 127.0.0.1.
_HOSTS = {"127.0.0.1": (_V4,), "[::1]": (_V6,), "localhost": (_V4, _V6)}

# Shortages of our own say nothing about the bot.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
_RETRY_S = 1.0


class Target:
    """Where a probe goes: loopback addresses in order, a port, and the request to send (None: only connect)."""

    __slots__ = ("addresses", "port", "request")

    def __init__(self, addresses: tuple[Address, ...], port: int, request: bytes | None) -> None:
        self.addresses = addresses
        self.port = port
        self.request = request


class _Watch:
    __slots__ = ("generation", "id", "probe", "state", "target")

    def __init__(self, id: str, generation: int, probe: Probe, target: Target, state: ProbeState) -> None:
        self.id = id
        self.generation = generation
        self.probe = probe
        self.target = target
        self.state = state


class Prober:
    """Probes every watched life when it is due and reports each change of its verdict.

    `chance` gives numbers from 0 to 1 (random.random). `report(id, generation, outcome)` is called in the event loop,
    only when a life turns healthy or unhealthy. All methods belong to the event loop's thread.
    """

    def __init__(self, clock: Clock, chance: Callable[[], float], report: Callable[[str, int, Outcome], None]) -> None:
        self._clock = clock
        self._chance = chance
        self._report = report
        self._watches: dict[str, _Watch] = {}
        self._heap: list[tuple[float, int, _Watch]] = []
        self._order = count()
        self._running: dict[asyncio.Task[None], _Watch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._asleep_s = self._suspended()
        self._slots = min(SLOTS, descriptors.current().probes)

    def watch(self, id: str, generation: int, probe: Probe, port: int | None) -> None:
        """Probe this life of a bot from now on, in place of any earlier one. `port` is the bot's own (PORT).

        BotdError(invalid) for a probe that leads nowhere or off this machine.
        """
        target = parse_target(probe, port)
        state = health.first(probe, generation, self._clock.boottime(), self._chance())
        self.unwatch(id)
        watch = self._watches[id] = _Watch(id, generation, probe, target, state)
        self._push(watch, state.due_at)

    def unwatch(self, id: str) -> None:
        """Forget a bot; what a probe under way will find is discarded. Nothing happens when it is not watched."""
        gone = self._watches.pop(id, None)
        if gone is None:
            return
        for task, watch in self._running.items():
            if watch is gone:
                task.cancel()
        # What was forgotten would otherwise lie in the heap until it is due, which may be a day.
        if len(self._heap) > 2 * len(self._watches) + SLOTS:
            self._heap = [entry for entry in self._heap if self._is_current(entry[2])]
            heapq.heapify(self._heap)

    async def close(self) -> None:
        """Forget every bot and end what is under way."""
        self._watches.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_current(self, watch: _Watch) -> bool:
        return self._watches.get(watch.id) is watch

    def _push(self, watch: _Watch, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._order), watch))
        self._arm()

    def _arm(self) -> None:
        """Have the timer go off when the first probe is due; without a free slot the next free one does it."""
        if not self._heap or len(self._running) >= self._slots:
            return
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        delay = max(0.0, due - self._clock.boottime())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _suspended(self) -> float:
        """Seconds that the machine has slept since it booted."""
        return self._clock.boottime() - time.monotonic()

    def _spread(self, now: float) -> None:
        """The machine was suspended and everything is due at once: each within its interval, as after a start."""
        self._heap = [
            (now + self._chance() * interval(watch.probe) if due < now else due, order, watch)
            for due, order, watch in self._heap
            if self._is_current(watch)
        ]
        heapq.heapify(self._heap)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.boottime()
        asleep = self._suspended()
        if asleep - self._asleep_s > SLEPT_S:
            self._spread(now)
        self._asleep_s = asleep
        while self._heap and self._heap[0][0] <= now and len(self._running) < self._slots:
            watch = heapq.heappop(self._heap)[2]
            if self._is_current(watch):
                task = asyncio.get_running_loop().create_task(self._ask(watch))
                self._running[task] = watch
                task.add_done_callback(self._finished)
        self._arm()

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a probe's result could not be handled", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
        self._arm()

    async def _ask(self, watch: _Watch) -> None:
        # `unwatch` cancels: whoever comes past here is still watched.
        outcome = await ask(watch.target, watch.probe.timeout_s)
        now = self._clock.boottime()
        if outcome is None:
            self._push(watch, now + min(_RETRY_S, interval(watch.probe)))
            return
        watch.state, news = health.judge(watch.probe, watch.state, outcome, now, self._chance())
        self._push(watch, watch.state.due_at)
        if news is not None:
            self._report(watch.id, watch.generation, outcome)


async def ask(target: Target, timeout_s: float) -> Outcome | None:
    """One probe. None when this process was short of something, which is no verdict on the bot."""
    try:
        async with asyncio.timeout(timeout_s):
            with await _connect(target) as sock:
                if target.request is None:
                    return Outcome(True, f"port {target.port} accepts connections")
                return await _get(sock, target.request)
    except TimeoutError:
        return Outcome(False, f"no answer within {timeout_s:g} s")
    except ConnectionRefusedError:
        return Outcome(False, f"connection refused on port {target.port}")
    except OSError as error:
        if error.errno in _OURS:
            return None
        return Outcome(False, (error.strerror or str(error)).lower())


async def _connect(target: Target) -> socket.socket:
    """A connection to the first address that takes one. The caller closes it."""
    refused: OSError | None = None
    for family, host in target.addresses:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            refused = error
            continue
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, target.port))
            if sock.getsockname() == sock.getpeername():
                # A port of the ephemeral range that nobody listens on can be connected to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
        except (ConnectionRefusedError, PermissionError) as error:
            sock.close()
            refused = refused or error
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRNOTAVAIL, errno.ENETUNREACH) or family != socket.AF_INET6:
                raise
            refused = refused or error  # a machine without IPv6
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert refused is not None
    raise refused


async def _get(sock: socket.socket, request: bytes) -> Outcome:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    head, status = b"", None
    while len(head) < READ_MAX:
        piece = await loop.sock_recv(sock, READ_MAX - len(head))
        if not piece:
            break
        head += piece
        status, complete = parse_status(head)
        if complete:
            break
    if not head:
        return Outcome(False, "the connection was closed without an answer")
    if status is None:
        return Outcome(False, "the answer is not HTTP")
    return Outcome(200 <= status < 400, f"HTTP {status}")


def parse_status(head: bytes) -> tuple[int | None, bool]:
    """The beginning of an answer -> its status (None: none yet, or no HTTP) and whether its headers are complete.

    Interim answers (1xx) are passed over.
    """
    while True:
        line, newline, _ = head.partition(b"\n")
        if not newline:
            return None, not b"HTTP/1.".startswith(head[:7])
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
            return None, True
        status = int(words[1])
        ends = [end for end in (head.find(b"\r\n\r\n"), head.find(b"\n\n")) if end >= 0]
        if not 100 <= status < 200:
            return status, bool(ends)
        if not ends:
            return None, False
        head = head[min(ends) :].lstrip(b"\r\n")


def parse_target(probe: Probe, port: int | None) -> Target:
    """Where a probe goes. BotdError(invalid) when that is not a port on loopback."""
    if probe.kind == "tcp":
        number = probe.port if probe.port is not None else port
        if number is None:
            raise invalid("probe.port", "is missing, and the bot has no port of its own", hint="add port = true")
        return Target((_V4, _V6), number, None)
    url = probe.url or ""
    if "{port}" in url:
        if port is None:
            raise invalid("probe.url", "names {port}, and the bot has no port of its own", hint="add port = true")
        url = url.replace("{port}", str(port))
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if authority.startswith("["):
        host, bracket, tail = authority.partition("]")
        host += bracket
    else:
        host, colon, tail = authority.partition(":")
        tail = colon + tail
    digits = tail.removeprefix(":") if tail else "80"
    if scheme != "http" or host not in _HOSTS or not digits.isascii() or not digits.isdigit():
        raise _nowhere(url)
    number = int(digits)
    if not 0 < number < 65536:
        raise _nowhere(url)
    return Target(_HOSTS[host], number, _request(f"{host}:{number}", slash + path))


def _request(host: str, path: str) -> bytes:
    path = path.partition("#")[0] or "/"
    # Whatever could end the request line early is written as the percent escape that it should have been.
    escaped = b"".join(
        bytes((byte,)) if 0x20 < byte < 0x7F else b"%%%02X" % byte for byte in path.encode("utf-8", "surrogateescape")
    )
    return b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: botd-probe/1\r\nAccept: */*\r\nConnection: close\r\n\r\n" % (
        escaped,
        host.encode("ascii"),
    )


def _nowhere(url: str) -> Exception:
    return invalid(
        "probe.url", f"{url!r} is no address on this machine", hint="for example http://127.0.0.1:{port}/health"
    )
