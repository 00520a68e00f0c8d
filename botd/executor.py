"""Effects -> the keeper, and the keeper's words -> events. Also: what botd and the keeper must agree on after a gap."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core import caps, environment, restart
from botd.core.bot import BotState, Exit, Spec
from botd.core.effects import Acknowledge, Effect, Remove, Spawn, Terminate
from botd.core.events import Adopted, Event, Exited, Running, Spawned, SpawnFailed, SpawnRefused
from botd.core.fleet import Bot, Fleet
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.keeper.client import KeeperClient, KeeperError, KeeperLost
from botd.provision import Provisioner
from botd.recycling import Recycler
from botd.state.store import Store
from botd.storage import folders
from botd.system.clock import Clock

log = logging.getLogger("botd.executor")

Message = dict[str, Any]


class Stray(NamedTuple):
    """A life that runs and that no record knows."""

    id: str
    generation: int
    pid: int
    began: float
    """CLOCK_BOOTTIME, seconds."""


class Executor:
    """`report` takes events back to the engine; `rotated` hears of bots whose output was rotated. Nothing here decides
    anything about a bot.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Store,
        keeper: KeeperClient,
        paths: Paths,
        clock: Clock,
        environ: Mapping[str, str],
        settings: Callable[[], Settings],
        report: Callable[[list[tuple[str, Event]]], None],
        recycler: Recycler,
        provisioner: Provisioner,
        rotated: Callable[[str], None] = lambda bot_id: None,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._keeper = keeper
        self._paths = paths
        self._clock = clock
        self._environ = environ
        self._settings = settings
        self._report = report
        self._rotated = rotated
        self._recycler = recycler
        self._provisioner = provisioner
        self._awaited: dict[str, int] = {}
        """Lives that begin when the working folder of their bot is ready: id -> generation."""
        self._prepared: set[str] = set()
        self.strays: list[Stray] = []

    # --- effects ------------------------------------------------------------------------------------

    def perform(self, bot: Bot, effect: Effect) -> None:
        """Never raises: what cannot be done comes back as an event, or again at the next reconciliation."""
        try:
            match effect:
                case Spawn(generation):
                    self._spawn(bot, generation)
                    crash_point("botd-start-told")
                case Terminate(generation, name, grace_s):
                    if self._awaited.get(bot.id) == generation:
                        return  # the keeper has not heard of this life, and will not
                    self._keeper.stop(bot.id, generation, signal.Signals[name].value, grace_s)
                    crash_point("botd-stop-told")
                case Acknowledge(generation):
                    self._keeper.ack(bot.id, generation)
                    crash_point("botd-end-acknowledged")
                case Remove():
                    self._remove(bot)
        except KeeperLost:
            # `reconcile` says it again to the next keeper.
            log.debug("%s: %s waits for the keeper", bot.id, effect)
        except KeeperError as error:
            log.error("%s: %s: %s", bot.id, effect, error)

    def acknowledge(self, bot_id: str, generation: int) -> None:
        """The end of a life of a bot that is gone."""
        try:
            self._keeper.ack(bot_id, generation)
        except KeeperError as error:
            log.debug("%s: not acknowledged: %s", bot_id, error)

    def prepare(self, bot: Bot) -> None:
        """Make the folders of a new bot now, so that its starts find them. A failure is told at the start."""
        try:
            self._make_folders(bot)
        except BotdError as error:
            log.warning("%s: %s", bot.id, error.message)
            return
        if bot.spec.release is not None:
            self._provisioner.bring(bot.spec)

    def provision(self, bot: Bot) -> None:
        """Bring the working folder of a bot that is down to the release of its specification."""
        if bot.spec.release is not None and bot.state.phase not in _WITH_LIFE:
            self.prepare(bot)

    def _make_folders(self, bot: Bot) -> None:
        if bot.id not in self._prepared:
            self._recycler.settle(bot.id)
            folders.prepare(self._paths, bot.id)
            folders.touch(self._paths.bot_lock(bot.id))
            self._prepared.add(bot.id)

    def forget_folders(self) -> None:
        """The home was removed: what a bot needs is made again with its next start."""
        self._prepared.clear()

    def _spawn(self, bot: Bot, generation: int) -> None:
        """Raises KeeperError."""
        if bot.spec.release is None:
            self._tell_start(bot, generation)
            return
        if self._awaited.get(bot.id) == generation:
            return  # said again after a gap: it is on its way
        try:
            self._make_folders(bot)
        except BotdError as error:
            self._report_soon(bot, _not_spawned(generation, error))
            return
        self._awaited[bot.id] = generation
        spec = bot.spec
        self._provisioner.bring(spec).add_done_callback(lambda brought: self._provided(bot, generation, spec, brought))

    def _provided(self, bot: Bot, generation: int, spec: Spec, brought: asyncio.Future[BotdError | None]) -> None:
        """Its folder is ready, or cannot be made. Meanwhile anything may have happened to the bot."""
        if brought.cancelled() or self._awaited.get(bot.id) != generation:
            return
        del self._awaited[bot.id]
        state, error = bot.state, brought.result()
        if self._fleet.get(bot.id) is not bot or state.generation != generation or state.pid is not None:
            return
        if state.phase == "stopping":
            self._report([(bot.id, SpawnFailed(generation, "it was stopped before it was started", permanent=False))])
        elif state.phase == "starting" and error is not None:
            self._report([(bot.id, _not_spawned(generation, error))])
        elif state.phase == "starting":
            try:
                if (spec.template, spec.release) == (bot.spec.template, bot.spec.release):
                    self._tell_start(bot, generation)
                else:
                    self._spawn(bot, generation)
            except KeeperError as lost:
                # `reconcile` says it again to the next keeper.
                log.debug("%s: its start waits for the keeper: %s", bot.id, lost)

    def _report_soon(self, bot: Bot, event: Event) -> None:
        """Told later: the decision that led here is still being carried out."""
        told: list[tuple[str, Event]] = [(bot.id, event)]
        asyncio.get_running_loop().call_soon(self._report, told)

    def _tell_start(self, bot: Bot, generation: int) -> None:
        try:
            self._make_folders(bot)
            secrets = self._store.secrets(bot.id) if bot.spec.secret_names else {}
        except BotdError as error:
            self._report_soon(bot, _not_spawned(generation, error))
            return
        spec, output = bot.spec, self._settings().output
        data = self._paths.bot_data(bot.id)
        self._keeper.start(
            {
                "id": bot.id,
                "gen": generation,
                "argv": spec.command,
                "env": environment.build(spec, daemon=self._environ, secrets=secrets, data=data, port=bot.port),
                "cwd": spec.directory,
                "uid": None,
                "gid": None,
                "lock": self._paths.bot_lock(bot.id),
                "log": {
                    "dir": self._paths.bot_logs(bot.id),
                    "max_bytes": output.max_bytes,
                    "keep": output.keep,
                    "max_age_s": output.rotate_after_s,
                },
                "nofile": None,
                "stdin": None,
                "limits": caps.caps_of(spec, self._settings().limits).to_keeper(),
            }
        )

    def _remove(self, bot: Bot) -> None:
        self._prepared.discard(bot.id)
        self._awaited.pop(bot.id, None)
        self._provisioner.forget(bot.id)
        try:
            self._keeper.forget(bot.id, self._paths.bot_lock(bot.id))
            crash_point("botd-remove-told")
        finally:
            # At once, also without a keeper: a new bot of this id may be made in the next moment, with its own folders.
            self._recycler.bury(bot.id)

    def end_strays(self, grace_s: float = 10.0) -> list[Stray]:
        """Ask every life without a record to end; those asked."""
        asked = []
        for stray in self.strays:
            if stray.id not in self._fleet.bots:
                self._keeper.stop(stray.id, stray.generation, signal.SIGTERM, grace_s)
                asked.append(stray)
        self.strays = []
        return asked

    async def drain(self) -> None:
        """Wait for removals that were begun."""
        await self._recycler.drain()

    def output_changed(self) -> None:
        """Tell the keeper the limits of output that are in force now."""
        output = self._settings().output
        for bot in self._fleet:
            if bot.state.pid is not None:
                try:
                    self._keeper.logs(bot.id, output.max_bytes, output.keep, output.rotate_after_s or 0.0)
                except KeeperError:
                    return

    def limits_changed(self) -> None:
        """Give every life the limits that are in force now."""
        for bot in self._fleet:
            if bot.state.pid is not None and not self._limit(bot):
                return

    def changed(self, bot: Bot, before: BotState) -> None:
        """After each change of a bot's state or specification: a new specification limits also the life that runs."""
        if bot.state is before:
            if bot.state.pid is not None:
                self._limit(bot)
            self.provision(bot)
        elif bot.spec.release is not None and before.pid is not None and bot.state.phase in ("stopped", "failed"):
            self._provisioner.gather(bot.id)

    def _limit(self, bot: Bot) -> bool:
        """False when the keeper is away; `reconcile` says it again."""
        held = self._keeper.held.get((bot.id, bot.state.generation))
        if held is None or not held.facts.get("folders"):
            return True  # no controller holds it
        try:
            limits = caps.caps_of(bot.spec, self._settings().limits).to_keeper()
            self._keeper.limits(bot.id, bot.state.generation, limits)
        except KeeperError as error:
            log.debug("%s: its limits wait: %s", bot.id, error)
            return False
        return True

    # --- the keeper's words -------------------------------------------------------------------------

    def heard(self, messages: list[Message]) -> None:
        """What the keeper said, as events, all in one decision."""
        events: list[tuple[str, Event]] = []
        for message in messages:
            event = self._event(message)
            if event is not None:
                events.append((message["id"], event))
        if events:
            self._report(events)

    def _event(self, message: Message) -> Event | None:
        match message["op"]:
            case "started":
                bot = self._fleet.get(message["id"])
                if bot is not None and (bot.state.generation, bot.state.pid) == (message["gen"], message["pid"]):
                    return None  # it was found again
                return Spawned(message["gen"], message["pid"])
            case "running":
                return Running(message["gen"])
            case "failed":
                return self._failed(message)
            case "refused":
                if message.get("gen") is None:
                    log.warning("the keeper refused: %s", message.get("text"))
                    return None
                return SpawnRefused(message["gen"], message["text"], message.get("spent", 0))
            case "exited":
                return self._exited(message)
            case "forgotten" | "pong":
                return None
            case "rotated":
                self._rotated(message["id"])
                return None
            case _:
                log.warning("the keeper said: %s", message.get("text", message["op"]))
                return None

    def _failed(self, message: Message) -> SpawnFailed | SpawnRefused:
        number = message.get("errno")
        bot = self._fleet.get(message["id"])
        if number in _FULL and message["step"] in _OURS:
            # Nothing is wrong with the bot, and no number of attempts makes room. The life that never was is forgotten.
            self.acknowledge(message["id"], message["gen"])
            return SpawnRefused(message["gen"], f"{message['step']}: {message['text']}", message["gen"])
        if number in _SHORT and message["step"] in (*_OURS, *_ITS_OWN):
            self.acknowledge(message["id"], message["gen"])
            text = (
                f"the keeper is out of file descriptors ({message['step']}); it needs a higher LimitNOFILE or ulimit -n"
            )
            return SpawnRefused(message["gen"], text, message["gen"])
        subject = ""
        if bot is not None:
            subject = {"exec": f" {bot.spec.command[0]!r}", "chdir": f" {bot.spec.directory!r}"}.get(
                message["step"], ""
            )
        permanent = number is not None and restart.is_permanent(number)
        return SpawnFailed(message["gen"], f"{message['step']}{subject}: {message['text']}", permanent)

    def _exited(self, message: Message) -> Exited:
        held = self._keeper.held.get((message["id"], message["gen"]))
        bot = self._fleet.get(message["id"])
        at = message.get("at", {})
        began: float | None = None
        if held is not None and "at" in held.facts:
            began = held.facts["at"]["boottime"]
        elif bot is not None and bot.state.generation == message["gen"]:
            began = bot.state.started_at  # it ended while botd was away
        ran = max(0.0, at["boottime"] - began) if began is not None and "boottime" in at else 0.0
        exact = message.get("exact", True)
        code = message.get("code") if exact else None
        number = message.get("signal") if exact else None
        cause = note = ""
        oom = message.get("oom")
        if oom:
            spec, limit = None if bot is None else bot.spec, oom.get("limit_bytes")
            if limit is None and spec is not None:
                limit = caps.caps_of(spec, self._settings().limits).memory_bytes  # it was not the reason
            cause, note = "memory", caps.killed_for_memory(spec, oom.get("peak_bytes"), limit)
        refused = message.get("pids_refused") or 0
        ended = Exit(code, number, at.get("wall", self._clock.wall()), round(ran, 3), cause, note, refused)
        return Exited(message["gen"], ended)

    # --- after a gap ----------------------------------------------------------------------------------

    def reconcile(self, states: list[Message]) -> list[tuple[str, Event]]:
        """What the keeper knows against what we believe: the events that close the gap.

        Asks that may have been lost are said again. What runs without a record (a lost or older database) is not
        ended: it may be all that is left of somebody's bots.
        """
        events: list[tuple[str, Event]] = []
        known: set[str] = set()
        self.strays = []
        # By number: what this record does not know of a bot is told in the order in which it happened.
        for state in sorted(states, key=lambda state: (state["id"], state["gen"])):
            bot_id, generation = state["id"], state["gen"]
            bot = self._fleet.get(bot_id)
            if not state["live"]:
                if bot is not None and bot.state.generation == generation:
                    known.add(bot_id)
                events += self._ended(bot, state)
            elif bot is None:
                log.warning("%s: life %d (pid %d) is on no record", bot_id, generation, state["pid"])
                self.strays.append(Stray(bot_id, generation, state["pid"], self._began(state)))
            elif generation < bot.state.generation or (
                generation == bot.state.generation and bot.state.phase not in _WITH_LIFE
            ):
                log.warning("%s: life %d is over on record and ends", bot_id, generation)
                self._keeper.stop(bot_id, generation, signal.SIGKILL, 0.0)
            else:
                known.add(bot_id)
                events += self._resumed(bot, state)
        for bot in self._fleet:
            if (bot.id, bot.state.generation) in self._keeper.later:
                continue  # neither known to live nor to have ended: the keeper will tell
            if bot.id not in known and bot.state.phase in _WITH_LIFE:
                events += self._vanished(bot)
        return events

    def _began(self, state: Message) -> float:
        began: float = state.get("at", {}).get("boottime", self._clock.boottime())
        return began

    def _ended(self, bot: Bot | None, state: Message) -> list[tuple[str, Event]]:
        """A life that is over. One of a number that is not on record was begun while nothing could be recorded."""
        event = self._event(state["final"])
        if event is None:
            return []
        if bot is not None and state["gen"] > bot.state.generation and bot.state.wanted:
            if not isinstance(event, Exited):
                self.acknowledge(bot.id, state["gen"])
                return []
            pid = state["final"].get("pid", 0)
            return [(bot.id, Adopted(state["gen"], pid, self._clock.boottime() - event.exit.ran_s)), (bot.id, event)]
        return [(state["id"], event)]

    def _resumed(self, bot: Bot, state: Message) -> list[tuple[str, Event]]:
        generation = bot.state.generation
        events: list[tuple[str, Event]] = []
        if state["gen"] > generation:
            return [(bot.id, Adopted(state["gen"], state["pid"], self._began(state)))]
        if bot.state.phase == "starting" or (bot.state.phase == "stopping" and bot.state.pid is None):
            events.append((bot.id, Spawned(generation, state["pid"])))
            if state.get("running"):
                events.append((bot.id, Running(generation)))
        if state.get("limits") != caps.caps_of(bot.spec, self._settings().limits).to_keeper():
            self._limit(bot)
        if bot.state.phase == "stopping":
            left = bot.spec.stop_grace_s - (self._clock.boottime() - bot.state.since)
            self._keeper.stop(bot.id, generation, signal.Signals[bot.spec.stop_signal].value, max(0.0, left))
        return events

    def _vanished(self, bot: Bot) -> list[tuple[str, Event]]:
        generation = bot.state.generation
        if bot.state.phase == "starting" and bot.state.pid is None:
            # The keeper never got the ask, or it was lost with the keeper: the same life may still begin.
            self._spawn(bot, generation)
            return []
        if bot.state.pid is None:
            # Asked to end before the keeper had begun it.
            return [(bot.id, SpawnFailed(generation, "it was stopped before it was started", permanent=False))]
        ran = self._clock.boottime() - bot.state.started_at if bot.state.started_at is not None else 0.0
        return [(bot.id, Exited(generation, Exit(None, None, self._clock.wall(), max(0.0, round(ran, 3)))))]


