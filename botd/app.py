"""The wiring: everything is built here, started in order, reloaded, and ended in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from botd import __version__, dump
from botd.config import changes, locate
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core import admission
from botd.core.admission import Refusal
from botd.core.events import Rebooted, StartRequested, StopRequested
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.mechanisms import WATCHED, mechanisms
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.engine import Engine
from botd.executor import Executor, check_startable
from botd.keeper import oom
from botd.keeper.client import KeeperBusy, KeeperClient, KeeperError
from botd.keeper.life import exit_words
from botd.keeper.watchdog import figures
from botd.logkeep import LogKeep
from botd.mending import Mender
from botd.reload import Configuration
from botd.server.dispatch import Dispatcher
from botd.server.listener import Listener, open_to
from botd.server.services import KeeperView, Services
from botd.server.table import HANDLERS
from botd.state.store import Store, StoredBot
from botd.storage import folders
from botd.succession import Inheritance, Program, own
from botd.system import lock
from botd.system.clock import Clock
from botd.system.machine import Machine
from botd.system.ports import choose_port
from botd.telemetry.latency import Latencies
from botd.telemetry.monitor import Monitor
from botd.upgrade import Successor, Takeover, Upgrade, execute
from botd.upkeep import Upkeep

log = logging.getLogger("botd")

KEEPER_RETRY_S = (0.0, 0.05, 0.2, 1.0, 5.0)
"""How long to wait before each attempt to get a keeper again; the last one goes on for ever."""

LOOP_FORGOTTEN_S = 60.0
"""A life of so many seconds ends the talk about the deaths before it."""

REGAIN_WITHIN_S = 20.0
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
        self._fleet = Fleet()
        self._latencies = Latencies()
        self._ending: asyncio.Event
        self._memory_checked: tuple[float, float] = (-1.0, 0.0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving = False
        self._regaining = False
        self._regain: asyncio.Task[Any] | None = None
        self._takeover = Takeover(paths, self._clock, heir)
        self.successor: Successor | None = None
        self.handed_over = (-1, -1)
        """The descriptors that go to the successor: lock, listening socket."""
        self._keeper = KeeperClient(
            paths.home,
            on_messages=lambda messages: self._executor.heard(messages),
            on_lost=self._keeper_lost,
            respawn=_respawn(paths, environ, config) if respawn else None,
            containment=environ.get("BOTD_CONTAINMENT", "auto"),
            watch=figures(environ.get("BOTD_WATCHDOG")),
            on_watched=self._watched,
        )
        self._mender = Mender(paths, self._clock)
        self._held: lock.InstanceLock
        self._store: Store
        self._engine: Engine
        self._executor: Executor
        self._logkeep: LogKeep
        self._monitor: Monitor
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
        began = self._began = self._clock.boottime()
        _raise_descriptor_limit()
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
        )
        self._logkeep = LogKeep(
            fleet=self._fleet,
            clock=self._clock,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            note=self._engine.note,
            locks=lambda: bool(self._keeper.hello.get("features", {}).get("log_lock")),
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
            rotated=self._logkeep.rotated,
        )
        self._monitor = Monitor(
            fleet=self._fleet,
            clock=self._clock,
            chance=random.random,
            settings=lambda: self._engine.settings,
            latencies=self._latencies,
            report=self._engine.happened,
            facts=self._facts,
            watched=self._looks,
            memory_percent=self._machine.memory_percent,
            tell=lambda text: self._engine.note(None, "memory", text),
        )
        self._config.follow(self._adopt_settings)
        upkeep = Upkeep(
            fleet=self._fleet,
            store=self._store,
            clock=self._clock,
            paths=self.paths,
            settings=lambda: self._engine.settings,
            inspect=self._mender.inspect,
        )
        self._engine.performer = self._executor
        self._engine.on_change += (self._monitor.changed, self._executor.changed)
        self._mender.engine, self._mender.executor = self._engine, self._executor
        self._mender.on_new, self._mender.put_back = self._monitor.adopt, self._put_back
        rebooted = self._load(stored)
        crash_point("botd-up-loaded")
        self._takeover.recording()
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
        self._monitor.start()
        self._engine.start()
        self._listener = Listener(self.paths, settings.security.socket_access, self._dispatcher(began))
        await self._listener.open(self._takeover.listener)
        crash_point("botd-up-listening")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn_task(self._config.reload_logged()))
        dump.install(self._describe)
        self._spawn_task(upkeep.run())
        self._spawn_task(self._mender.run())
        self._logkeep.start()
        text = f"botd {__version__} started (pid {os.getpid()}) with {len(self._fleet)} bots"
        if self._brought_back:
            hello = self._keeper.hello
            last = hello.get("said", "").partition("\n")[0] or exit_words(hello.get("last_botd_exit"))
            text += f", brought back by the keeper; the one before: {last}"
        self._engine.note(None, "daemon", text)
        if words := self._takeover.serves(self._fleet, self._keeper.hello):
            self._engine.note(None, "daemon", words)

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
            regained=self._regained,
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
            keeper=self._keeper_view,
            shut_down=self._shut_down,
            version=__version__,
            started_at=began,
            latencies=self._latencies,
            executor=self._executor,
            mechanisms=self._mechanisms,
            hello=lambda: self._keeper.hello,
            logs_removed=self._logkeep.removed,
            warnings=self._warnings,
            database=self._mender.view,
            repair=self._mender.repair,
            upgrade=upgrade.run,
            upgraded=self._takeover.view,
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

    def _facts(self, bot: Bot) -> Mapping[str, Any]:
        """What the keeper said of the current life of a bot."""
        held = self._keeper.held.get((bot.id, bot.state.generation))
        return held.facts if held is not None else {}

    def _looks(self) -> bool:
        """A limit of memory or processes holds only because botd looks."""
        found = self._mechanisms()
        return WATCHED in (found["memory"]["mode"], found["processes"]["mode"])

    def _mechanisms(self) -> dict[str, dict[str, str]]:
        return mechanisms(self._keeper.hello, sampling=self._engine.settings.monitoring.resource_monitoring)

    def _choose_port(self, chosen: set[int]) -> int:
        limits = self._engine.settings.limits
        taken = {bot.port for bot in self._fleet if bot.port is not None} | chosen
        port = choose_port(limits.port_first, limits.port_last, taken)
        chosen.add(port)
        return port

    def _keeper_view(self) -> KeeperView:
        hello = self._keeper.hello
        return {
            "pid": hello.get("pid"),
            "connected": self._keeper.connected,
            "containment": hello.get("containment", "unknown"),
            "respawns": hello.get("respawns", 0),
            "release": hello.get("release"),
            "features": hello.get("features", {}),
            "journal_damaged": hello.get("journal_damaged", 0),
        }

    def _describe(self) -> dict[str, object]:
        """For a dump: counts and states, no names of variables and no values of anybody."""
        return {
            "phases": dict(self._fleet.phases),
            "keeper": {**self._keeper_view(), "held": len(self._keeper.held), "regaining": self._regaining},
            "deferred": self._engine.deferred,
            "illegal_events": self._engine.illegal_events,
            "strays": len(self._executor.strays),
            "configuration": self._config.last_error or "as in its file",
            "descriptors": len(os.listdir("/proc/self/fd")),
            "warnings": self._warnings(),
        }

    def _warnings(self) -> list[dict[str, str]]:
        out = []
        if os.geteuid() == 0 and self._engine.settings.security.isolation == "none":
            out.append(
                {
                    "text": "botd runs as root and so do the bots (security.isolation is none)",
                    "remedy": "run botd as a user of its own",
                }
            )
        if not self._keeper.connected:
            out.append({"text": "the keeper is away; bots run on", "remedy": f"see {self.paths.run}/keeper.log"})
        if self._executor.strays:
            names = ", ".join(f"{stray.id} (pid {stray.pid})" for stray in self._executor.strays[:3])
            count = len(self._executor.strays)
            text = f"{count} process{'' if count == 1 else 'es'} of bots that are on no record: {names}"
            out.append({"text": text, "remedy": "botctl daemon repair, or end them with: botctl cleanup"})
        if (trouble := self._store.trouble) is not None:
            text = f"{trouble.message}; nothing can be changed, bots run on and are looked after"
            out.append({"text": text, "remedy": trouble.hint})
        elif self._engine.deferred:
            waiting = "1 event waits" if self._engine.deferred == 1 else f"{self._engine.deferred} events wait"
            text = f"{waiting} for the database, which cannot be written"
            out.append({"text": text, "remedy": f"free space on the file system of {self.paths.home}"})
        hello = self._keeper.hello
        if self._brought_back and hello.get("row", 0) >= 2 and self._clock.boottime() - self._began < LOOP_FORGOTTEN_S:
            said = hello.get("said", "").partition("\n")[0] or exit_words(hello.get("last_botd_exit"))
            text = f"botd has died {hello['row']} times in a row soon after its start; the last time: {said}"
            out.append({"text": text, "remedy": "botctl daemon logs"})
        if self._config.last_error:
            out.append(
                {
                    "text": f"the configuration was not reloaded: {self._config.last_error}",
                    "remedy": "botctl config check",
                }
            )
        return out

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
        changed = changes(before, after)
        if changed:
            words = ", ".join(f"{change.key}: {change.before} -> {change.after}" for change in changed)
            self._engine.note(None, "config", f"configuration reloaded: {words}")

    # --- the keeper goes and comes ----------------------------------------------------------------------

    def _keeper_lost(self) -> None:
        if not self._leaving and not self._regaining:
            log.warning("the connection to the keeper ended; bots run on; getting it back, or another one")
            self._regaining = True
            crash_point("botd-keeper-lost")
            self._regain = self._spawn_task(self._regain_keeper())

    async def _regained(self) -> None:
        """Until there is a keeper again, where it was just lost. TimeoutError."""
        if self._regain is not None:
            async with asyncio.timeout(REGAIN_WITHIN_S):
                await asyncio.shield(self._regain)

    async def _regain_keeper(self) -> None:
        """Until there is a keeper again. The next one may go as well, at any instant; one task sees to all of them."""
        attempt = 0
        while not self._leaving:
            await asyncio.sleep(KEEPER_RETRY_S[min(attempt, len(KEEPER_RETRY_S) - 1)])
            attempt += 1
            try:
                states = await self._keeper.reconnect()
                crash_point("botd-keeper-greeted")
                self._engine.happened(self._executor.reconcile(states))
                crash_point("botd-keeper-reconciled")
            except KeeperError as error:
                log.error("no keeper yet: %s", error)
            except Exception:
                # A fleet without a keeper starts nothing: whatever it was, the next try may do better.
                log.exception("no keeper yet")
            else:
                if self._keeper.connected:
                    break
        self._regaining = False
        if self._keeper.connected:
            self._engine.note(None, "keeper", f"connected to the keeper again (pid {self._keeper.hello.get('pid')})")

    def _watched(self, text: str) -> None:
        log.warning("%s", text)
        self._engine.note(None, "keeper", text)

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
            left = await self._stop_lives(timeout_s)
            if left == 0:
                self._leaving = True
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
        self._leaving = True
        if self.successor is not None:
            self.handed_over = (-1, self._listener.hand_over())
        await self._listener.close()
        crash_point("botd-down-deaf")
        for task in tuple(self._tasks):
            task.cancel()
        await self._logkeep.close()
        await self._monitor.close()
        await self._executor.drain()
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
        new = None if respawn is None else {**respawn, **_way(self.successor.program)}
        self._keeper.trial(self.successor.within_s, new, respawn)


def _suspended(bot: Bot) -> bool:
    """Whether it is wanted and down, or on its way there, only because an earlier botd ended with its bots."""
    state = bot.state
    return state.wanted and (state.phase == "stopped" or (state.phase == "stopping" and state.then == "stop"))


def _way(program: Program) -> dict[str, Any]:
    return {"argv": program.argv, "cwd": program.cwd}


def _respawn(paths: Paths, environ: Mapping[str, str], config: str | None) -> dict[str, Any]:
    """How the keeper brings botd back: the same program, with what of the environment it needs."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_STATE_HOME")
    env = {name: value for name, value in environ.items() if name in kept or name.startswith("BOTD_")}
    env["BOTD_RESPAWN"] = "1"
    if "BOTD_HOME" in env:
        env["BOTD_HOME"] = paths.home  # it may be relative, and botd is started elsewhere
    return {**_way(own(config)), "env": env}


def _raise_descriptor_limit() -> None:
    """Four descriptors a bot: a soft limit of 1024 would end at 250 bots."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            log.warning("the limit of descriptors stays at %d: %s", soft, error)


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
