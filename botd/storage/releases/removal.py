"""A release goes: out of sight by one rename, then removed at leisure."""

from __future__ import annotations

import contextlib
import os

from botd.contract.errors import BotdError, not_found
from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases import model, objects
from botd.storage.releases.staging import Stage, sync_folder, template_lock, unavailable


def remove(paths: Paths, template: str, hash: str) -> tree.Removed:
    """Remove the release of this full hash and what only it had. Who uses it is the caller's to know.

    BotdError: not_found; unavailable when the disk refuses. Problems with pieces of it are in the result: they are
    out of sight, and `recover` tries again.
    """
    path = paths.release(template, hash)
    try:
        shared = [(e.digest, e.x) for e in model.entries(model.load(paths, template, hash)) if e.type == "f"]
    except BotdError as error:
        if error.kind == "not_found":
            raise
        shared = []  # damaged: `collect` finds what it had
    with Stage(paths) as stage, template_lock(paths, template):
        try:
            move(path, f"{stage.path}/release")
        except FileNotFoundError:
            raise not_found(f"template {template} has no release {hash[: model.SHOWN]}") from None
        except OSError as error:
            raise unavailable(path, error) from error
        sync_folder(paths.releases(template))
        crash_point("store-removed")
        for folder in (paths.releases(template), os.path.dirname(paths.releases(template))):
            with contextlib.suppress(OSError):  # others are in it
                os.rmdir(folder)
    done = stage.removed
    crash_point("store-remove-destroyed")
    freed = objects.collect_these(paths, shared)
    done.entries += freed.objects
    done.bytes += freed.bytes
    return done


def move(path: str, target: str) -> None:
    """Rename a folder that may be read-only; OSError as rename."""
    try:
        os.rename(path, target)
    except PermissionError:
        # To move a folder is to rewrite its "..", for which its owner needs to be able to write to it.
        os.chmod(path, 0o700, follow_symlinks=True)
        os.rename(path, target)
