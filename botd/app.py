"""The wiring: everything is built here, started in order, reloaded, and ended in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from botd import __version__, dump
from botd.catalogue import Catalogue
from botd.condition import Condition
from botd.config import changes, locate
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core import admission
from botd.core.admission import Refusal
from botd.core.events import Rebooted, StartRequested, StopRequested
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.quota import Shared
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.engine import Engine
from botd.executor import Executor, check_startable
from botd.keeper import oom
from botd.keeper.client import KeeperBusy, KeeperClient, KeeperError
from botd.keeper.watchdog import figures
from botd.logkeep import LogKeep
from botd.mending import Mender
from botd.provision import Provisioner
from botd.recycling import Recycler
from botd.reload import Configuration
from botd.rolling import Rolling
from botd.server.crowd import Crowd
from botd.server.dispatch import Dispatcher
from botd.server.listener import Listener, open_to
from botd.server.services import Services
from botd.server.table import HANDLERS
from botd.state.store import Store, StoredBot
from botd.storage import folders
from botd.storage.sharing import Releases
from botd.succession import Inheritance, recipe, way
from botd.sweeping import Sweeper
from botd.system import descriptors, lock
from botd.system.clock import Clock
from botd.system.machine import Machine
from botd.system.ports import choose_port
from botd.telemetry.latency import Latencies
from botd.telemetry.monitor import Monitor
from botd.tie import Tie
from botd.upgrade import Successor, Takeover, Upgrade, execute
from botd.upkeep import Upkeep
from botd.usage import UsageKeep

log = logging.getLogger("botd")

MEMORY_FRESH_S = 0.5
"""For how long a reading of the machine's memory admits or refuses starts."""


