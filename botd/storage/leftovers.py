"""What nothing needs any more, each with its reason. This module only looks.

A bot that exists loses nothing, whether it runs or not, but rotated logs beyond the number that are kept. What a
bot that is no more has left behind may go when nothing in it has changed for maxFileAge.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from botd.contract.errors import BotdError
from botd.contract.manifest import ID_PATTERN
from botd.contract.paths import Paths
from botd.core.settings import Cleaning
from botd.storage import folders, probing, tree
from botd.storage.measure import Survey, survey

Kind = Literal["socket", "lock", "run file", "bot folder", "log folder", "rotated log", "trash"]

RUN_GRACE_S = 60.0
"""A half-written file in run/ that is older than this has no writer any more."""

_is_id = re.compile(ID_PATTERN).match
_is_rotated = re.compile(r"\A(out|err)\.(log|idx)\.([1-9][0-9]{0,5})(?:\.gz)?\Z").match
_TEMPORARY = (".tmp", ".new")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that could go. `path` is relative to the home; `bytes` are whole blocks on disk; `remove` says whether
    it goes and `reason` why or why not; `data`: somebody's own work, to be asked about.
    """

    path: str
    kind: Kind
    bytes: int
    reason: str
    remove: bool
    id: str | None = None
    data: bool = False
    identity: tuple[int, int] = (0, 0)
    """(st_dev, st_ino) of what was looked at."""

    @property
    def action(self) -> Literal["remove", "keep"]:
        return "remove" if self.remove else "keep"


def plan(
    paths: Paths,
    known: Collection[str],
    live: Collection[str],
    now: float,
    cleaning: Cleaning,
    *,
    keep_logs: int | None = None,
    max_log_age_s: float | None = None,
) -> list[Item]:
    """What a clean-up would remove and what it would keep although it looks left over. Changes nothing; blocks.

    `known`: the ids of all bots; `live`: those with a process; `now`: seconds since the epoch; `keep_logs`: how many
    rotated logs of a bot stay (None: all), `max_log_age_s`: for how long after they were written (None: for ever).
    BotdError(unavailable) when the home cannot be read.
    """
    try:
        home = tree.open_directory(paths.home)
    except OSError as error:
        raise BotdError("unavailable", f"{paths.home} cannot be read: {error.strerror}") from error
    try:
        look = _Look(paths, home, frozenset(known) | frozenset(live), now, cleaning)
        items = [*look.run_files(), *look.locks(), *look.orphans(), *look.trash()]
        if keep_logs is not None:
            items += look.rotated_logs(keep_logs, max_log_age_s)
        return items
    finally:
        os.close(home)


