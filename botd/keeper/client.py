"""botd's end of the keeper's socket, for asyncio: connect (starting a keeper where none is), talk, hand over.

    client = KeeperClient(home, on_messages=..., on_lost=..., respawn={"argv": [...], "env": {...}, "cwd": "/"})
    states = await client.connect_or_start()
    client.start({"id": "alice/shop", "gen": 7, "argv": [...], ...})

botd holds duplicates of every bot's descriptors (`held`). When the keeper dies, the output waits in the pipes and the
exit statuses in the pidfds, and `reconnect` hands them to the next keeper.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from botd.keeper import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Message = dict[str, Any]

QUEUE_LIMIT = 20_000
"""Messages that may wait for a keeper that does not read; more is an error, not memory."""

PACKETS_PER_CALLBACK = 256
_ANSWER_WITHIN_S = 15.0
_START_WITHIN_S = 15.0
_AGAIN_S = 0.01
_TAKEN = 75


class KeeperError(Exception):
    """The keeper cannot be had; the text says why."""


class KeeperLost(KeeperError):
    """There is no connection; `reconnect` brings it back. What was sent may or may not have been done."""


class KeeperBusy(KeeperError):
    """The keeper does not end while bots live. args: how many."""


class Held:
    """Descriptors of one life, by name (pidfd, out, err), and the facts that came with them."""

    __slots__ = ("facts", "fds")

    def __init__(self, facts: Message, fds: dict[str, int]) -> None:
        self.facts, self.fds = facts, fds

    @property
    def pidfd(self) -> int | None:
        return self.fds.get("pidfd")

    @property
    def out(self) -> int | None:
        return self.fds.get("out")

    @property
    def err(self) -> int | None:
        return self.fds.get("err")

    def close(self) -> None:
        wire.close_all(list(self.fds.values()))
        self.fds = {}


class KeeperClient:
    """One connection to the keeper of `home` at a time; all methods belong to the thread of one event loop.

    `on_messages` gets what arrived, in order, as a list (started, running, failed, refused, exited, forgotten, pong,
    error); `on_lost` is called when the connection ends without `close`, `quit` or a new connection. `respawn` ({argv,
    env, cwd}) is how the keeper starts botd again should it die; None: not at all. `containment` is "auto", "cgroup2"
    or "tree" and matters only to a keeper that is started here.

    Methods that send raise KeeperLost when there is no connection, KeeperError when QUEUE_LIMIT messages wait.
    """

    def __init__(
        self,
        home: str | os.PathLike[str],
        *,
        on_messages: Callable[[list[Message]], None],
        on_lost: Callable[[], None],
        respawn: Message | None = None,
        containment: str = "auto",
    ) -> None:
        self.home = os.path.abspath(home)
        self.path = os.path.join(self.home, "run", "keeper.sock")
        self.respawn = respawn
        self.containment = containment
        self.hello: Message = {}
        """What the keeper said of itself: pid, boot_id, containment, features, respawns, last_botd_exit."""
        self.held: dict[tuple[str, int], Held] = {}
        self._on_messages, self._on_lost = on_messages, on_lost
        self._sock: Any = None
        self._fd = -1
        self._buffer = bytearray(wire.PACKET_LIMIT)
        self._queue: deque[tuple[Message, Sequence[int]]] = deque()
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._states: list[Message] | None = None
        self._early: list[Message] = []

    @property
    def connected(self) -> bool:
        return self._sock is not None

    async def connect_or_start(self) -> list[Message]:
        """Connect, starting a keeper where none listens; every life the keeper knows, as `state` messages.

        Lives held from an earlier connection are handed over first. KeeperError when no keeper can be had.
        """
        deadline = monotonic() + _START_WITHIN_S
        while True:
            try:
                return await self._greet()
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.to_thread(start_keeper, self.home, self.containment)
            except (KeeperLost, BlockingIOError, ConnectionError):
                await asyncio.sleep(_AGAIN_S)  # a keeper that is just ending, or just starting
            except OSError as error:
                raise KeeperError(f"{self.path}: {error.strerror or error}") from error
            if monotonic() > deadline:
                raise KeeperError(f"no keeper answered at {self.path} within {_START_WITHIN_S:.0f} s")

    async def reconnect(self) -> list[Message]:
        """After `on_lost`: the next keeper gets all descriptors held here. Returns states like `connect_or_start`."""
        return await self.connect_or_start()

    def start(self, spec: Message) -> None:
        """Start one generation. `spec`: id, gen, argv, env, cwd, uid, gid, lock, log {dir, max_bytes, keep}, nofile.

        uid and gid are None for botd's own user, nofile (descriptors) None for what botd was started with.
        Answered by `started` and then `running`, or by `failed` or `refused`.
        """
        self._send({**spec, "op": "start"})

    def stop(self, life_id: str, gen: int, signal: int, grace_s: float) -> None:
        """Send `signal` to the main process, SIGKILL the whole tree after `grace_s` seconds (0: at once)."""
        self._send({"op": "stop", "id": life_id, "gen": gen, "signal": int(signal), "grace_s": grace_s})

    def signal(self, life_id: str, gen: int, signal: int) -> None:
        """Deliver a signal to the main process, nothing more."""
        self._send({"op": "signal", "id": life_id, "gen": gen, "signal": int(signal)})

    def ack(self, life_id: str, gen: int) -> None:
        """The end of this life is recorded: the keeper forgets it, its descriptors are closed here."""
        self._send({"op": "ack", "id": life_id, "gen": gen})
        held = self.held.pop((life_id, gen), None)
        if held is not None:
            held.close()

    def logs(self, life_id: str, max_bytes: int, keep: int) -> None:
        """Change when the log files of a bot rotate and how many rotated ones stay."""
        self._send({"op": "logs", "id": life_id, "max_bytes": max_bytes, "keep": keep})

    def forget(self, life_id: str, lock: str | None = None) -> None:
        """The bot is deleted: its generations and its lock file go. Answered by `forgotten` or `refused`."""
        self._send({"op": "forget", "id": life_id, "lock": lock})

    async def ping(self) -> Message:
        """The keeper now: pid, version, live, unacknowledged, waiting, journal_damaged, containment."""
        return await self._ask({"op": "ping"}, "pong")

    async def quit(self) -> None:
        """End the keeper. KeeperBusy when bots live."""
        try:
            answer = await self._ask({"op": "quit"}, "busy")
        except KeeperLost:
            return  # it ended, as asked
        raise KeeperBusy(answer["live"])

    def bye(self) -> None:
        """botd goes away on purpose; the keeper does not bring it back."""
        self._send({"op": "bye"})

    def close(self) -> None:
        """Close the connection and everything held. The keeper and its bots go on."""
        self._disconnect()
        for held in self.held.values():
            held.close()
        self.held.clear()

    async def _greet(self) -> list[Message]:
        self._disconnect()
        self._sock = wire.connect(self.path)
        self._fd = self._sock.fileno()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self._states, self._early = [], []
        hello = {"op": "hello", "version": wire.VERSION, "pid": os.getpid(), "respawn": self.respawn}
        try:
            self.hello = await self._ask(hello, "hello")
            for (life_id, gen), held in self.held.items():
                names = list(held.fds)
                if "pidfd" in names:
                    adopt = {**held.facts, "op": "adopt", "id": life_id, "gen": gen, "fds": names}
                    self._send(adopt, list(held.fds.values()))
            await self._ask({"op": "sync"}, "synced")
        except (KeeperError, asyncio.CancelledError):
            self._disconnect()
            raise
        states, self._states = self._states, None
        if self._early:
            asyncio.get_running_loop().call_soon(self._on_messages, self._early)
            self._early = []
        return states

    async def _ask(self, message: Message, answer: str) -> Message:
        """Send, and wait for the one message that answers."""
        future = self._answers.get(answer)
        if future is None:
            future = self._answers[answer] = asyncio.get_running_loop().create_future()
            self._send(message)
        try:
            return await asyncio.wait_for(asyncio.shield(future), _ANSWER_WITHIN_S)
        except TimeoutError:
            self._answers.pop(answer, None)
            raise KeeperError(f"the keeper (pid {self.hello.get('pid', '?')}) does not answer") from None

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self._sock is None:
            raise KeeperLost("there is no connection to the keeper")
        if self._queue:
            if len(self._queue) >= QUEUE_LIMIT:
                raise KeeperError(f"the keeper does not read; {QUEUE_LIMIT} messages wait for it already")
            self._queue.append((message, fds))
            return
        try:
            wire.send(self._sock, message, fds)
        except BlockingIOError:
            self._queue.append((message, fds))
            asyncio.get_running_loop().add_writer(self._fd, self._writable)
        except OSError as error:
            if not isinstance(error, ConnectionError):
                raise
            # The reader sees the end too, after what the keeper still said.
            raise KeeperLost("the connection to the keeper ended") from error

    def _writable(self) -> None:
        try:
            while self._queue:
                wire.send(self._sock, *self._queue[0])
                self._queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._queue.clear()  # the reader takes care of the rest
        asyncio.get_running_loop().remove_writer(self._fd)

    def _readable(self) -> None:
        batch: list[Message] = []
        ended = False
        for _ in range(PACKETS_PER_CALLBACK):
            try:
                got = wire.receive(self._sock, self._buffer)
            except BlockingIOError:
                break
            except wire.WireError as error:
                batch.append({"op": "error", "text": f"the keeper sent {error}"})
                continue
            except OSError:
                got = None
            if got is None:
                ended = True
                break
            self._take(*got, batch)
        if batch:
            if self._states is None:
                self._on_messages(batch)
            else:
                self._early += batch
        if ended:
            self._lost()

    def _take(self, message: Message, fds: list[int], batch: list[Message]) -> None:
        name = message["op"]
        if fds:
            self._hold(message, fds)
        if name == "state" and self._states is not None:
            self._states.append(message)
        elif name in self._answers:
            future = self._answers.pop(name)
            if not future.done():
                future.set_result(message)
        elif name == "error" and message.get("about") == "hello" and "hello" in self._answers:
            self._answers.pop("hello").set_exception(KeeperError(f"the keeper refused: {message.get('text')}"))
        else:
            batch.append(message)

    def _hold(self, message: Message, fds: list[int]) -> None:
        key = (message.get("id"), message.get("gen"))
        names = message.get("fds")
        if not isinstance(key[0], str) or not isinstance(key[1], int):
            wire.close_all(fds)
            return
        if not isinstance(names, list) or len(names) != len(fds):
            wire.close_all(fds)
            return
        facts = {k: v for k, v in message.items() if k not in ("op", "live", "running", "fds")}
        former = self.held.get((key[0], key[1]))
        if former is not None:
            former.close()
        self.held[key[0], key[1]] = Held(facts, dict(zip(names, fds, strict=True)))

    def _lost(self) -> None:
        quietly = bool(self._states is not None or "busy" in self._answers)
        self._disconnect()
        if not quietly:
            self._on_lost()

    def _disconnect(self) -> None:
        if self._sock is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        self._sock.close()
        self._sock, self._fd = None, -1
        self._queue.clear()
        self._states = None
        answers, self._answers = self._answers, {}
        for future in answers.values():
            if not future.done():
                future.set_exception(KeeperLost("the connection to the keeper ended"))
                future.exception()  # seen, also where nobody waits any more


def start_keeper(home: str, containment: str = "auto", *, environ: dict[str, str] | None = None) -> None:
    """Start a keeper for `home` that is nobody's child, and return when it listens (blocking, some 50 ms).

    Another one that is there already is as good. KeeperError when it could not start.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    # -I -S: nothing of the user's environment or of site-packages gets into it, and it starts in a third of the time.
    command = [sys.executable, "-I", "-S", "-X", "utf8", program]
    arguments = ["--home", home, "--containment", containment, "--detach"]
    env = {"PATH": os.defpath} if environ is None else environ
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_START_WITHIN_S,
            env=env,
            cwd="/",
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeeperError(f"the keeper could not be started: {error}") from error
    if done.returncode not in (0, _TAKEN):
        words = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise KeeperError(words or f"the keeper ended with status {done.returncode} at its start")
