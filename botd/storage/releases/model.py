"""A release as it lies on disk: read, listed, named by a part of its hash."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from botd.contract.errors import BotdError, not_found
from botd.contract.paths import Paths
from botd.core.classify import Type, Unit

SCHEMA = 1
SHOWN = 12
PREFIX_MIN = 6
_HEX = frozenset("0123456789abcdef")


class Entry(NamedTuple):
    """One path of a release's tree. `digest`: SHA-256 of a file in hex, the target of a link, "" for a folder."""

    path: str
    type: Type
    x: bool
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable version of a template. `manifest`: as botd.contract.template.check gives it, nothing left open."""

    template: str
    hash: str
    path: str
    manifest: Mapping[str, Any]
    units: tuple[Unit, ...]
    files: int
    bytes: int

    @property
    def tree(self) -> str:
        return f"{self.path}/tree"

    @property
    def python(self) -> str | None:
        """The interpreter of the virtual environment that the release brings."""
        venv = self.manifest.get("python", {}).get("venv")
        return None if venv is None else f"{self.tree}/{venv}/bin/python"


def compute_hash(manifest: Mapping[str, Any], entries: Iterable[Entry]) -> str:
    """The name of a release: SHA-256 over its manifest and its sorted entries.

    Byte code that was compiled for it does not count: the same source may compile to different bytes.
    """
    digest = hashlib.sha256(f"botd release {SCHEMA}\n".encode())
    digest.update(json.dumps(manifest, sort_keys=True).encode() + b"\n")
    for entry in sorted(entries):
        if "__pycache__" not in entry.path.split("/"):
            digest.update(json.dumps([entry.path, entry.type, int(entry.x), entry.digest]).encode() + b"\n")
    return digest.hexdigest()


def load(paths: Paths, template: str, hash: str) -> Release:
    """The release of this full hash. BotdError: not_found; internal when what is there cannot be read."""
    path = paths.release(template, hash)
    try:
        st = os.stat(f"{path}/index.json")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise not_found(
            f"template {template} has no release {hash[:SHOWN]}", hint=f"see: botctl template show {template}"
        ) from None
    except OSError as error:
        raise _damaged(path, error) from error
    return _load(template, hash, path, (st.st_dev, st.st_ino, st.st_ctime_ns))


@lru_cache(maxsize=16)
def _load(template: str, hash: str, path: str, identity: tuple[int, int, int]) -> Release:
    """Two hundred bots of one release read it once; `identity` is that of its index."""
    try:
        with open(f"{path}/manifest.toml", "rb") as file:
            manifest = tomllib.load(file)
        index = _index(path)
        units = tuple(Unit(u["path"], u["kind"], u["class"], u["why"], u["files"], u["bytes"]) for u in index["units"])
        if index["hash"] != hash:
            raise ValueError("it is the index of another release")
        return Release(template, hash, path, manifest, units, index["files"], index["bytes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def entries(release: Release) -> tuple[Entry, ...]:
    """All that is in the release's tree, sorted by path: folders before what is in them. BotdError(internal)."""
    try:
        st = os.stat(f"{release.path}/index.json")
    except OSError as error:
        raise _damaged(release.path, error) from error
    return _entries(release.path, (st.st_dev, st.st_ino, st.st_ctime_ns))


@lru_cache(maxsize=2)
def _entries(path: str, identity: tuple[int, int, int]) -> tuple[Entry, ...]:
    try:
        return tuple(Entry(p, t, bool(x), size, digest) for p, t, x, size, digest in _index(path)["entries"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _index(path: str) -> dict[str, Any]:
    with open(f"{path}/index.json", "rb") as file:
        index = json.load(file)
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        raise ValueError("its index is of a version that this botd does not know")
    return index


def _damaged(path: str, error: Exception) -> BotdError:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return BotdError(
        "internal",
        f"the release at {path} is damaged: {why}",
        hint="add the same source again (botctl template update): what is damaged is replaced",
    )


def index_document(hash: str, units: Iterable[Unit], entries: Iterable[Entry]) -> dict[str, Any]:
    """What index.json holds."""
    rows = sorted(entries)
    files = [row for row in rows if row.type != "d"]
    return {
        "schema": SCHEMA,
        "hash": hash,
        "files": len(files),
        "bytes": sum(row.bytes for row in files),
        "units": [
            {"path": u.path, "kind": u.kind, "class": u.cls, "why": u.why, "files": u.files, "bytes": u.bytes}
            for u in units
        ],
        "entries": [[row.path, row.type, int(row.x), row.bytes, row.digest] for row in rows],
    }


def list_releases(paths: Paths, template: str) -> list[str]:
    """The full hashes of a template's releases, the oldest first; none when there is no such template."""
    try:
        with os.scandir(paths.releases(template)) as listed:
            found = [(one.stat(follow_symlinks=False).st_mtime_ns, one.name) for one in listed if is_hash(one.name)]
    except FileNotFoundError:
        return []
    return [name for _, name in sorted(found)]


def is_hash(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


def resolve_hash(paths: Paths, template: str, prefix: str) -> str:
    """The full hash that a person's `prefix` means: at least 6 digits, unambiguous. BotdError(invalid, not_found)."""
    if not PREFIX_MIN <= len(prefix) <= 64 or not _HEX.issuperset(prefix):
        raise BotdError(
            "invalid",
            f"{prefix!r} is no release: the first {PREFIX_MIN} or more digits of its hash are needed",
            hint=f"see: botctl template show {template}",
        )
    found = [hash for hash in list_releases(paths, template) if hash.startswith(prefix)]
    if not found:
        raise not_found(f"template {template} has no release {prefix}", hint=f"see: botctl template show {template}")
    if len(found) > 1:
        shown = ", ".join(hash[: SHOWN + 4] for hash in sorted(found))
        raise BotdError("invalid", f"{prefix} means several releases: {shown}", hint="give more digits")
    return found[0]