class Daemon:
    """One botd. `run` returns when it was asked to end; bots run on under the keeper."""

    def __init__(
        self,
        paths: Paths,
        environ: Mapping[str, str],
        config: str | None,
        *,
        respawn: bool,
        brought_back: bool = False,
        heir: Inheritance | None = None,
    ) -> None:
        self.paths = paths
        self._config_option = config
        self._environ = environ
        self._brought_back = brought_back
        self._clock = Clock()
        good = os.path.join(paths.run, "config.good.json")
        self._config = Configuration(locate(environ, paths, config), self._clock, good, brought_back=brought_back)
        self._machine = Machine()
        self._releases = Releases(paths)
        self._fleet = Fleet()
        self._latencies = Latencies()
        self._ending: asyncio.Event
        self._memory_checked: tuple[float, float] = (-1.0, 0.0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tie = Tie(
            reconcile=lambda states: self._engine.happened(self._executor.reconcile(states)),
            note=lambda text: self._engine.note(None, "keeper", text),
        )
        self._takeover = Takeover(paths, self._clock, heir)
        self.successor: Successor | None = None
        self.handed_over = (-1, -1)
        """The descriptors that go to the successor: lock, listening socket."""
        self._keeper = KeeperClient(
            paths.home,
            on_messages=lambda messages: self._executor.heard(messages),
            on_lost=self._tie.lost,
            respawn=recipe(paths.home, environ, config) if respawn else None,
            containment=environ.get("BOTD_CONTAINMENT", "auto"),
            watch=figures(environ.get("BOTD_WATCHDOG")),
            on_watched=self._tie.watched,
        )
        self._tie.keeper = self._keeper
        self._mender = Mender(paths, self._clock)
        self._held: lock.InstanceLock
        self._store: Store
        self._engine: Engine
        self._recycler: Recycler
        self._sweeper: Sweeper
        self._catalogue: Catalogue
        self._provisioner: Provisioner
        self._rolling: Rolling
        self._executor: Executor
        self._condition: Condition
        self._logkeep: LogKeep
        self._monitor: Monitor
        self._usage: UsageKeep
        self._listener: Listener

    async def run(self, ready: Callable[[], None]) -> None:
        """Start, call `ready`, serve until asked to end. Raises BotdError when it cannot start."""
        self._ending = asyncio.Event()
        folders.prepare_home(self.paths)
        self._held = lock.acquire(self.paths, self._clock, self._takeover.lock)
        crash_point("botd-up-locked")
        try:
            await self._start()
            try:
                ready()
                log.info("botd %s serves %s with %d bots", __version__, self.paths.socket, len(self._fleet))
                await self._ending.wait()
            finally:
                await self._stop()
        finally:
            if self.successor is None:
                self._held.release()
            else:
                self.handed_over = (self._held.fd, self.handed_over[1])

    # --- start --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        began = self._clock.boottime()
        self._keeper.held_below = descriptors.raise_limit().held_below
        oom.assume(oom.BOTD)
        settings = await self._config.first()
        self._takeover.former_schema()
        self._store, stored = self._mender.open()
        self._engine = Engine(
            fleet=self._fleet,
            store=self._store,
            clock=self._clock,
            boot_id=self._clock.boot_id(),
            chance=random.random,
            settings=settings,
            may_start=self._may_start,
            quota=lambda user: self._usage.refusal(user),
        )
        self._logkeep = LogKeep(
            fleet=self._fleet,
            clock=self._clock,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            note=self._engine.note,
            locks=lambda: bool(self._keeper.hello.get("features", {}).get("log_lock")),
        )
        self._recycler = Recycler(
            store=lambda: self._store,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            size_of=lambda bot_id: self._usage.size_of(bot_id),
            sized=lambda user: self._usage.weighed(user),
        )
        self._recycler.load()
        self._engine.forget = self._recycler.enter
        self._catalogue = Catalogue(self._store, self.paths)
        self._provisioner = Provisioner(
            paths=self.paths,
            links=lambda: self._engine.settings.cleaning.use_symbolic_links,
            note=lambda bot_id, text: self._engine.note(bot_id, "folder", text),
            brought=lambda bot_id: self._usage.look(bot_id),
        )
        self._executor = Executor(
            fleet=self._fleet,
            store=self._store,
            keeper=self._keeper,
            paths=self.paths,
            clock=self._clock,
            environ=self._environ,
            settings=lambda: self._engine.settings,
            report=self._engine.happened,
            recycler=self._recycler,
            provisioner=self._provisioner,
            rotated=self._logkeep.rotated,
        )
        self._condition = condition = Condition(
            fleet=self._fleet,
            engine=self._engine,
            executor=self._executor,
            store=self._store,
            keeper=self._keeper,
            config=self._config,
            paths=self.paths,
            clock=self._clock,
            began=began,
            brought_back=self._brought_back,
            mending=lambda: self._tie.mending,
            over_quota=lambda: self._usage.over(),
        )
        self._monitor = Monitor(
            fleet=self._fleet,
            clock=self._clock,
            chance=random.random,
            settings=lambda: self._engine.settings,
            latencies=self._latencies,
            report=self._engine.happened,
            facts=condition.facts,
            watched=condition.watches,
            memory_percent=self._machine.memory_percent,
            tell=lambda text: self._engine.note(None, "memory", text),
        )
        self._usage = UsageKeep(
            fleet=self._fleet,
            store=lambda: self._store,
            clock=self._clock,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            pids=self._monitor.pids_of,
            report=self._engine.happened,
            note=self._engine.note,
            deleted=self._recycler.bytes_of,
        )
        self._config.follow(self._adopt_settings)
        self._sweeper = Sweeper(
            fleet=self._fleet,
            store=self._store,
            clock=self._clock,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            recycler=self._recycler,
            strays=lambda: [stray.id for stray in self._executor.strays],
            pinned=lambda: [(name, release, why) for (name, release), why in self._rolling.needed().items()],
        )
        upkeep = Upkeep(
            store=self._store,
            clock=self._clock,
            sweeper=self._sweeper,
            settings=lambda: self._engine.settings,
            inspect=self._mender.inspect,
        )
        self._rolling = Rolling(
            engine=self._engine,
            store=self._store,
            clock=self._clock,
            catalogue=self._catalogue,
            choose_port=self._choose_port,
        )
        self._engine.performer = self._executor
        self._engine.on_change += (self._monitor.changed, self._executor.changed, self._usage.changed)
        self._engine.on_removed.append(self._usage.removed)
        self._mender.engine, self._mender.executor = self._engine, self._executor
        self._mender.on_new, self._mender.put_back = self._monitor.adopt, self._put_back
        self._mender.on_mended = self._reload_trash
        rebooted = self._load(stored)
        self._usage.load()
        crash_point("botd-up-loaded")
        self._takeover.recording()
        self._recycler.finish(self._fleet.bots.__contains__)
        try:
            states = await self._keeper.connect_or_start()
        except KeeperError as error:
            raise BotdError("unavailable", f"no keeper: {error}", hint=f"see {self.paths.run}/keeper.log") from None
        crash_point("botd-up-greeted")
        self._mender.believe(self._fleet, states)
        self._engine.happened([(bot_id, Rebooted()) for bot_id in rebooted])
        waiting = self._mender.uncertain
        suspended = [bot for bot in self._fleet if _suspended(bot) and bot.id not in waiting]
        # Those on their way down first: what reconciling tells of their ends would else be the end of the wish, too.
        self._engine.happened([(bot.id, StartRequested()) for bot in suspended if bot.state.phase == "stopping"])
        self._engine.happened(self._executor.reconcile(states))
        crash_point("botd-up-reconciled")
        self._engine.happened([(bot.id, StartRequested()) for bot in suspended if bot.state.phase == "stopped"])
        for bot in self._fleet:
            self._monitor.adopt(bot)
            self._executor.provision(bot)
        self._monitor.start()
        self._engine.start()
        self._rolling.resume()
        crowd = Crowd(descriptors.current().connections)
        self._listener = Listener(self.paths, settings.security.socket_access, self._dispatcher(began), crowd)
        await self._listener.open(self._takeover.listener)
        crash_point("botd-up-listening")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn_task(self._config.reload_logged()))
        dump.install(condition.describe)
        self._spawn_task(upkeep.run())
        self._spawn_task(self._mender.run())
        self._logkeep.start()
        self._usage.start()
        self._spawn_task(self._weigh_trash())
        text = f"botd {__version__} started (pid {os.getpid()}) with {len(self._fleet)} bots"
        if self._brought_back:
            text += f", brought back by the keeper; the one before: {condition.last_end()}"
        self._engine.note(None, "daemon", text)
        if words := self._takeover.serves(self._fleet, self._keeper.hello):
            self._engine.note(None, "daemon", words)

    async def _weigh_trash(self) -> None:
        await self._recycler.measured(self._recycler.kept())

    def _load(self, bots: list[StoredBot]) -> list[str]:
        """Every bot on record into the fleet; the ids of those whose state is of another boot."""
        boot_id = self._clock.boot_id()
        rebooted = []
        for stored in bots:
            self._fleet.add(
                Bot(
                    stored.spec, stored.state, rules_of(stored.spec), stored.created_at_wall, stored.port, stored.source
                )
            )
            if stored.boot_id not in ("", boot_id):
                rebooted.append(stored.spec.id)
        return rebooted

    def _dispatcher(self, began: float) -> Dispatcher:
        upgrade = Upgrade(
            paths=self.paths,
            config=self._config_option,
            environ=self._environ,
            fleet=self._fleet,
            store=lambda: self._store,
            keeper=self._keeper,
            regained=self._tie.mended,
            leave=self._leave,
        )
        services = Services(
            engine=self._engine,
            store=self._store,
            monitor=self._monitor,
            clock=self._clock,
            paths=self.paths,
            config=self._config,
            check_startable=check_startable,
            choose_port=self._choose_port,
            machine=self._machine,
            keeper=self._condition.keeper,
            shut_down=self._shut_down,
            version=__version__,
            started_at=began,
            latencies=self._latencies,
            executor=self._executor,
            trash=self._recycler,
            sweeper=self._sweeper,
            mechanisms=self._condition.mechanisms,
            hello=lambda: self._keeper.hello,
            logs_removed=self._logkeep.removed,
            usage=self._usage,
            shared=self._shared,
            warnings=self._condition.warnings,
            database=self._mender.view,
            repair=self._mender.repair,
            upgrade=upgrade.run,
            upgraded=self._takeover.view,
            catalogue=self._catalogue,
            provisioner=self._provisioner,
            rolling=self._rolling,
        )
        return Dispatcher(services, HANDLERS)

    # --- what the parts ask of the whole --------------------------------------------------------------

    def _may_start(self) -> Refusal | None:
        now = self._clock.boottime()
        checked_at, percent = self._memory_checked
        if now - checked_at > MEMORY_FRESH_S:
            percent = self._machine.memory_percent()
            self._memory_checked = (now, percent)
        return admission.admit_start(self._engine.settings.limits, percent)

    def _shared(self, bot: Bot) -> Shared | None:
        if bot.spec.template is None or bot.spec.release is None:
            return None
        return self._releases.size(bot.spec.template, bot.spec.release)

    def _choose_port(self, chosen: set[int]) -> int:
        limits = self._engine.settings.limits
        taken = {bot.port for bot in self._fleet if bot.port is not None} | chosen
        port = choose_port(limits.port_first, limits.port_last, taken)
        chosen.add(port)
        return port

    async def _put_back(self) -> None:
        """Somebody removed the home under us, or a socket: bots can only be stopped through one."""
        if not self._held.stands_at(self.paths.daemon_lock):
            log.error("%s was removed while botd runs; what belongs there is made again", self.paths.run)
            folders.prepare_home(self.paths)
            self._executor.forget_folders()
            self._held.acquire(self.paths.home, os.getpid(), self._clock.wall())
            if self._keeper.connected:
                self._keeper.mend()
        if await self._listener.mend():
            open_to(self.paths, self._engine.settings.security.socket_access)
            log.warning("%s was removed; it is made again", self.paths.socket)

    def _reload_trash(self) -> None:
        """The database can be trusted again; what it knows of deletions may be less or older than what we knew."""
        self._recycler.load()
        self._recycler.finish(self._fleet.bots.__contains__)

    # --- configuration --------------------------------------------------------------------------------

    def _adopt_settings(self, before: Settings, after: Settings) -> None:
        """A reload: everything that depends on a setting follows it, no bot is touched."""
        if after.security.socket_access != before.security.socket_access:
            open_to(self.paths, after.security.socket_access)
        self._engine.settings = after
        if after.monitoring != before.monitoring:
            self._monitor.settings_changed()
        if after.output != before.output:
            self._executor.output_changed()
            self._logkeep.settings_changed()
        if after.limits != before.limits:
            self._executor.limits_changed()
            self._usage.settings_changed()
        changed = changes(before, after)
        if changed:
            words = ", ".join(f"{change.key}: {change.before} -> {change.after}" for change in changed)
            self._engine.note(None, "config", f"configuration reloaded: {words}")

    def _spawn_task(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- the end ------------------------------------------------------------------------------------------

    async def _shut_down(self, bots: bool, timeout_s: float) -> int:
        """Asked over the socket. With `bots`: everything stops as at a shutdown of the machine, desire untouched."""
        crash_point("botd-down-asked")
        left = sum(bot.state.pid is not None for bot in self._fleet)
        if bots:
            self._rolling.close()  # that all bots are stopped now says nothing about a release
            left = await self._stop_lives(timeout_s)
        # Without a life, or one on its way, there is nothing that a keeper could keep.
        if left == 0 and (bots or not any(bot.state.phase in _WITH_A_LIFE for bot in self._fleet)):
            self._tie.leaving = True
            try:
                await self._keeper.quit()
            except (KeeperBusy, KeeperError) as error:
                log.warning("the keeper stays: %s", error)
        asyncio.get_running_loop().call_soon(self._ending.set)
        return left

    def _leave(self, successor: Successor) -> None:
        """End once this was answered, in favour of another program in this process."""
        self.successor = successor
        asyncio.get_running_loop().call_soon(self._ending.set)

    async def _stop_lives(self, timeout_s: float) -> int:
        """End every life; what its owner wants stays on record, so that the next start brings it back."""
        alive = [bot for bot in self._fleet if bot.state.phase not in ("stopped", "failed")]
        since = {bot.id: bot.state.generation for bot in alive}
        watch = self._engine.watch("stopped", since, lambda bot_id, outcome: None)
        self._engine.suspend([(bot.id, StopRequested("stopped with botd")) for bot in alive])
        await watch.wait(timeout_s)
        return sum(bot.state.pid is not None for bot in self._fleet)

    async def _stop(self) -> None:
        self._tie.cut()
        if self.successor is not None:
            self.handed_over = (-1, self._listener.hand_over())
        await self._listener.close()
        crash_point("botd-down-deaf")
        for task in tuple(self._tasks):
            task.cancel()
        self._rolling.close()
        await self._logkeep.close()
        await self._usage.close()
        await self._monitor.close()
        await self._executor.drain()
        await self._provisioner.close()
        if self._keeper.connected:
            try:
                self._farewell()
            except KeeperError:
                log.debug("the keeper was gone already")
        self._keeper.close()
        crash_point("botd-down-parted")
        self._mender.keep_copy()
        self._store.close()
        crash_point("botd-down-closed")
        running = sum(bot.state.pid is not None for bot in self._fleet)
        log.info("botd ends; %d bots run on", running)

    def _farewell(self) -> None:
        if self.successor is None:
            self._keeper.bye()
            return
        respawn = self._keeper.respawn
        new = None if respawn is None else {**respawn, **way(self.successor.program)}
        self._keeper.trial(self.successor.within_s, new, respawn)


_WITH_A_LIFE = ("starting", "running", "stopping")


def _suspended(bot: Bot) -> bool:
    """Whether it is wanted and down, or on its way there, only because an earlier botd ended with its bots."""
    state = bot.state
    return state.wanted and (state.phase == "stopped" or (state.phase == "stopping" and state.then == "stop"))


def serve(
    paths: Paths,
    config: str | None,
    *,
    respawn: bool,
    brought_back: bool,
    ready: Callable[[], None],
    heir: Inheritance | None = None,
) -> None:
    """Run a daemon until it is asked to end, or until another program takes its place. Raises BotdError."""
    dump.early()
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(format="%(asctime)sZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    daemon = Daemon(paths, dict(os.environ), config, respawn=respawn, brought_back=brought_back, heir=heir)
    asyncio.run(daemon.run(ready))
    if daemon.successor is not None:
        execute(daemon.successor, paths, *daemon.handed_over, respawn=respawn)
