"""Which release of each template is in force, and which releases there are. The releases themselves are folders.

Small functions over a store and its batch, as for every table that is not about bots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from botd.state.batch import Batch
from botd.state.store import Store


class StoredTemplate(NamedTuple):
    """A template. `release` is in force for new bots, `previous` was before it; `source` is where it came from."""

    name: str
    release: str
    previous: str | None
    source: str | None
    updated_at: float
    """Seconds since the epoch, as `StoredRelease.added_at` is."""


class StoredRelease(NamedTuple):
    """A release as it was when it was added. `files` and `bytes` are those of its tree."""

    template: str
    hash: str
    manifest: Mapping[str, Any]
    files: int
    bytes: int
    added_at: float


_PUT = """
    INSERT INTO templates (name, release, previous, source, updated_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET release = excluded.release, previous = excluded.previous,
        source = excluded.source, updated_at = excluded.updated_at
"""
_PUT_RELEASE = """
    INSERT INTO releases (template, hash, manifest, files, bytes, added_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (template, hash) DO NOTHING
"""


def templates(store: Store) -> dict[str, StoredTemplate]:
    """Every template by name, sorted."""
    rows = store.rows("SELECT name, release, previous, source, updated_at FROM templates ORDER BY name")
    return {row[0]: StoredTemplate(*row) for row in rows}


def template(store: Store, name: str) -> StoredTemplate | None:
    """The one of this name."""
    rows = store.rows("SELECT name, release, previous, source, updated_at FROM templates WHERE name = ?", (name,))
    return StoredTemplate(*rows[0]) if rows else None


def release(store: Store, template: str, hash: str) -> StoredRelease | None:
    """The one of this full hash."""
    found = _releases(store, "WHERE template = ? AND hash = ?", (template, hash))
    return found[0] if found else None


def releases(store: Store, template: str | None = None) -> list[StoredRelease]:
    """The releases of one template, or of all, oldest first."""
    return _releases(store, "WHERE ?1 IS NULL OR template = ?1", (template,))


def _releases(store: Store, which: str, values: tuple[str | None, ...]) -> list[StoredRelease]:
    columns = "template, hash, manifest, files, bytes, added_at"
    rows = store.rows(f"SELECT {columns} FROM releases {which} ORDER BY template, added_at, hash", values)
    return [StoredRelease(name, hash, json.loads(manifest), *more) for name, hash, manifest, *more in rows]


def put(batch: Batch, template: StoredTemplate) -> None:
    """A new template, or what an existing one has become."""
    batch.run(_PUT, template)
    batch.fleet_changes()


def put_release(batch: Batch, release: StoredRelease) -> None:
    """A release that was added. One that is on record already stays as it is."""
    name, hash, manifest, *figures = release
    batch.run(_PUT_RELEASE, (name, hash, json.dumps(manifest), *figures))


def drop(batch: Batch, name: str) -> None:
    """Forget a template and its releases. LookupError when there is none."""
    if batch.run("DELETE FROM templates WHERE name = ?", (name,)).rowcount != 1:
        raise LookupError(f"no template {name} is on record")
    batch.run("DELETE FROM releases WHERE template = ?", (name,))
    batch.fleet_changes()


def drop_release(batch: Batch, template: str, hash: str) -> None:
    """Forget a release whose folder is gone. No error when it is not on record."""
    batch.run("DELETE FROM releases WHERE template = ? AND hash = ?", (template, hash))