class _Look:
    """One round of looking, with what all of it needs."""

    def __init__(self, paths: Paths, home: int, known: frozenset[str], now: float, cleaning: Cleaning) -> None:
        self._home = home
        self._known = known
        self._now = now
        self._cleaning = cleaning
        # Their owners replace these themselves when they start, and only they can do it without a race.
        self._in_use = {
            os.path.basename(path) for path in (paths.socket, paths.keeper_socket, paths.daemon_lock, paths.daemon_log)
        }

    def run_files(self) -> Iterator[Item]:
        """Sockets that nobody listens on, and temporary files whose writer was interrupted."""
        with _Folder(self._home, ("run",)) as folder:
            for name, st in folder.entries():
                path = f"run/{name}"
                if name in self._in_use:
                    continue
                if stat.S_ISSOCK(st.st_mode):
                    if not probing.somebody_listens(folder.fd, name):
                        yield _item(path, "socket", st, "nobody listens on it", True)
                elif stat.S_ISREG(st.st_mode) and name.endswith(_TEMPORARY):
                    age = self._now - _changed_at(st)
                    if age > RUN_GRACE_S:
                        yield _item(path, "run file", st, f"half-written {_ago(age)}, by nobody who still writes", True)

    def locks(self) -> Iterator[Item]:
        """Locks of bots that are no more and that no process holds."""
        with _Folder(self._home, ("locks",)) as folder:
            for name, st in folder.entries():
                id = name.removesuffix(".lock").replace("+", "/")
                if not name.endswith(".lock") or not _is_id(id) or id in self._known or not stat.S_ISREG(st.st_mode):
                    continue
                held = probing.somebody_holds(folder.fd, name)
                reason = "a process still holds it" if held else "its bot no longer exists"
                yield _item(f"locks/{name}", "lock", st, reason, not held, id)

    def orphans(self) -> Iterator[Item]:
        """The folders of bots that are no more."""
        kinds: tuple[tuple[str, Kind], ...] = (("bots", "bot folder"), ("logs", "log folder"))
        for top, kind in kinds:
            with _Folder(self._home, (top,)) as users:
                for user, st in users.entries():
                    if not stat.S_ISDIR(st.st_mode):
                        yield _item(f"{top}/{user}", kind, st, "not a folder that botd made", False)
                        continue
                    with _Folder(self._home, (top, user)) as bots:
                        for name, st in bots.entries():
                            item = self._orphan(bots.fd, f"{top}/{user}/{name}", kind, f"{user}/{name}", name, st)
                            if item is not None:
                                yield item

    def _orphan(self, parent: int, path: str, kind: Kind, id: str, name: str, st: os.stat_result) -> Item | None:
        if name.startswith(folders.GRAVE_PREFIX):
            return self._trash(parent, path, name, st)
        if id in self._known:
            return None
        if not _is_id(id) or not stat.S_ISDIR(st.st_mode):
            return _item(path, kind, st, "not a folder that botd made", False)
        found = _survey(parent, name)
        reason, remove = self._judge(found, st)
        return Item(path, kind, found.bytes, reason, remove, id, kind == "bot folder", (st.st_dev, st.st_ino))

    def _judge(self, found: Survey, st: os.stat_result) -> tuple[str, bool]:
        age = self._now - found.changed_at
        if not self._cleaning.garbage_collection:
            return "its bot no longer exists, and enableGarbageCollection is off", False
        if not found.complete:
            return "its bot no longer exists, but part of it cannot be read or is another file system", False
        if os.geteuid() not in (0, st.st_uid):
            return f"its bot no longer exists, but it belongs to uid {st.st_uid}", False
        if age <= self._cleaning.max_file_age_s:
            limit = _span(self._cleaning.max_file_age_s)
            return f"its bot no longer exists; changed {_ago(age)}, kept until {limit} have passed", False
        return f"its bot no longer exists; last changed {_ago(age)}", True

    def trash(self) -> Iterator[Item]:
        """What removals that were cut short have left."""
        with _Folder(self._home, (folders.TRASH,)) as folder:
            for name, st in folder.entries():
                item = self._trash(folder.fd, f"{folders.TRASH}/{name}", name, st)
                if item is not None:
                    yield item

    def _trash(self, parent: int, path: str, name: str, st: os.stat_result) -> Item | None:
        age = self._now - _changed_at(st)
        if age <= self._cleaning.max_file_age_s:
            return None  # it may be a removal under way
        size = _survey(parent, name).bytes if stat.S_ISDIR(st.st_mode) else st.st_blocks * tree.BLOCK
        reason = f"left by a removal that was cut short {_ago(age)}"
        return Item(path, "trash", size, reason, True, identity=(st.st_dev, st.st_ino))

    def rotated_logs(self, keep: int, max_age_s: float | None) -> Iterator[Item]:
        """Rotated files of existing bots beyond the number that is kept (it was lowered), or too old."""
        for id in sorted(self._known):
            user, _, bot = id.partition("/")
            with _Folder(self._home, ("logs", user, bot)) as folder:
                files = {name: (match, st) for name, st in folder.entries() if (match := _is_rotated(name))}
                logs = [(m[1], int(m[3]), st.st_mtime) for m, st in files.values() if m[2] == "log"]
                newest: dict[tuple[str, int], float] = {}
                """Of each file and the older ones behind it, so that no false time makes a gap. Indexes follow."""
                latest = {"out": 0.0, "err": 0.0}
                for stream, number, at in sorted(logs, key=lambda entry: -entry[1]):
                    newest[stream, number] = latest[stream] = max(latest[stream], at)
                for name, (match, st) in files.items():
                    if not stat.S_ISREG(st.st_mode):
                        continue
                    number = int(match[3])
                    age = self._now - newest.get((match[1], number), self._now)
                    if number > keep:
                        reason = f"of the rotated logs the newest {keep} are kept"
                    elif max_age_s is not None and age > max_age_s:
                        reason = f"last written {_ago(age)}, kept for {_span(max_age_s)} (output.maxAge)"
                    else:
                        continue
                    yield _item(f"logs/{id}/{name}", "rotated log", st, reason, True, id)


class _Folder:
    """A folder below the home for the time of a `with`; one that is missing, or a link, has no entries."""

    def __init__(self, home: int, parts: tuple[str, ...]) -> None:
        try:
            self.fd = tree.descend(home, parts)
        except (OSError, BotdError):
            self.fd = -1

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in sorted(os.listdir(self.fd)) if self.fd >= 0 else ():
            try:
                yield name, os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            except OSError:
                continue  # gone in this moment


def _survey(parent: int, name: str) -> Survey:
    try:
        fd = os.open(name, tree.DIRECTORY, dir_fd=parent)
    except OSError:
        return Survey(complete=False)
    try:
        return survey(fd)
    finally:
        os.close(fd)


def _item(path: str, kind: Kind, st: os.stat_result, reason: str, remove: bool, id: str | None = None) -> Item:
    size = 0 if stat.S_ISDIR(st.st_mode) else st.st_blocks * tree.BLOCK
    return Item(path, kind, size, reason, remove, id, identity=(st.st_dev, st.st_ino))


def _changed_at(st: os.stat_result) -> float:
    return max(st.st_mtime, st.st_ctime)


def _ago(seconds: float) -> str:
    return f"{_span(max(0.0, seconds))} ago"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
