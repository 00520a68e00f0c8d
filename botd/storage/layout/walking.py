"""Two folders gone through in step, the one for reading and the other for making the same in it."""

from __future__ import annotations

import os
from collections.abc import Callable

from botd.contract.errors import BotdError
from botd.storage import tree

Judge = Callable[[str, str, bool, int, int], bool]
"""(path, name, is it a folder, its directory here, its directory there) -> whether to go down into it, in both."""


def walk(old: int, new: int, prefix: str, judge: Judge, leave: Callable[[str, str, int], None]) -> None:
    """Go through `old` and all below it, whose folders `judge` has made in `new` as well.

    `leave` is told on the way up, with (path, name, the directory there). `prefix`: the path of `old` itself.

    At any depth it takes two descriptors. No link is followed. BotdError(conflict) at the border of a file system and
    when folders are moved about meanwhile.
    """
    device = os.fstat(old).st_dev
    here, there = os.dup(old), os.dup(new)
    # Of each folder above: what is still to be visited in it, its path and its two identities.
    above: list[tuple[list[str], str, tuple[int, int], tuple[int, int]]] = []
    path = prefix
    try:
        pending = _entries(here, there, path, judge)
        while True:
            if pending:
                name = pending.pop()
                inner = open_folder(here, name, _join(path, name))
                if os.fstat(inner).st_dev != device:
                    os.close(inner)
                    raise BotdError(
                        "conflict",
                        f"app/{_join(path, name)!a} is another file system",
                        hint="unmount it before the bot changes its release",
                    )
                above.append((pending, path, _identity(here), _identity(there)))
                os.close(here)
                here = inner
                below_it = tree.open_below(there, name, name)
                os.close(there)
                there = below_it
                path = _join(path, name)
                pending = _entries(here, there, path, judge)
            elif above:
                left = path
                pending, path, one, other = above.pop()
                here = _up(here, one)
                there = _up(there, other)
                leave(left, left.rpartition("/")[2], there)
            else:
                return
    finally:
        os.close(here)
        os.close(there)


def _entries(here: int, there: int, path: str, judge: Judge) -> list[str]:
    """Judge all entries of a directory; the names of the folders to go down into."""
    with os.scandir(here) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return [name for name, is_folder in found if judge(_join(path, name), name, is_folder, here, there)]


def _up(fd: int, identity: tuple[int, int]) -> int:
    """The directory above, in place of `fd`, which stays open when that is not the one that we came from."""
    above = os.open("..", tree.DIRECTORY, dir_fd=fd)
    if _identity(above) != identity:
        os.close(above)
        raise BotdError("conflict", "folders of the bot are being moved about", hint="stop what does it, then again")
    os.close(fd)
    return above


def open_folder(parent: int, name: str, path: str) -> int:
    """A descriptor of a folder of app/, its rights given to its owner where they are missing. Errors as `walk`."""
    try:
        return tree.open_below(parent, name, f"app/{path}")
    except PermissionError:
        tree.make_writable(parent, name)
        return tree.open_below(parent, name, f"app/{path}")


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _identity(fd: int) -> tuple[int, int]:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino
