"""The last steps: what was made in private becomes a release, at once."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping
from typing import Any

import tomli_w

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases import model, removal
from botd.storage.releases.intake import Intake
from botd.storage.releases.staging import PASSABLE, make_folder, sync_folder, template_lock

_MANIFEST = """\
# Release {hash} of the template {template}: the settings in force, those of its manifest and those found out.
# For reading: a release never changes. What it is made of, file by file, is in index.json.

"""


def publish(
    paths: Paths, template: str, manifest: Mapping[str, Any], index: Mapping[str, Any], intake: Intake
) -> tuple[bool, int]:
    """Give the release its name. Whether it is new, and the bytes on disk that it took. OSError, BotdError."""
    hash = index["hash"]
    folder, final = intake.folder, paths.release(template, hash)
    with template_lock(paths, template):
        if _is_there(paths, template, hash):
            return False, 0
    # Only the daemon's user reads these: the environment of a manifest may have secrets in it.
    _write(
        f"{folder}/manifest.toml", (_MANIFEST.format(hash=hash, template=template) + tomli_w.dumps(manifest)).encode()
    )
    _write(f"{folder}/index.json", json.dumps(index, separators=(",", ":")).encode())
    crash_point("store-described")
    # One call for thousands of files: fsync of each would take a commit of the journal each.
    sync_all(folder)
    crash_point("store-synced")
    stored = intake.share() + intake.close()
    stored += sum(os.stat(f"{folder}/{name}").st_blocks * tree.BLOCK for name in ("", "manifest.toml", "index.json"))
    sync_all(folder)
    crash_point("store-shared")
    os.chmod(folder, 0o755)  # whatever the umask: others may go through, nobody but us may write
    with template_lock(paths, template):
        if _is_there(paths, template, hash):
            return False, 0
        for made in (os.path.dirname(paths.releases(template)), paths.releases(template)):
            make_folder(made, PASSABLE)
        if os.path.lexists(final):
            # Damaged, or it would be there: the sound one takes its place.
            removal.move(final, f"{os.path.dirname(folder)}/damaged")
        os.rename(folder, final)
        crash_point("store-published")
        sync_folder(paths.releases(template))
    # Only now: a folder that is not writable could not be moved.
    os.chmod(final, 0o555)
    crash_point("store-closed")
    return True, stored


def _is_there(paths: Paths, template: str, hash: str) -> bool:
    try:
        release = model.load(paths, template, hash)
    except BotdError:
        return False
    # Its age, which a clean-up goes by, begins anew: somebody has just asked for it.
    os.utime(release.path)
    return True


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def sync_all(path: str) -> None:
    """Wait until everything that was written to the file system of `path` is on disk. OSError when it cannot be."""
    fd = os.open(path, tree.DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(fd)
