"""How botd is: what it says of itself in `daemon.status`, in warnings with their remedies, and in a dump."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botd.contract.paths import Paths
from botd.core.fleet import Bot, Fleet
from botd.core.mechanisms import WATCHED, mechanisms
from botd.engine import Engine
from botd.executor import Executor
from botd.keeper.client import KeeperClient
from botd.keeper.life import exit_words
from botd.reload import Configuration
from botd.server.services import KeeperView
from botd.state.store import Store
from botd.system.clock import Clock

LOOP_FORGOTTEN_S = 60.0
"""A life of so many seconds ends the talk about the deaths before it."""


class Condition:
    """Looks at the parts, changes none. `mending()`: whether the keeper is being regained; `over_quota()`: who is."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        engine: Engine,
        executor: Executor,
        store: Store,
        keeper: KeeperClient,
        config: Configuration,
        paths: Paths,
        clock: Clock,
        began: float,
        brought_back: bool,
        mending: Callable[[], bool],
        over_quota: Callable[[], list[str]],
    ) -> None:
        self._fleet, self._engine, self._executor, self._store = fleet, engine, executor, store
        self._keeper, self._config, self._paths, self._clock = keeper, config, paths, clock
        self._began, self._brought_back, self._mending = began, brought_back, mending
        self._over_quota = over_quota

    def facts(self, bot: Bot) -> Mapping[str, Any]:
        """What the keeper said of the current life of a bot."""
        held = self._keeper.held.get((bot.id, bot.state.generation))
        return held.facts if held is not None else {}

    def mechanisms(self) -> dict[str, dict[str, str]]:
        """By what each limit holds, see `core.mechanisms`."""
        return mechanisms(self._keeper.hello, sampling=self._engine.settings.monitoring.resource_monitoring)

    def watches(self) -> bool:
        """A limit of memory or processes holds only because botd looks."""
        found = self.mechanisms()
        return WATCHED in (found["memory"]["mode"], found["processes"]["mode"])

    def keeper(self) -> KeeperView:
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

    def last_end(self) -> str:
        """What the botd before this one said last, or how it ended."""
        hello = self._keeper.hello
        return str(hello.get("said", "").partition("\n")[0] or exit_words(hello.get("last_botd_exit")))

    def describe(self) -> dict[str, object]:
        """For a dump: counts and states, no names of variables and no values of anybody."""
        return {
            "phases": dict(self._fleet.phases),
            "keeper": {**self.keeper(), "held": len(self._keeper.held), "regaining": self._mending()},
            "deferred": self._engine.deferred,
            "illegal_events": self._engine.illegal_events,
            "strays": len(self._executor.strays),
            "configuration": self._config.last_error or "as in its file",
            "descriptors": len(os.listdir("/proc/self/fd")),
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[dict[str, str]]:
        """Each with `text` and `remedy`."""
        return [{"text": text, "remedy": remedy} for text, remedy in self._warnings()]

    def _warnings(self) -> Iterator[tuple[str, str]]:
        if os.geteuid() == 0 and self._engine.settings.security.isolation == "none":
            yield (
                "botd runs as root and so do the bots (security.isolation is none)",
                "run botd as a user of its own",
            )
        if not self._keeper.connected:
            yield "the keeper is away; bots run on", f"see {self._paths.run}/keeper.log"
        if strays := self._executor.strays:
            names = ", ".join(f"{stray.id} (pid {stray.pid})" for stray in strays[:3])
            text = f"{len(strays)} process{'' if len(strays) == 1 else 'es'} of bots that are on no record: {names}"
            yield text, "botctl daemon repair, or end them with: botctl cleanup"
        if (trouble := self._store.trouble) is not None:
            yield f"{trouble.message}; nothing can be changed, bots run on and are looked after", trouble.hint
        elif count := self._engine.deferred:
            waiting = "1 event waits" if count == 1 else f"{count} events wait"
            yield (
                f"{waiting} for the database, which cannot be written",
                f"free space on the file system of {self._paths.home}",
            )
        if users := self._over_quota():
            names = ", ".join(users[:3]) + (", ..." if len(users) > 3 else "")
            text = f"over the quota of storage (maxStoragePerUser): {names}; their bots cannot start"
            yield text, f"botctl resources --user {users[0]}"
        row = self._keeper.hello.get("row", 0)
        if self._brought_back and row >= 2 and self._clock.boottime() - self._began < LOOP_FORGOTTEN_S:
            text = f"botd has died {row} times in a row soon after its start; the last time: {self.last_end()}"
            yield text, "botctl daemon logs"
        if self._config.last_error:
            yield f"the configuration was not reloaded: {self._config.last_error}", "botctl config check"
