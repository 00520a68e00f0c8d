"""Which templates there are, which release of each is in force, and what a bot becomes with it.

The database is the record; nothing is kept in memory, so a repaired or restored one needs no second thought. Whoever
makes or moves many bots in one decision asks once for the `Facts` and resolves each bot with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from botd.contract.errors import BotdError, not_found
from botd.contract.paths import Paths
from botd.core import templates as rules
from botd.core.bot import Spec
from botd.core.templates import SHOWN, Facts, Place
from botd.state import templates as records
from botd.state.store import Store
from botd.state.templates import StoredRelease, StoredTemplate


class Catalogue:
    """Every method may raise StoreError. Used from the loop's thread, as the store is."""

    def __init__(self, store: Store, paths: Paths) -> None:
        self._store = store
        self._paths = paths
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """Held by whoever makes or removes releases of a template: one waits for the other."""
        return self._locks.setdefault(name, asyncio.Lock())

    def templates(self) -> dict[str, StoredTemplate]:
        """All of them by name, sorted."""
        return records.templates(self._store)

    def get(self, name: str) -> StoredTemplate:
        """BotdError(not_found), with the way to add it."""
        known = records.template(self._store, name)
        if known is None:
            raise unknown(name)
        return known

    def find(self, name: str) -> StoredTemplate | None:
        return records.template(self._store, name)

    def releases(self, name: str | None = None) -> list[StoredRelease]:
        """Of one template or of all, oldest first."""
        return records.releases(self._store, name)

    def facts(self, name: str, hash: str | None = None) -> Facts:
        """Of the release in force, or of the one of this full hash. BotdError(not_found)."""
        release = self.get(name).release if hash is None else hash
        stored = records.release(self._store, name, release)
        if stored is None:
            raise not_found(
                f"template {name} has no release {release[:SHOWN]}",
                hint=f"see: botctl template show {name}; bring it again: botctl template update {name} PATH",
            )
        return Facts(name, release, f"{self._paths.release(name, release)}/tree", stored.manifest)

    def place(self, bot_id: str) -> Place:
        return Place(self._paths.bot_app(bot_id), self._paths.bot_data(bot_id))

    def spec(self, bot_id: str, own: Mapping[str, Any], facts: Facts, secret_names: Iterable[str] = ()) -> Spec:
        """What a bot is with what is set for itself. BotdError(invalid)."""
        return rules.resolve(bot_id, own, facts, self.place(bot_id), secret_names)

    def moved(self, spec: Spec, facts: Facts) -> Spec:
        """The same bot with another release. BotdError(invalid)."""
        return rules.moved(spec, facts, self.place(spec.id))

    def put(self, release: StoredRelease, source: str | None, *, hold: bool = False) -> bool:
        """A release that was added is in force from now on: on disk when this returns. False when it was already.

        `hold`: it is only put on record; a roll puts it in force.
        """
        known = self.find(release.template)
        if known is not None and known.release == release.hash:
            return False
        former = None if known is None else known.release
        with self._store.batch(durable=True) as batch:
            records.put_release(batch, release)
            if not hold:
                records.put(batch, StoredTemplate(release.template, release.hash, former, source, release.added_at))
        return True

    def enforce(self, name: str, hash: str, at_wall: float) -> None:
        """Put a release that is on record in force; the one that was is the former one. BotdError(not_found)."""
        known = self.get(name)
        self.facts(name, hash)
        if known.release != hash:
            with self._store.batch(durable=True) as batch:
                records.put(batch, known._replace(release=hash, previous=known.release, updated_at=at_wall))

    def drop(self, name: str) -> None:
        """Forget a template with all its releases. LookupError when there is none."""
        with self._store.batch(durable=True) as batch:
            records.drop(batch, name)


def unknown(name: str) -> BotdError:
    return not_found(f"there is no template {name!r}", hint=f"add it: botctl template add {name} PATH")
