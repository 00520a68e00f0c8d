"""Which processes belong to which bot, beside its main process: one look at /proc for all of them.

Most bots are one process. A list of all pids costs less than asking every bot for its children, and only a
pid that is nobody's main process is looked at. Where the kernel has given out few numbers since the last look, even the
list is not needed. A child is known by its session (every bot leads one of its own), by who its parent is, or by the
bot's cgroup where it has one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from botd.system.procfs import Stat, is_thread, parse_stat, read_small

_FORGET_ROUNDS = 12
"""After so many rounds strangers are looked at again: their numbers may have been given to others."""

_FEW = 300
"""So many numbers are tried one by one rather than listed with all others."""


class Kin(NamedTuple):
    """One process of a bot that is not its main process. `new_ticks`: processor time since the look before."""

    pid: int
    stat: Stat
    new_ticks: int


class Census:
    """Remembers who is whose, so that a process is asked only once where it comes from. `proc`: a fixture in tests."""

    __slots__ = ("_known", "_last_pid", "_proc", "_rounds", "_strangers")

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[int, tuple[str, Stat]] = {}
        self._strangers: set[int] = set()
        self._rounds = 0
        self._last_pid: int | None = None

    def take(self, mains: Mapping[int, str], groups: Mapping[str, str]) -> dict[str, list[Kin]]:
        """Bot -> its processes but the main one; bots of one process are not in it.

        `mains`: main pid -> bot; `groups`: a life's cgroup folder, as FLEET/LIFE -> bot. OSError without /proc.
        """
        pids = self._candidates()
        stats: dict[int, Stat] = {}
        for pid in pids - mains.keys() - self._strangers:
            stat = self._stat(pid)
            if stat is not None:
                stats[pid] = stat
        before, self._known = self._known, {}
        found: dict[str, list[Kin]] = {}
        for pid, stat in stats.items():
            former = before.get(pid)
            same = former is not None and former[1].start_ticks == stat.start_ticks
            owner = former[0] if former is not None and same else self._owner(pid, stats, before, mains, groups)
            if owner is None:
                self._strangers.add(pid)
                continue
            self._known[pid] = (owner, stat)
            used = stat.cpu_ticks - (former[1].cpu_ticks if former is not None and same else 0)
            found.setdefault(owner, []).append(Kin(pid, stat, max(0, used)))
        return found

    def born(self, main: int) -> None:
        """A bot has a new main process: what was born after it may be its own, and was perhaps taken for a stranger."""
        if self._last_pid is not None and main < self._last_pid:
            self._last_pid = main

    def _candidates(self) -> set[int]:
        """Every number that may belong to a process of a bot."""
        since, self._last_pid = self._last_pid, self._newest()
        self._rounds += 1
        forget = self._rounds % _FORGET_ROUNDS == 0
        if not forget and since is not None and self._last_pid is not None and 0 <= self._last_pid - since <= _FEW:
            new = range(since + 1, self._last_pid + 1)
            self._strangers.difference_update(new)
            return {*self._known, *new}
        pids = {int(name) for name in os.listdir(self._proc) if name.isdigit()}
        self._strangers = set() if forget else self._strangers & pids
        return pids

    def _newest(self) -> int | None:
        """The number that was given out last; they are given out in a circle."""
        try:
            return int(read_small(f"{self._proc}/loadavg").split()[4])
        except (OSError, ValueError, IndexError):
            return None

    def _owner(
        self,
        pid: int,
        stats: Mapping[int, Stat],
        before: Mapping[int, tuple[str, Stat]],
        mains: Mapping[int, str],
        groups: Mapping[str, str],
    ) -> str | None:
        passed: set[int] = set()
        at = pid
        while at not in passed:
            owner = mains.get(at)
            if owner is not None:
                return owner
            stat = stats.get(at)
            if stat is None:
                break  # a stranger, or gone
            former = before.get(at)
            if former is not None and former[1].start_ticks == stat.start_ticks:
                return former[0]
            owner = mains.get(stat.session)
            if owner is not None:
                return owner
            passed.add(at)
            at = stat.parent
        return self._of_group(pid, groups) if groups else None

    def _of_group(self, pid: int, groups: Mapping[str, str]) -> str | None:
        """Orphans of a bot in a cgroup have another parent, and may have a session of their own."""
        try:
            lines = os.fsdecode(read_small(f"{self._proc}/{pid}/cgroup")).splitlines()
        except OSError:
            return None
        for line in lines:
            if line.startswith("0::"):
                # The outermost name counts: a bot may make folders of any name within its own.
                parts = line[3:].split("/")
                for pair in map("/".join, pairwise(parts)):
                    if pair in groups:
                        return groups[pair]
        return None

    def _stat(self, pid: int) -> Stat | None:
        try:
            raw = read_small(f"{self._proc}/{pid}/stat")
        except OSError:
            return None  # it ended just now, or is hidden from us
        return None if is_thread(raw) else parse_stat(raw)
