"""Putting a sound database in the place of a damaged one, which is kept aside: no crash on the way loses either.

    1  the new one is complete and on the disk as botd.db.restored
    2  botd.db and what belongs to it are renamed to botd.db.damaged-TIME and so on
    3  botd.db.restored becomes botd.db

`finish` does what is left of 2 and 3 at the next start.
"""

from __future__ import annotations

import os
import time

from botd.state.connection import publish, remove, sync_folder

_OF_A_DATABASE = ("", "-wal", "-shm", "-journal")


def restored_path(path: str) -> str:
    """Where the new database waits for its place."""
    return f"{path}.restored"


def take_place(path: str) -> str | None:
    """The database at `restored_path(path)` becomes that at `path`. Where the former one is now; None: there was none.

    OSError when the disk refuses.
    """
    aside = _aside(path)
    # The database goes before its log: without the log it would be an older one that looks sound.
    moved = [suffix for suffix in _OF_A_DATABASE if _move(f"{path}{suffix}", f"{aside}{suffix}")]
    sync_folder(path)
    publish(restored_path(path), path)
    return aside if moved else None


def finish(path: str) -> str | None:
    """Go on with a `take_place` that was cut short, and forget one that had not begun. As it returns."""
    waiting = restored_path(path)
    if not os.path.lexists(waiting):
        return None
    if os.path.lexists(path):
        remove(waiting)
        return None
    return take_place(path)


def _aside(path: str) -> str:
    base = f"{path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, number = base, 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in _OF_A_DATABASE):
        number += 1
        aside = f"{base}.{number}"
    return aside


def _move(old: str, new: str) -> bool:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        return False
    return True
