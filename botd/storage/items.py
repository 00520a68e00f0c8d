"""What a clean-up looks at: one thing that could go, with its reason, and the small tools of those who look."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from botd.contract.errors import BotdError
from botd.contract.manifest import ID_PATTERN
from botd.storage import tree
from botd.storage.measure import Survey, survey

Kind = Literal[
    "socket",
    "lock",
    "run file",
    "bot folder",
    "log folder",
    "rotated log",
    "trash",
    "deleted bot",
    "app folder",
    "release",
    "objects",
    "staging",
]

is_id = re.compile(ID_PATTERN).match


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that could go. `path` is relative to the home; `bytes` are whole blocks on disk; `remove` says whether
    it goes and `reason` why or why not, the rule before a semicolon and its figures behind it; `data`: somebody's own
    work, to be asked about.
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


class Claim(NamedTuple):
    """What is on record of a deleted bot. `until_wall`: seconds since the epoch; None: it is just on its way. `bytes`:
    on disk, where that is known.
    """

    id: str
    until_wall: float | None
    bytes: int | None = None


class Folder:
    """A folder below the home for the time of a `with`; one that is missing, or a link, has no entries."""

    def __init__(self, home: int, parts: tuple[str, ...]) -> None:
        try:
            self.fd = tree.descend(home, parts)
        except (OSError, BotdError):
            self.fd = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in sorted(os.listdir(self.fd)) if self.fd >= 0 else ():
            st = self.stat(name)
            if st is not None:
                yield name, st

    def stat(self, name: str) -> os.stat_result | None:
        """Of what is there, a link itself; None when there is nothing (any more)."""
        if self.fd < 0:
            return None
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return None


def survey_of(parent: int, name: str) -> Survey:
    """What lies in a folder; in part only when it cannot be opened."""
    try:
        fd = os.open(name, tree.DIRECTORY, dir_fd=parent)
    except OSError:
        return Survey(complete=False)
    try:
        return survey(fd)
    finally:
        os.close(fd)


def item(path: str, kind: Kind, st: os.stat_result, reason: str, remove: bool, id: str | None = None) -> Item:
    """Of something that is not walked through."""
    size = 0 if stat.S_ISDIR(st.st_mode) else st.st_blocks * tree.BLOCK
    return Item(path, kind, size, reason, remove, id, identity=(st.st_dev, st.st_ino))


def changed_at(st: os.stat_result) -> float:
    """Seconds since the epoch: a restored backup has an old mtime but a new ctime."""
    return max(st.st_mtime, st.st_ctime)


def ago(seconds: float) -> str:
    return f"{span(max(0.0, seconds))} ago"


def span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
