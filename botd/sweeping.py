"""One clean-up, whoever asks for it: what it would do (`look`), and doing it (`apply`).

By itself botd removes what nobody wrote. Folders of bots that no record knows (any more) it only moves to the trash,
where they stay as long as what was deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from botd.contract.paths import Paths
from botd.core.fleet import Fleet
from botd.core.settings import Settings
from botd.recycling import Recycler
from botd.state import templates
from botd.state.store import Store
from botd.storage import cleanup, disused, tree
from botd.storage.items import Claim, Item, Kind
from botd.storage.leftovers import Scope
from botd.system.clock import Clock

_STORED: tuple[Kind, ...] = ("release", "objects", "staging")

log = logging.getLogger("botd.sweeping")


class Sweeper:
    """`look` for a plan, `apply` it. Both may take long and keep nobody waiting: what blocks is done in a thread."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Store,
        clock: Clock,
        paths: Paths,
        settings: Callable[[], Settings],
        recycler: Recycler,
        strays: Callable[[], Iterable[str]],
        pinned: Callable[[], Iterable[tuple[str, str, str]]] = tuple,
    ) -> None:
        """`strays`: ids of bots that run although no record knows them; `pinned`: (template, release, why) of releases
        that somebody needs who is no bot.
        """
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._paths = paths
        self._settings = settings
        self._recycler = recycler
        self._strays = strays
        self._pinned = pinned

    async def look(self, scope: Scope = "all") -> list[Item]:
        """Everything that would go, and what is kept although it looks left over. BotdError(unavailable)."""
        settings, fleet = self._settings(), self._fleet
        # Walked through once, and known from then on.
        sizes = await self._recycler.measured(self._recycler.kept()) if scope != "run" else {}
        return await asyncio.to_thread(
            cleanup.plan,
            self._paths,
            frozenset(fleet.bots),
            frozenset(self._strays()),
            self._clock.steady(),
            settings.cleaning,
            keep_logs=settings.output.keep,
            max_log_age_s=settings.output.max_age_s,
            claims=self._claims(sizes),
            needed=self._needed(),
            scope=scope,
            trusted=self._store.trouble is None,
        )

    def _claims(self, sizes: Mapping[str, int]) -> dict[str, Claim]:
        return {
            item.key: Claim(item.id, item.until_wall if item.standing == "kept" else None, sizes.get(item.key))
            for item in self._recycler.all()
        }

    def _needed(self) -> dict[tuple[str, str], str]:
        """(template, release) -> why it stays."""
        out: dict[tuple[str, str], str] = {}
        for deleted in self._recycler.kept():
            if deleted.spec is not None and deleted.spec.template and deleted.spec.release:
                out[deleted.spec.template, deleted.spec.release] = "a deleted bot would come back with it"
        for template in templates.templates(self._store).values():
            if template.previous is not None:
                out[template.name, template.previous] = "it is what a rollback goes back to"
            out[template.name, template.release] = "it is in force"
        out |= {(name, release): why for name, release, why in self._pinned()}
        users = Counter((bot.spec.template, bot.spec.release) for bot in self._fleet if bot.spec.release)
        for (name, release), count in users.items():
            if name and release:
                out[name, release] = f"bots use it; {count} of them"
        return out

    async def apply(self, items: list[Item], *, asked: bool) -> list[dict[str, Any]]:
        """Do what the items say, each looked at again in the moment of its removal. A view of each with its outcome.

        `asked`: a person wants data gone for good that no record knows.
        """
        expired = {item.path.rpartition("/")[2]: item for item in items if item.kind == "deleted bot" and item.remove}
        done = await self._recycler.empty(expired)
        views = [self._expired(item, done.get(key)) for key, item in expired.items()]
        rest = [item for item in items if not (item.kind == "deleted bot" and item.remove)]
        if not asked:
            retired = {item.id for item in rest if item.kind == "bot folder" and item.remove and self._retire(item)}
            views += [
                cleanup.view(item) | {"action": "removed", "bytes": 0, "reason": f"{item.reason}; it is in the trash"}
                for item in rest
                if item.id in retired and item.kind == "bot folder"
            ]
            rest = [item for item in rest if item.kind not in ("bot folder", "log folder") or item.id not in retired]
        # Their releases first: only then nobody has what they had alone.
        for item in sorted((one for one in rest if one.kind in _STORED), key=lambda one: _STORED.index(one.kind)):
            views.append(await self._remove_stored(item))
        rest = [item for item in rest if item.kind not in _STORED]
        return views + await asyncio.to_thread(cleanup.apply, self._paths, rest, self._fleet.bots.__contains__)

    @staticmethod
    def _expired(item: Item, done: tuple[int, list[str]] | None) -> dict[str, Any]:
        view = cleanup.view(item)
        if done is None:
            return view | {"action": "kept", "bytes": 0, "reason": "it was brought back or removed meanwhile"}
        freed, problems = done
        if problems:
            return view | {"action": "failed", "bytes": freed, "reason": "; ".join(problems)}
        return view | {"action": "removed", "bytes": freed}

    async def _remove_stored(self, item: Item) -> dict[str, Any]:
        """Something of the release store."""
        view = cleanup.view(item)
        if not item.remove:
            return view | {"action": "kept"}
        match item.kind:
            case "release":
                _, template, _, hash = item.path.split("/")
                if why := self._needed().get((template, hash)):
                    return view | {"action": "kept", "bytes": 0, "reason": why}
                # Not on record any more, so that no bot is made of it while it goes.
                with self._store.batch(durable=True) as batch:
                    templates.drop_release(batch, template, hash)
                done = await asyncio.to_thread(disused.remove_release, self._paths, item.path)
            case "objects":
                done = tree.Removed(bytes=await asyncio.to_thread(disused.remove_objects, self._paths))
            case _:
                done = await asyncio.to_thread(disused.recover, self._paths)
        if done.problems:
            return view | {"action": "failed", "bytes": done.bytes, "reason": "; ".join(done.problems)}
        return view | {"action": "removed", "bytes": done.bytes}

    def _retire(self, item: Item) -> bool:
        if item.id is None or item.id in self._fleet.bots:
            return False
        return self._recycler.retire(item.id, self._clock.steady())

    async def by_itself(self, scope: Scope) -> None:
        """One regular round. BotdError or OSError when the home cannot be read."""
        if scope == "storage" and (self._store.trouble is not None or not self._settings().cleaning.garbage_collection):
            return
        views = await self.apply([item for item in await self.look(scope) if item.remove], asked=False)
        for view in views:
            if view["action"] == "failed":
                log.warning("not removed: %s: %s", view["path"], view["reason"])
            elif view["kind"] in ("deleted bot", "bot folder", "release"):
                log.info("%s %s: %s", view["action"], view["path"], view["reason"])
