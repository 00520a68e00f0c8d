"""What nothing needs any more, each with its reason. This module only looks.

A bot that exists loses nothing, whether it runs or not, but rotated logs beyond the number that are kept. What a
bot that is no more has left behind may go when nothing in it has changed for maxFileAge.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.settings import Cleaning
from botd.storage import probing, tree
from botd.storage.disused import disused
from botd.storage.items import Claim, Folder, Item, ago, changed_at, is_id, item, span
from botd.storage.remains import Remains

Scope = Literal["all", "run", "storage"]

RUN_GRACE_S = 60.0
"""A half-written file in run/ that is older than this has no writer any more."""

_is_rotated = re.compile(r"\A(out|err)\.(log|idx)\.([1-9][0-9]{0,5})(?:\.gz)?\Z").match
_TEMPORARY = (".tmp", ".new")


def plan(
    paths: Paths,
    known: Collection[str],
    live: Collection[str],
    now: float,
    cleaning: Cleaning,
    *,
    keep_logs: int | None = None,
    max_log_age_s: float | None = None,
    claims: Mapping[str, Claim] = MappingProxyType({}),
    needed: Mapping[tuple[str, str], str] = MappingProxyType({}),
    scope: Scope = "all",
    trusted: bool = True,
) -> list[Item]:
    """What a clean-up would remove and what it would keep although it looks left over. Changes nothing; blocks.

    `known`: the ids of all bots; `live`: those with a process; `now`: seconds since the epoch; `keep_logs`: how many
    rotated logs of a bot stay (None: all), `max_log_age_s`: for how long after they were written (None: for ever);
    `claims`: what is on record of deleted bots, by the names that they have in the trash; `needed`: (template, release)
    -> why, of those that somebody uses; `scope`: rubbish of running
    (sockets, locks, logs), storage (folders), or all; without `trusted` the ids may not be all of them, and nothing of
    anybody goes.
    BotdError(unavailable) when the home cannot be read.
    """
    try:
        home = tree.open_directory(paths.home)
    except OSError as error:
        raise BotdError("unavailable", f"{paths.home} cannot be read: {error.strerror}") from error
    try:
        ids = frozenset(known) | frozenset(live)
        items: list[Item] = []
        if scope != "storage":
            look = _Look(paths, home, ids, now, cleaning)
            items += [*look.run_files(), *look.locks()]
            if keep_logs is not None:
                items += look.rotated_logs(keep_logs, max_log_age_s)
        if scope != "run":
            remains = Remains(home, ids, claims, now, cleaning)
            items += [*remains.orphans(), *remains.trash(), *remains.former()]
            items += disused(paths, home, needed, now, cleaning)
        return items if trusted else [_doubted(one) for one in items]
    finally:
        os.close(home)


def _doubted(one: Item) -> Item:
    if one.kind in ("socket", "run file") or not one.remove:
        return one
    return replace(one, remove=False, reason="the database is damaged; nothing of anybody goes before it is repaired")


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
        with Folder(self._home, ("run",)) as folder:
            for name, st in folder.entries():
                path = f"run/{name}"
                if name in self._in_use:
                    continue
                if stat.S_ISSOCK(st.st_mode):
                    if not probing.somebody_listens(folder.fd, name):
                        yield item(path, "socket", st, "nobody listens on it", True)
                elif stat.S_ISREG(st.st_mode) and name.endswith(_TEMPORARY):
                    age = self._now - changed_at(st)
                    if age > RUN_GRACE_S:
                        yield item(path, "run file", st, f"half-written by nobody who still writes; {ago(age)}", True)

    def locks(self) -> Iterator[Item]:
        """Locks of bots that are no more and that no process holds."""
        with Folder(self._home, ("locks",)) as folder:
            for name, st in folder.entries():
                id = name.removesuffix(".lock").replace("+", "/")
                if not name.endswith(".lock") or not is_id(id) or id in self._known or not stat.S_ISREG(st.st_mode):
                    continue
                held = probing.somebody_holds(folder.fd, name)
                reason = "a process still holds it" if held else "its bot no longer exists"
                yield item(f"locks/{name}", "lock", st, reason, not held, id)

    def rotated_logs(self, keep: int, max_age_s: float | None) -> Iterator[Item]:
        """Rotated files of existing bots beyond the number that is kept (it was lowered), or too old."""
        for id in sorted(self._known):
            user, _, bot = id.partition("/")
            with Folder(self._home, ("logs", user, bot)) as folder:
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
                        reason = f"kept for {span(max_age_s)} (output.maxAge); last written {ago(age)}"
                    else:
                        continue
                    yield item(f"logs/{id}/{name}", "rotated log", st, reason, True, id)
