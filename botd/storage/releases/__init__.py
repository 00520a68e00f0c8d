"""The release store: immutable, content-addressed versions of templates.

All of it blocks. `add` belongs into the child that `python -m botd.storage.releases` is; the rest is quick.
"""

from botd.core.classify import Unit
from botd.storage.releases.add import Added, add
from botd.storage.releases.model import Entry, Release, entries, list_releases, load, resolve_hash
from botd.storage.releases.objects import Collected, collect
from botd.storage.releases.removal import remove
from botd.storage.releases.staging import recover
from botd.storage.releases.verify import verify

__all__ = [
    "Added",
    "Collected",
    "Entry",
    "Release",
    "Unit",
    "add",
    "collect",
    "entries",
    "list_releases",
    "load",
    "recover",
    "remove",
    "resolve_hash",
    "verify",
]
