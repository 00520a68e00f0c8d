"""What botd says to the keeper, and hears from it."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import TYPE_CHECKING, Any

from botd.keeper import wire
from botd.keeper.client.answers import WITHIN_S, Answers
from botd.keeper.client.connection import Connection
from botd.keeper.client.errors import KeeperBusy, KeeperError, KeeperLost
from botd.keeper.client.holding import Held, adoptions, hold, release
from botd.keeper.client.starting import START_WITHIN_S, start_keeper
from botd.keeper.client.watch import KeeperWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from botd.keeper.watchdog import Figures

    Message = dict[str, Any]

_AGAIN_S = 0.01


class KeeperClient:
    """One connection to the keeper of `home` at a time; all methods belong to the thread of one event loop.

    `on_messages` gets what arrived, in order, as a list (started, running, failed, refused, exited, forgotten, pong,
    error); `on_lost` is called when the connection ends without `close`, `quit` or a new connection. `respawn` ({argv,
    env, cwd}) is how the keeper starts botd again should it die; None: not at all. `containment` is "auto", "cgroup2"
    or "tree" and matters only to a keeper that is started here. `watch` are the figures of the watchdog, `on_watched`
    gets what either side saw of the other, in words.

    Methods that send raise KeeperLost when there is no connection (or none yet to which every life was handed over),
    KeeperError when QUEUE_LIMIT messages wait.
    """

    def __init__(
        self,
        home: str | os.PathLike[str],
        *,
        on_messages: Callable[[list[Message]], None],
        on_lost: Callable[[], None],
        respawn: Message | None = None,
        containment: str = "auto",
        watch: Figures | None = None,
        on_watched: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.home = os.path.abspath(home)
        self.path = os.path.join(self.home, "run", "keeper.sock")
        self.respawn = respawn
        self.containment = containment
        self.hello: Message = {}
        """What the keeper said of itself: pid, boot_id, containment, features, respawns, last_botd_exit."""
        self.held: dict[tuple[str, int], Held] = {}
        self.later: set[tuple[str, int]] = set()
        """Lives that the keeper could not look for yet, as of the last connection; what it finds it tells."""
        self.held_below = 1 << 30
        """A life whose descriptors have numbers from here on is not held: botd needs the rest for itself."""
        self._on_messages, self._on_lost = on_messages, on_lost
        self._connection: Connection | None = None
        self._answers = Answers()
        self._on_watched = on_watched
        self._watch = KeeperWatch(watch, self._beat, on_watched)
        self._states: list[Message] | None = None
        self._early: list[Message] = []

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def connect_or_start(self) -> list[Message]:
        """Connect, starting a keeper where none listens; every life the keeper knows, as `state` messages.

        Lives held from an earlier connection are handed over first. KeeperError when no keeper can be had.
        """
        deadline = monotonic() + START_WITHIN_S
        while True:
            asked_at = monotonic()
            try:
                return await self._greet()
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.to_thread(start_keeper, self.home, self.containment)
            except (KeeperLost, BlockingIOError, ConnectionError):
                # One that was silent until the watchdog ended it has not used up the time of the next one.
                deadline += monotonic() - asked_at
                await asyncio.sleep(_AGAIN_S)  # a keeper that is just ending, or just starting
            except OSError as error:
                raise KeeperError(f"{self.path}: {error.strerror or error}") from error
            if monotonic() > deadline:
                raise KeeperError(f"no keeper answered at {self.path} within {START_WITHIN_S:.0f} s")

    async def reconnect(self) -> list[Message]:
        """After `on_lost`: the next keeper gets all descriptors held here. Returns states like `connect_or_start`."""
        return await self.connect_or_start()

    def start(self, spec: Message) -> None:
        """Start one generation. `spec`: id, gen, argv, env, cwd, uid, gid, lock, log {dir, max_bytes, keep,
        max_age_s}, nofile.

        uid and gid are None for botd's own user, nofile (descriptors) None for what botd was started with.
        `limits`, where it is there: {memory, swap: bytes, pids: count, cpu: cores}, None for no limit.
        Answered by `started` and then `running`, or by `failed` or `refused`.
        """
        self._tell({**spec, "op": "start"})

    def stop(self, life_id: str, gen: int, signal: int, grace_s: float) -> None:
        """Send `signal` to the main process, SIGKILL the whole tree after `grace_s` seconds (0: at once)."""
        self._tell({"op": "stop", "id": life_id, "gen": gen, "signal": int(signal), "grace_s": grace_s})

    def signal(self, life_id: str, gen: int, signal: int) -> None:
        """Deliver a signal to the main process, nothing more."""
        self._tell({"op": "signal", "id": life_id, "gen": gen, "signal": int(signal)})

    def ack(self, life_id: str, gen: int) -> None:
        """The end of this life is recorded: the keeper forgets it, its descriptors are closed here."""
        self._tell({"op": "ack", "id": life_id, "gen": gen})
        release(self.held, (life_id, gen))

    def logs(self, life_id: str, max_bytes: int, keep: int, max_age_s: float = 0.0) -> None:
        """Change when the log files of a bot rotate (bytes; age of the first byte, 0: any) and how many stay."""
        self._tell({"op": "logs", "id": life_id, "max_bytes": max_bytes, "keep": keep, "max_age_s": max_age_s})

    def limits(self, life_id: str, gen: int, limits: Message) -> None:
        """Change what a live life may use: {memory, swap, pids, cpu}, as `start` has it. Answered by errors only."""
        self._tell({"op": "limits", "id": life_id, "gen": gen, "limits": limits})

    def forget(self, life_id: str, lock: str | None = None) -> None:
        """The bot is deleted: its generations and its lock file go. Answered by `forgotten` or `refused`."""
        self._tell({"op": "forget", "id": life_id, "lock": lock})

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

    def mend(self) -> None:
        """The home was removed: the keeper makes its own files again."""
        self._send({"op": "mend"})

    async def upgrade(self, argv: list[str]) -> None:
        """Put another program in the keeper's place, in the same process; KeeperError with the reason when it stays.

        The connection has ended then, as after any loss of it (`on_lost`); the next hello says who is there.
        """
        try:
            answer = await self._ask({"op": "upgrade", "argv": argv}, "not-upgraded")
        except KeeperLost:
            return
        raise KeeperError(str(answer.get("text")))

    def trial(self, within_s: float, respawn: Message | None, former: Message | None) -> None:
        """This process becomes another botd: it says hello within that time, or `former` is started again."""
        self._send({"op": "trial", "within_s": within_s, "respawn": respawn, "former": former})

    def bye(self) -> None:
        """botd goes away on purpose; the keeper does not bring it back."""
        self._send({"op": "bye"})

    def close(self) -> None:
        """Close the connection and everything held. The keeper and its bots go on."""
        self._disconnect()
        for key in list(self.held):
            release(self.held, key)

    async def _greet(self) -> list[Message]:
        """Say hello, hand over what is held, and get to know every life."""
        self._disconnect()
        self._connection = Connection(self.path, self._received, self._ended)
        self._states, self._early = [], []
        self._watch.begin(self._connection.pid)
        figures = list(self._watch.figures)
        hello = {
            "op": "hello",
            "version": wire.VERSION,
            "oldest": wire.OLDEST,
            "pid": os.getpid(),
            "respawn": self.respawn,
            "watch": figures,
        }
        try:
            # A silent one is the watchdog's business; it needs a little more than its patience.
            self.hello = await self._ask(hello, "hello", WITHIN_S + sum(figures))
            self._watch.greeted(beats=bool(self.hello.get("features", {}).get("beat")))
            for message, fds in adoptions(self.held):
                self._send(message, fds)
            synced = await self._ask({"op": "sync"}, "synced")
            self.later = {(life_id, gen) for life_id, gen in synced.get("later", ())}
        except (KeeperError, asyncio.CancelledError):
            self._disconnect()
            raise
        states, self._states = self._states, None
        if states is None:
            # It ended in the same turn of the loop, right behind its last word: nobody has been told of that.
            raise KeeperLost("the connection to the keeper ended")
        if self._early:
            asyncio.get_running_loop().call_soon(self._on_messages, self._early)
            self._early = []
        return states

    async def _ask(self, message: Message, answer: str, within_s: float = WITHIN_S) -> Message:
        """Send, and wait for the one message that answers."""
        try:
            return await self._answers.ask(answer, lambda: self._send(message), within_s)
        except TimeoutError:
            raise KeeperError(f"the keeper (pid {self.hello.get('pid', '?')}) does not answer") from None

    def _tell(self, message: Message) -> None:
        """Something about a life: not before every life was handed over and is known."""
        if self._states is not None:
            # The next keeper would look for its lives by itself, and would not wait for what is held here. Who reads
            # the states says it again, where it is still to be said.
            raise KeeperLost("the keeper does not know its lives yet")
        self._send(message)

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self._connection is None:
            raise KeeperLost("there is no connection to the keeper")
        self._watch.said = True
        self._connection.send(message, fds)

    def _beat(self) -> None:
        try:
            self._send({"op": "beat"})
        except KeeperError:
            return  # it does not read, or is gone: the silence that follows is what counts

    def _received(self, received: list[tuple[Message, list[int]]]) -> None:
        batch: list[Message] = []
        self._watch.dog.heard = True
        for message, fds in received:
            if fds or message.get("fds_lost"):
                hold(self.held, message, fds, self.held_below)
            name = message["op"]
            if name == "state" and self._states is not None:
                self._states.append(message)
            elif name == "beat":
                continue
            elif name == "watched":
                self._on_watched(str(message.get("text")))
            elif name in self._answers:
                self._answers.settle(name, message)
            elif name == "error" and message.get("about") == "upgrade" and "not-upgraded" in self._answers:
                self._answers.fail("not-upgraded", KeeperError(f"the keeper refused: {message.get('text')}"))
            elif name == "error" and message.get("about") == "hello" and "hello" in self._answers:
                self._answers.fail("hello", KeeperError(f"the keeper refused: {message.get('text')}"))
            else:
                batch.append(message)
        if self._states is not None:
            self._early += batch
        elif batch:
            self._on_messages(batch)

    def _ended(self) -> None:
        # Who is greeting, or asked it to leave, learns it from the answer that does not come.
        quietly = self._states is not None or "busy" in self._answers
        self._disconnect()
        if not quietly:
            self._on_lost()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.close()
        self._watch.end()
        self._states = None
        self._answers.fail_all(KeeperLost("the connection to the keeper ended"))
