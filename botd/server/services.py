"""What the handlers may use, put together by `app`. The engine is known by what it offers, not by its class."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from botd.contract.paths import Paths
from botd.core.admission import Refusal
from botd.core.bot import ChangedBot, NewBot
from botd.core.events import Event
from botd.core.fleet import Bot, Fleet
from botd.core.goals import Goal, Outcome
from botd.core.ledger import Figure
from botd.core.quota import Big, Level, Shared, Usage
from botd.core.roll import Options
from botd.core.settings import Settings
from botd.state.store import StoredEvent

if TYPE_CHECKING:
    from botd.catalogue import Catalogue
    from botd.executor import Executor
    from botd.provision import Provisioner
    from botd.recycling import Recycler
    from botd.state.batch import Batch
    from botd.state.store import Store
    from botd.sweeping import Sweeper
    from botd.system.clock import Clock
    from botd.system.machine import Machine
    from botd.telemetry.latency import Latencies
    from botd.telemetry.monitor import Monitor


class Waiting(Protocol):
    async def wait(self, timeout_s: float) -> None: ...
    def cancel(self) -> None: ...


class Engine(Protocol):
    """What a handler may ask of the engine: events in, and waiting for what comes of them."""

    fleet: Fleet
    settings: Settings
    on_event: list[Callable[[StoredEvent], None]]

    def admission(self, user: str) -> Refusal | None: ...
    def request(self, events: Iterable[tuple[str, Event]]) -> None: ...
    def watch(self, goal: Goal, since: dict[str, int], tell: Callable[[str, Outcome], None]) -> Waiting: ...
    def admit(self, new: Sequence[NewBot], leaving: Collection[str] = ()) -> None: ...
    def create(self, new: Sequence[NewBot]) -> list[Bot]: ...
    def restore(
        self,
        one: NewBot,
        created_at_wall: float,
        text: str,
        also: Callable[[Batch], None],
        settle: Callable[[], None],
    ) -> Bot: ...
    def change(self, changes: Sequence[ChangedBot]) -> None: ...
    def note(self, bot_id: str | None, kind: str, text: str) -> None: ...
    @property
    def deferred(self) -> int: ...


class Configuration(Protocol):
    """Where the configuration in force came from, and the way to read it again."""

    source: str
    loaded_at_wall: float
    last_error: str

    async def reload(self) -> dict[str, Any]: ...


class Rolling(Protocol):
    """Rolls: bots of a template on their way to another release. A roll travels as `botd.roll_view` makes it."""

    def begin(self, template: str, target: str, options: Options, *, at_once: bool = False) -> dict[str, Any]: ...
    def abort(self, template: str, why: str, *, keep_done: bool = False) -> dict[str, Any]: ...
    def refuse_open(self, template: str) -> None: ...
    def needed(self) -> dict[tuple[str, str], str]: ...
    def views(self, template: str | None = None) -> list[dict[str, Any]]: ...
    async def follow(self, template: str, tell: Callable[[dict[str, Any]], None]) -> None: ...


class Storage(Protocol):
    """Who has how much on disk, as it is kept."""

    def of_bot(self, bot_id: str) -> Figure | None: ...
    def of_user(self, user: str) -> int: ...
    def level(self, user: str) -> Level: ...
    def biggest(self, bots: Collection[str], count: int = 3) -> list[Big]: ...
    async def refresh(self, bots: Iterable[str]) -> None: ...
    async def verify(self) -> Sequence[tuple[str, Usage, Usage]]: ...


class KeeperView(TypedDict):
    """What the daemon knows of its keeper."""

    pid: int | None
    connected: bool
    containment: str
    respawns: int
    release: str | None
    features: dict[str, bool]
    journal_damaged: int
    """Lines that this keeper could not read when it began."""


@dataclass(slots=True)
class Services:
    engine: Engine
    store: Store
    check_startable: Callable[[str], None]
    choose_port: Callable[[set[int]], int]
    """A port that is free and not in the given set, the ports that the same call has chosen already; it joins them."""
    monitor: Monitor
    clock: Clock
    paths: Paths
    config: Configuration
    machine: Machine
    keeper: Callable[[], KeeperView]
    shut_down: Callable[[bool, float], Awaitable[int]]
    """(bots too?, timeout in seconds) -> how many bots were left running; botd ends once this was answered."""
    version: str
    started_at: float
    latencies: Latencies
    executor: Executor
    trash: Recycler
    sweeper: Sweeper
    upgrade: Callable[[str | None, float], Awaitable[dict[str, Any]]]
    """(interpreter or None for the same, seconds within which the new botd has to serve) -> what is about to happen."""
    upgraded: Callable[[], dict[str, Any] | None]
    """How the last upgrade went, or None."""
    database: Callable[[], dict[str, Any]]
    """How the database is, for people."""
    repair: Callable[[bool], Awaitable[dict[str, Any]]]
    """(only look?) -> what was found, done and lost."""
    mechanisms: Callable[[], dict[str, dict[str, str]]]
    """By what each limit holds, see `core.mechanisms`."""
    usage: Storage
    shared: Callable[[Bot], Shared | None]
    """The release that a bot links to."""
    hello: Callable[[], Mapping[str, Any]]
    """What the keeper said of itself when it was met."""
    catalogue: Catalogue
    provisioner: Provisioner
    rolling: Rolling
    logs_removed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By user: files and bytes of logs that budgets and age have taken since botd started."""
    warnings: Callable[[], list[dict[str, str]]] = field(default=list)

    @property
    def fleet(self) -> Fleet:
        return self.engine.fleet

    @property
    def settings(self) -> Settings:
        return self.engine.settings
