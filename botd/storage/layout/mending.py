"""What is put right in an app/ that stays: private files that became real ones, lost links, what a power cut took."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from botd.contract.errors import BotdError
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.layout import building, copies, records
from botd.storage.layout.building import HALF, below
from botd.storage.layout.carrying import keep_aside, second_name
from botd.storage.layout.plans import Plan, Private
from botd.storage.layout.records import RECORD, Record

_GRAIN_NS = 20_000_000
"""The clock of a file system may be that much behind."""


# --- private files ------------------------------------------------------------------------------------------------


def gather_both(bot: int, former: Plan | None, plan: Plan) -> list[str]:
    """Before a switch: what either release calls private and is a real file or folder in app/ goes into data/."""
    if not is_folder(bot, "app"):
        return []
    moved = gather(bot, former) if former is not None else []
    moved += gather(bot, plan, former, mend=False)
    return [f"{path} was moved into data/" for path in moved]


def gather(bot: int, plan: Plan, former: Plan | None = None, *, mend: bool = True) -> list[str]:
    """Move what stands in app/ in the place of a private path's link into data/; the paths that were moved.

    `mend`: a link that is gone is made again. With `former`, what is as that release brought it stays.
    BotdError(conflict) when a link stands where a folder of data/ belongs.
    """
    moved = []
    for path, private in plan.private.items():
        parts = tuple(path.split("/"))
        try:
            parent = tree.descend(bot, ("app", *parts[:-1]))
        except (FileNotFoundError, BotdError):
            continue  # the bot removed the folder that it was in
        try:
            if private.link is not None and _gather_one(bot, parent, path, private, plan.hash[:12], former, mend):
                moved.append(path)
        finally:
            os.close(parent)
    return moved


def _gather_one(
    bot: int, parent: int, path: str, private: Private, label: str, former: Plan | None, mend: bool
) -> bool:
    name = path.rpartition("/")[2]
    assert private.link is not None
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        if mend:
            os.symlink(private.link, name, dir_fd=parent)
        return False
    if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
        return False
    if former is not None and path in former.files and copies.is_same(name, parent, f"{former.tree}/{path}"):
        return False
    data = building.open_data(bot)
    try:
        place = below(data, tuple(path.split("/")[:-1]), f"data/{path}")
        try:
            _make_room(place, name, st, data, label, path)
            if stat.S_ISREG(st.st_mode):
                _move_file(parent, name, st, place)
            else:
                os.rename(name, name, src_dir_fd=parent, dst_dir_fd=place)
            crash_point("botd-gather-moved")
        finally:
            os.close(place)
    finally:
        os.close(data)
    link_over(parent, name, private.link)
    return True


def _make_room(place: int, name: str, st: os.stat_result, data: int, label: str, path: str) -> None:
    """One file replaces another, as the program meant it; folders, and what is of another kind, are kept aside."""
    try:
        there = os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISREG(st.st_mode) and stat.S_ISREG(there.st_mode):
        return
    try:
        os.rmdir(name, dir_fd=place)
    except OSError:
        keep_aside(data, label, path, place, name)
        crash_point("botd-gather-aside")


def _move_file(parent: int, name: str, st: os.stat_result, place: int) -> None:
    """By a second name, so that it is never missing where the program reads it."""
    try:
        there = os.stat(name, dir_fd=place, follow_symlinks=False)
        if (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
            return  # an attempt that was cut short has done so
    except FileNotFoundError:
        pass
    _unlink_half(place)
    second_name(name, parent, place, HALF)
    crash_point("botd-gather-linked")
    os.rename(HALF, name, src_dir_fd=place, dst_dir_fd=place)


# --- links --------------------------------------------------------------------------------------------------------


def shared_links(bot: int, plan: Plan) -> None:
    """Make links into the release again that are gone, or lead to where the home was before it was moved."""
    for path, target in plan.shared.items():
        parts = tuple(path.split("/"))
        try:
            parent = tree.descend(bot, ("app", *parts[:-1]))
        except (FileNotFoundError, BotdError):
            continue
        try:
            _mend_link(parent, parts[-1], target, f"/templates/{plan.template}/releases/{plan.hash}/tree/{path}")
        finally:
            os.close(parent)


def _mend_link(parent: int, name: str, target: str, ending: str) -> None:
    there = readlink(parent, name)
    if there == target:
        return
    if there is not None and there.endswith(ending):
        link_over(parent, name, target)
    elif there is None:
        try:
            os.symlink(target, name, dir_fd=parent)
        except FileExistsError:
            pass  # a file or folder of the bot's own


def readlink(parent: int, name: str) -> str | None:
    """Where a link leads; None when it is none, or not there."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def link_over(parent: int, name: str, target: str) -> None:
    """Make `name` a link, in one step; a file or link of that name is replaced."""
    _unlink_half(parent)
    os.symlink(target, HALF, dir_fd=parent)
    os.rename(HALF, name, src_dir_fd=parent, dst_dir_fd=parent)


def _unlink_half(parent: int) -> None:
    try:
        os.unlink(HALF, dir_fd=parent)
    except FileNotFoundError:
        pass


# --- after a power cut --------------------------------------------------------------------------------------------


def after_power_cut(bot: int, plan: Plan, record: Record) -> None:
    """Look over what was copied in another boot: what has lost its content gets it again. Says so in the record.

    Only what was written while the folder was made is looked at: a file that the bot shortened is the bot's.
    """
    window = record.begun_ns - _GRAIN_NS, record.at_ns
    app = tree.open_below(bot, "app", "app")
    try:
        for path in plan.files:
            _mend_copy(app, path, f"{plan.tree}/{path}", window)
        data = building.open_data(bot)
        try:
            for path, private in plan.private.items():
                if private.seed:
                    for seed in _files(plan.tree, path):
                        _mend_copy(data, seed, f"{plan.tree}/{seed}", window)
        finally:
            os.close(data)
        _unlink_half(app)
        records.write(app, replace(record, boot=records.boot()), HALF)
        os.rename(HALF, RECORD, src_dir_fd=app, dst_dir_fd=app)
    finally:
        os.close(app)


def _mend_copy(base: int, path: str, source: str, window: tuple[int, int]) -> None:
    parts = tuple(path.split("/"))
    try:
        parent = tree.descend(base, parts[:-1])
    except (FileNotFoundError, BotdError):
        return
    try:
        st = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if window[0] <= st.st_mtime_ns <= window[1] and copies.is_torn(parts[-1], parent, source):
            _unlink_half(parent)
            copies.copy(source, parent, HALF, stat.S_IMODE(st.st_mode))
            os.rename(HALF, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        pass  # the bot removed it
    finally:
        os.close(parent)


def _files(base: str, path: str) -> Iterator[str]:
    """The regular files at or below a path of a release."""
    at = f"{base}/{path}"
    if os.path.isdir(at) and not os.path.islink(at):
        for name in sorted(os.listdir(at)):
            yield from _files(base, f"{path}/{name}")
    elif os.path.isfile(at) and not os.path.islink(at):
        yield path


def is_folder(parent: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
