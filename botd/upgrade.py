"""Replacing botd and the keeper under a running fleet: asked by the one, finished by the next.

    preflight  the new program as a child: all its modules, the configuration, a copy of the database
    keeper     replaced in its process, after a rehearsal of its own; back by itself when that fails
    botd       lets go of the database, and executes the new program in its own process

Until the last step nothing has changed for botd. From then on succession.py says who goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from botd import __version__, succession
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.contract.vocabulary import Exit
from botd.core.fleet import Fleet
from botd.crash import armed, crash_point
from botd.keeper import wire
from botd.keeper.client import KeeperClient, KeeperError
from botd.state.connection import restore_former, schema_of
from botd.state.errors import StoreError
from botd.state.schema import MIGRATIONS
from botd.state.store import Store
from botd.succession import Inheritance, Program
from botd.system.clock import Clock, rfc3339

PREFLIGHT_S = 60.0
WORDS_MAX = 1000


class Successor(NamedTuple):
    """The program to execute when this botd has let go of everything."""

    program: Program
    record: dict[str, Any]
    within_s: float


class Upgrade:
    """`leave` ends this botd in favour of a successor, `regained` waits until there is a keeper again."""

    def __init__(
        self,
        *,
        paths: Paths,
        config: str | None,
        environ: Mapping[str, str],
        fleet: Fleet,
        store: Callable[[], Store],
        keeper: KeeperClient,
        regained: Callable[[], Awaitable[None]],
        leave: Callable[[Successor], None],
    ) -> None:
        self._paths, self._config, self._environ = paths, config, environ
        self._fleet, self._store, self._keeper = fleet, store, keeper
        self._regained, self._leave = regained, leave
        self._running = False

    async def run(self, python: str | None, timeout_s: float) -> dict[str, Any]:
        """Do all of it but the last step, which follows the answer. BotdError: this botd goes on, and says why."""
        if self._running:
            raise BotdError("conflict", "an upgrade is under way already", hint="botctl daemon status")
        self._running = True
        try:
            facts = await self._preflight(_interpreter(python))
            crash_point("botd-upgrade-preflighted")
            await self._replace_keeper(facts)
            crash_point("botd-upgrade-keeper-replaced")
            former, new = succession.own(self._config), _program(facts, self._config)
            pids = {bot.id: bot.state.pid for bot in self._fleet if bot.state.pid is not None}
            record = succession.begin(former, new, len(MIGRATIONS), pids)
            try:
                succession.write(succession.record_path(self._paths.run), record)
            except OSError as error:
                raise _not_begun(f"{self._paths.run}/upgrade.json: {error.strerror}", "free some space") from None
            crash_point("botd-upgrade-recorded")
        except BaseException:
            self._running = False
            raise
        self._leave(Successor(new, record, timeout_s))
        return {
            "id": record["id"],
            "from": former.version,
            "to": new.version,
            "python": new.python,
            "pid": os.getpid(),
            "keeper": {"pid": self._keeper.hello.get("pid"), "release": self._keeper.hello.get("release")},
            "bots": len(pids),
        }

    async def _preflight(self, python: str) -> dict[str, Any]:
        """What the new program says of itself, once it has shown that it would do."""
        folder = f"{self._paths.run}/preflight"
        hello = self._keeper.hello
        oldest, newest = hello.get("speaks") or [hello.get("version", wire.VERSION)] * 2
        command = [python, "-P", "-m", "botd", "preflight", "--home", self._paths.home]
        command += ["--database", f"{folder}/botd.db", "--protocol", f"{oldest}-{newest}"]
        command += ["--config", self._config] if self._config else []
        await asyncio.to_thread(shutil.rmtree, folder, True)
        try:
            os.mkdir(folder, 0o700)
            self._store().snapshot(f"{folder}/botd.db")
            status, said, complaints = await _finished(command, self._environ)
        except OSError as error:
            raise _not_begun(f"{error.filename or python}: {error.strerror}", "--python names an interpreter") from None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        words = complaints.decode("utf-8", "replace").strip()[-WORDS_MAX:]
        if status:
            hint = words.partition("\n  try: ")[2]
            reason = words.partition("\n  try: ")[0].rpartition("\n")[2].removeprefix("botd: ")
            raise _not_begun(reason or f"its preflight ended with status {status}", hint)
        try:
            facts = json.loads(said)
            ok = all(isinstance(facts[name], str) for name in ("version", "python", "packages", "keeper"))
        except (ValueError, TypeError, KeyError):
            ok = False
        if not ok:
            raise _not_begun(f"{python} -m botd preflight said what nobody understands")
        return dict(facts)

    async def _replace_keeper(self, facts: dict[str, Any]) -> None:
        stays = "the keeper stays as it is, and so does botd"
        try:
            await self._keeper.upgrade([facts["python"], "-I", "-S", "-X", "utf8", facts["keeper"]])
            await self._regained()
        except (KeeperError, TimeoutError) as error:
            raise _not_begun(f"{stays}: {error or 'it does not answer'}", "see run/keeper.log") from None
        hello = self._keeper.hello
        if hello.get("release") != facts["version"]:
            why = hello.get("handover_error") or f"it is of version {hello.get('release')}"
            raise _not_begun(f"{stays}: {why}", "see run/keeper.log")


class Takeover:
    """The start of a botd that may be the next one of an upgrade, or the former one of an upgrade that failed."""

    def __init__(self, paths: Paths, clock: Clock, heir: Inheritance | None) -> None:
        self._paths, self._clock, self._heir = paths, clock, heir
        self._path = succession.record_path(paths.run)
        self._record = succession.read(self._path)
        self._restored = False

    @property
    def lock(self) -> int:
        return -1 if self._heir is None else self._heir.lock

    @property
    def listener(self) -> int:
        return -1 if self._heir is None else self._heir.listener

    def former_schema(self) -> None:
        """Before the database is opened: where a newer botd migrated it and never recorded anything, undo that."""
        record, known = self._record, len(MIGRATIONS)
        if record is None or record["state"] != "trial" or record["from"].get("database") != known:
            return
        try:
            found = schema_of(self._paths.database)
        except StoreError:
            return  # who opens it has the words
        if found > known:
            restore_former(self._paths.database, known)
            self._restored = True

    def recording(self) -> None:
        """From here on things are recorded: there is no way back to a former schema."""
        crash_point("botd-upgrade-opened")
        if self._record is not None and self._record["state"] == "trial" and self._is_next():
            self._note(state="recording")
        crash_point("botd-upgrade-recording")

    def serves(self, fleet: Fleet, hello: Mapping[str, Any]) -> str:
        """This botd serves: the outcome of the upgrade, in words for the history; empty when there was none."""
        record = self._record
        if self._heir is not None:
            self._heir.served = True
        if record is None or record["state"] not in ("trial", "recording"):
            return ""
        former, new = record["from"].get("version"), record["to"].get("version")
        if not self._is_next():
            reason = record.get("reason") or hello.get("fallback") or "it ended before it served"
            if not record.get("reason") and (log := succession.tail(self._paths.daemon_log)):
                reason += f"; the log: {log}"
            self._note(state="failed", reason=reason)
            return f"the upgrade from {former} to {new} failed: {reason}"
        pids = record.get("pids", {})
        here = {bot.id: bot.state.pid for bot in fleet}
        untouched = sum(here.get(bot_id) == pid for bot_id, pid in pids.items())
        absent = round(max(0.0, self._clock.boottime() - record.get("left", 0.0)), 3)
        self._note(state="done", absent_s=absent, untouched=untouched)
        return f"upgraded from {former} to {new} in {absent:g} s; {untouched} of {len(pids)} bots untouched"

    def view(self) -> dict[str, Any] | None:
        """The last upgrade, for showing."""
        record = self._record
        if record is None:
            return None
        return {
            "id": record.get("id"),
            "state": record["state"],
            "at": rfc3339(record.get("at", 0.0)),
            "from": record["from"].get("version"),
            "to": record["to"].get("version"),
            "reason": record.get("reason", ""),
            "absent_s": record.get("absent_s"),
            "untouched": record.get("untouched"),
            "bots": len(record.get("pids", ())),
        }

    def _is_next(self) -> bool:
        assert self._record is not None
        returned = self._restored or (self._heir is not None and self._heir.returned)
        return not returned and succession.is_own(self._record["to"])

    def _note(self, **changes: Any) -> None:
        assert self._record is not None
        self._record |= changes
        with contextlib.suppress(OSError):  # a full disk: it is shown all the same
            succession.write(self._path, self._record)


def execute(successor: Successor, paths: Paths, lock: int, listener: int, *, respawn: bool) -> NoReturn:
    """Become the new botd; where it cannot even be executed, become this one again.

    `respawn`: whether the keeper brings botd back, which the next one could not tell from its parent.
    """
    crash_point("botd-upgrade-left")
    former = successor.record["from"]
    path = succession.record_path(paths.run)
    left = {"lock": lock, "listener": listener, "record": path}
    # Relative ones mean something else where the new one is started.
    names = ("BOTD_HOME", "BOTD_SOCKET", "BOTD_CONFIG")
    absolute = {name: os.path.abspath(os.environ[name]) for name in names if os.environ.get(name)} | armed()
    absolute["BOTD_RESPAWN"] = "1" if respawn else "0"
    program = successor.program
    try:
        succession.execute(program.argv, program.cwd, {**left, "former": former}, absolute)
    except OSError as error:
        succession.note(path, reason=f"{program.python}: {error.strerror}")
        succession.execute(former["argv"], former["cwd"], {**left, "returned": True}, absolute)


def _interpreter(python: str | None) -> str:
    if python is None:
        return sys.executable
    if not python.startswith("/"):
        raise BotdError("invalid", f"python: {python!r} is no absolute path", code=-32602)
    return f"{python.rstrip('/')}/bin/python" if os.path.isdir(python) else python


def _program(facts: dict[str, Any], config: str | None) -> Program:
    return Program(facts["version"], facts["python"], facts["packages"], config)


async def _finished(command: list[str], environ: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    """(status, stdout, stderr) of a command. OSError; BotdError when it takes too long."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *command, cwd="/", env=dict(environ), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(PREFLIGHT_S):
            said, complaints = await child.communicate()
    except TimeoutError:
        raise _not_begun(f"its preflight took longer than {PREFLIGHT_S:g} s") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return child.returncode or 0, said, complaints


def _not_begun(reason: str, hint: str = "") -> BotdError:
    return BotdError(
        "conflict",
        f"not upgraded, botd {__version__} goes on: {reason}",
        hint=hint or "botctl daemon logs",
        exit=Exit.FAILED,
    )
