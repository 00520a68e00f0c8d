"""What a release is made of: a folder, or an archive that becomes one; and the documents in it."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botd.contract.errors import BotdError, invalid
from botd.contract.paths import Paths
from botd.contract.template import FILE_NAME, check_template
from botd.contract.vocabulary import Exit
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases import archive, scan

_DOCUMENT_MAX = 1 << 20
_HOW = "a manifest begins with the line: schema = 1; docs/templates.md has all keys"


@dataclass(frozen=True, slots=True)
class Source:
    """The folder to take in: a descriptor of it, its path, and what its owner should know by now."""

    fd: int
    path: str
    notes: list[str]


def open_source(paths: Paths, source: str, stage: str, manifest: str | Mapping[str, Any] | None) -> Source:
    """The folder that `source` is, or an archive becomes in `stage`. The caller closes its descriptor. BotdError."""
    try:
        real = os.path.realpath(source)
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        hint = "the user who runs botd must be able to read it"
        raise BotdError("denied", f"{scan.shown(source)}: permission denied", hint=hint) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BotdError("not_found", f"{scan.shown(source)}: {why}", hint="name a folder or an archive") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        home = os.path.realpath(paths.home)
        if f"{home}/".startswith(f"{real.rstrip('/')}/"):
            os.close(fd)
            raise scan.refused(source, "has the folder of botd itself in it", "name the folder of the template")
        return Source(fd, real, [])
    try:
        if not stat.S_ISREG(mode):
            raise scan.refused(source, "is neither a folder nor an archive", "name one of them")
        folder = f"{stage}/unpacked"
        os.mkdir(folder, 0o700)
        limits = check_template({"schema": 1} if manifest is None else document(manifest))
        root, notes = archive.extract(fd, scan.shown(source), folder, limits["max_files"], limits["max_bytes"])
        crash_point("store-unpacked")
        return Source(os.open(root, tree.DIRECTORY), root, notes)
    finally:
        os.close(fd)


def manifest_of(root: int, given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest in force, checked: `given` (a file, or what stands in one), else that of the folder `root`."""
    if given is not None:
        return check_template(document(given))
    data = read(root, FILE_NAME)
    return check_template({"schema": 1} if data is None else _parsed(data, FILE_NAME))


def document(given: str | Mapping[str, Any]) -> object:
    """What stands in a manifest, not yet checked. BotdError(invalid)."""
    if not isinstance(given, str):
        return dict(given)
    try:
        with open(given, "rb") as file:
            return _parsed(file.read(_DOCUMENT_MAX + 1), given)
    except OSError as error:
        raise invalid(given, f"cannot be read: {error.strerror}", hint=_HOW, exit=Exit.INVALID) from None


def _parsed(data: bytes, name: str) -> object:
    if len(data) > _DOCUMENT_MAX:
        raise invalid(name, f"is more than {_DOCUMENT_MAX} bytes", hint=_HOW, exit=Exit.INVALID)
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(name, f"is no TOML: {error}", hint=_HOW, exit=Exit.INVALID) from None


def read(root: int, name: str) -> bytes | None:
    """A small file right in the folder `root`; None when there is none. BotdError when it is anything else."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=root)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise scan.refused(name, f"cannot be read: {error.strerror}", "it must be a readable file") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise scan.refused(name, "is no file", "it must be one")
    with os.fdopen(fd, "rb") as file:
        data = file.read(_DOCUMENT_MAX + 1)
    if len(data) > _DOCUMENT_MAX:
        raise scan.refused(name, f"is more than {_DOCUMENT_MAX} bytes", "make it smaller")
    return data
