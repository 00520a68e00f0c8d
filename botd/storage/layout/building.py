"""app/ made from nothing: folders, copies and links as a plan says; and what a bot finds in data/ when it begins."""

from __future__ import annotations

import os

from botd.crash import crash_point
from botd.storage import tree
from botd.storage.layout import copies
from botd.storage.layout.plans import Folder, Plan

PRIVATE = 0o700
SEEDING = ".botd-seed"
"""The first version of a private file or folder on its way into data/."""
HALF = ".botd-half"
"""What takes the place of something else in the next moment."""
REPLACED = "replaced"
"""The folder of data/ for versions of the bot's own that gave way to a release's."""


def build(app: int, plan: Plan) -> None:
    """Make all that a release brings in the empty directory `app`. OSError when it cannot be made."""
    for folder in plan.folders.values():
        fd = tree.descend(app, folder.parts)
        try:
            _fill(fd, folder, plan.tree)
        finally:
            os.close(fd)


def _fill(fd: int, folder: Folder, source: str) -> None:
    for name in folder.folders:
        os.mkdir(name, PRIVATE, dir_fd=fd)
    for part in folder.parts:
        source += f"/{part}"
    for name, executable in folder.files.items():
        mode = copies.PRIVATE_PROGRAM if executable else copies.PRIVATE_FILE
        copies.copy(f"{source}/{name}", fd, name, mode)
        crash_point("botd-app-copied")
    for name, target in folder.links.items():
        os.symlink(target, name, dir_fd=fd)


def open_data(bot: int) -> int:
    """A descriptor of data/ in a bot's folder, made when it is missing. BotdError(conflict) when it is no folder."""
    return below(bot, ("data",), "data")


def below(base: int, parts: tuple[str, ...], shown: str) -> int:
    """A descriptor of base/parts[0]/..., its folders made where they are missing; links are refused, as `shown`."""
    fd = os.dup(base)
    try:
        for part in parts:
            try:
                inner = tree.open_below(fd, part, shown)
            except FileNotFoundError:
                os.mkdir(part, PRIVATE, dir_fd=fd)
                inner = tree.open_below(fd, part, shown)
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd


def seed(data: int, plan: Plan, former: Plan | None) -> None:
    """Give data/ what a bot of this release begins with, where it has nothing yet; make its private folders.

    What the former release had begun with is not begun with again: who removed it meant it. Nothing may have the
    name SEEDING in data/. BotdError(conflict) where a link stands for a folder.
    """
    for path, private in plan.private.items():
        if private.link is None:
            continue
        parts = tuple(path.split("/"))
        shown = f"data/{path}"
        parent = below(data, parts[:-1], shown)
        try:
            if exists(parent, parts[-1]):
                continue
            begun = former is not None and path in former.private and former.private[path].seed
            if private.seed and not begun:
                _copy_all(f"{plan.tree}/{path}", data, SEEDING)
                crash_point("botd-app-seeding")
                os.rename(SEEDING, parts[-1], src_dir_fd=data, dst_dir_fd=parent)
                crash_point("botd-app-seeded")
            elif private.kind == "dir":
                os.mkdir(parts[-1], PRIVATE, dir_fd=parent)
        finally:
            os.close(parent)


def _copy_all(source: str, parent: int, name: str) -> None:
    """A file, a link or a folder of a release, which has no hostile depth or number of entries."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), name, dir_fd=parent)
    elif os.path.isdir(source):
        os.mkdir(name, PRIVATE, dir_fd=parent)
        fd = tree.open_below(parent, name, name)
        try:
            for below_it in sorted(os.listdir(source)):
                _copy_all(f"{source}/{below_it}", fd, below_it)
        finally:
            os.close(fd)
    else:
        executable = os.stat(source).st_mode & 0o100
        mode = copies.PRIVATE_PROGRAM if executable else copies.PRIVATE_FILE
        copies.copy(source, parent, name, mode)


def exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