def _not_spawned(generation: int, error: BotdError) -> SpawnFailed | SpawnRefused:
    """What keeps a life from its folder or its secrets: the machine (then it is tried again soon), or a fault."""
    if error.kind == "unavailable":
        return SpawnRefused(generation, error.message)
    return SpawnFailed(generation, error.message, permanent=error.kind in ("not_found", "invalid", "conflict"))


_WITH_LIFE = ("starting", "running", "stopping")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORT = (errno.EMFILE, errno.ENFILE)
_ITS_OWN = ("descriptors", "fork", "identify")
"""The steps of a start in which the keeper needs descriptors."""
_OURS = ("journal", "logs", "lock", "containment")
"""The steps of a start that write to our own files."""


def check_startable(directory: str) -> None:
    """Refuse a working folder that is missing or closed to us, before anything is recorded."""
    try:
        found = os.stat(directory)
    except OSError as error:
        raise BotdError(
            "invalid",
            f"directory {directory!r}: {os.strerror(error.errno or 0)}",
            hint="make it, or name another with --directory",
        ) from None
    if not os.path.isdir(directory):
        raise BotdError(
            "invalid", f"directory {directory!r} is no folder (mode {found.st_mode:o})", hint="name its folder"
        )
    if not os.access(directory, os.X_OK, effective_ids=True):
        raise BotdError(
            "invalid", f"directory {directory!r}: permission denied for botd", hint="chmod it, or run botd as its owner"
        )
