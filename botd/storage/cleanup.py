"""Clean-up: `plan` looks for what nothing needs any more, `apply` looks again and removes it. A dry run is the plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.storage import folders, logsizes, probing, tree
from botd.storage.items import Claim, Item
from botd.storage.leftovers import plan

__all__ = ["Claim", "Item", "apply", "plan", "view"]


def view(item: Item) -> dict[str, Any]:
    """An item as it travels. Names that are not UTF-8 are shown with replacement characters."""
    return {
        "path": os.fsencode(item.path).decode("utf-8", "replace"),
        "id": item.id,
        "kind": item.kind,
        "bytes": item.bytes,
        "reason": item.reason,
        "action": item.action,
        "data": item.data,
    }


def apply(paths: Paths, items: list[Item], exists: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Remove what the items say, each looked at again in the moment of its removal; blocks.

    `exists` says whether there is a bot of that id by now. Returns the `view` of each with `action` removed, kept or
    failed, with what was really given back as `bytes`; one that fails does not end the rest.
    """
    home = tree.open_directory(paths.home)
    try:
        return [_apply(home, item, exists) for item in items]
    finally:
        os.close(home)


def _apply(home: int, item: Item, exists: Callable[[str], bool]) -> dict[str, Any]:
    shown = view(item)
    if not item.remove:
        return shown | {"action": "kept"}
    try:
        shown |= _remove(home, item, exists)
    except BotdError as error:
        shown |= {"action": "kept", "bytes": 0, "reason": error.message}
    except FileNotFoundError:
        shown |= {"action": "kept", "bytes": 0, "reason": "gone by itself meanwhile"}
    except OSError as error:
        shown |= {"action": "failed", "bytes": 0, "reason": error.strerror or str(error)}
    return shown


def _remove(home: int, item: Item, exists: Callable[[str], bool]) -> dict[str, Any]:
    parts = tuple(item.path.split("/"))
    id = item.id
    if item.kind in ("bot folder", "log folder", "trash", "app folder"):
        needed = None if id is None or item.kind == "app folder" else lambda: exists(id)
        if needed is not None and needed():
            raise BotdError("conflict", "its bot exists again")
        done = folders.remove(home, parts, item.identity, needed)
        if len(parts) == 3:
            folders.remove_if_empty(home, parts[:2])
        if done.problems:
            return {"action": "failed", "bytes": done.bytes, "reason": "; ".join(done.problems)}
        return {"action": "removed", "bytes": done.bytes}
    folder = tree.descend(home, parts[:-1])
    try:
        if item.kind == "rotated log":
            _unlink_log(folder, parts[-1], item)
        else:
            _unlink(folder, parts[-1], item, exists)
    finally:
        os.close(folder)
    return {"action": "removed"}


def _unlink_log(folder: int, name: str, item: Item) -> None:
    """Under the lock of its folder: its name may be that of a newer file by now."""
    try:
        with logsizes.locked(folder):
            st = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if (st.st_dev, st.st_ino) != item.identity:
                raise BotdError("conflict", "it was rotated meanwhile")
            os.unlink(name, dir_fd=folder)
    except logsizes.Busy:
        raise BotdError("conflict", "a rotation is under way in its folder; the next clean-up sees to it") from None


def _unlink(folder: int, name: str, item: Item, exists: Callable[[str], bool]) -> None:
    st = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (st.st_dev, st.st_ino) != item.identity:
        raise BotdError("conflict", "it was replaced by something else meanwhile")
    if item.kind == "lock":
        # Held while it is removed, so that nobody can believe to have taken it.
        with probing.hold(folder, name, item.identity) as held:
            if not held:
                raise BotdError("conflict", "a process holds it")
            if item.id is not None and exists(item.id):
                raise BotdError("conflict", "its bot exists again")
            os.unlink(name, dir_fd=folder)
        return
    if item.kind == "socket" and probing.somebody_listens(folder, name):
        raise BotdError("conflict", "somebody listens on it")
    os.unlink(name, dir_fd=folder)
