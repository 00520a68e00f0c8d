"""What each bot uses, read straight from /proc and its cgroup: a thousand bots must cost next to nothing.

The descriptor of /proc/PID/stat stays open: it belongs to the process and not to the number, so a reused pid can
never be taken for the bot, and a read saves looking up the path. Where descriptors are short the file is
opened each time instead, and the start time tells a stranger.
"""

from __future__ import annotations

import os

from botd.system import descriptors
from botd.system.census import Census, Kin
from botd.system.cgroup import MemoryFolder
from botd.system.procfs import PAGE, STAT_MAX, TICKS_PER_S, parse_stat, read_small, resident

# With less time than this between two samples a single clock tick would look like a busy processor.
_SHORTEST_S = 0.1
# Growth is told over half a minute to one and a half: less is a moment, more is history.
_WINDOW_S, _LATELY_S = 30.0, 90.0


class Sample:
    """What one bot used at its last sample, with all its processes. It is updated in place: read it, do not keep it.

    `memory_bytes` as its cgroup counts it without droppable file pages, else the resident memory of its processes (what
    they share counts for each, see `Sampler.exact`); `cpu_percent` of one processor since the sample before (None at
    the first one); `cpu_s` in all; `processes`; `threads` of all processes; `at` the `now` of the sample;
    `shared_bytes` what `memory_bytes` no longer counts twice.
    """

    __slots__ = ("at", "cpu_percent", "cpu_s", "memory_bytes", "newer", "older", "processes", "shared_bytes", "threads")

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.cpu_percent: float | None = None
        self.cpu_s = 0.0
        self.processes = 1
        self.threads = self.shared_bytes = 0
        self.at = 0.0
        self.older = self.newer = (float("-inf"), 0)

    def growth(self) -> float:
        """Bytes a minute that it has grown by lately (less than 0: it shrank); a sudden step counts over 30 s."""
        for at, memory in (self.older, self.newer):
            if self.at - at <= _LATELY_S:
                return 60.0 * (self.memory_bytes - memory) / max(self.at - at, _WINDOW_S)
        return 0.0  # no change since

    def _remember(self, at: float, memory: int) -> None:
        """Its memory was `memory` at `at`, just before it changed."""
        if at - self.newer[0] >= _WINDOW_S:
            self.older, self.newer = self.newer, (at, memory)


class _Watched(Sample):
    __slots__ = (
        "fd",
        "first_at",
        "folder",
        "group",
        "kin",
        "measured_at",
        "own_bytes",
        "own_threads",
        "pid",
        "raw",
        "start_ticks",
        "ticks",
    )

    def __init__(self, pid: int, fd: int, start_ticks: int) -> None:
        super().__init__()
        self.pid = pid
        self.fd = fd
        self.start_ticks = start_ticks
        self.ticks = 0
        self.first_at = self.measured_at = -1.0
        self.raw = b""
        self.own_bytes = self.own_threads = 0
        self.kin: list[Kin] = []
        self.folder: MemoryFolder | None = None
        self.group: str | None = None


class Sampler:
    """Samples many bots. `max_open` bounds its descriptors (default: its share of the limit)."""

    __slots__ = (
        "_census",
        "_groups",
        "_mains",
        "_max_open",
        "_open",
        "_sampled_at",
        "_watched",
        "_with_kin",
        "stirred",
    )

    def __init__(self, max_open: int | None = None, census: Census | None = None) -> None:
        self._watched: dict[str, _Watched] = {}
        self._mains: dict[int, str] = {}
        self._groups: dict[str, str] = {}
        self._with_kin: set[str] = set()
        self.stirred: set[str] = set()
        """Bots that may use more than when somebody last looked; who has looked takes them out."""
        self._census = census or Census()
        self._sampled_at = -1.0
        self._open = 0
        self._max_open = descriptors.current().sampled if max_open is None else max_open

    def __len__(self) -> int:
        return len(self._watched)

    def add(
        self,
        id: str,
        pid: int,
        pidfd: int | None = None,
        *,
        memory: str | None = None,
        group: str | None = None,
    ) -> bool:
        """Watch the process `pid` as bot `id`, in place of what was watched under that id. False when it is gone.

        With a `pidfd` of the life it is certain that `pid` has not been reused in between; it is only looked at here.
        `memory`: the folder of its memory controller; `group`: the folder of the cgroup that holds its processes.
        """
        self.remove(id)
        fd = -1
        try:
            fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            stat = parse_stat(os.pread(fd, STAT_MAX, 0))
        except OSError as error:
            if fd >= 0 or isinstance(error, (FileNotFoundError, ProcessLookupError, PermissionError)):
                _close(fd)
                return False
            # No descriptor to spare: sampling will try again, and take the first process it finds for the bot.
            stat = None
        if stat is None and fd >= 0:
            os.close(fd)
            return False
        if pidfd is not None and _ended(pidfd):
            _close(fd)
            return False
        watched = _Watched(pid, -1, -1 if stat is None else stat.start_ticks)
        if fd >= 0:
            if self._open < self._max_open:
                watched.fd = fd
                self._open += 1
            else:
                os.close(fd)
        if memory is not None and self._open < self._max_open:
            try:
                watched.folder = MemoryFolder(memory)
                self._open += 1
            except OSError:
                pass  # it has ended just now, or descriptors are short: its processes are counted instead
        if group is not None:
            # With the folder above, which is this fleet's own: another one may have a bot of the same name.
            watched.group = "/".join(group.split("/")[-2:])
            self._groups[watched.group] = id
        self._watched[id] = watched
        self._mains[pid] = id
        self._census.born(pid)
        return True

    def remove(self, id: str) -> None:
        """Stop watching; nothing happens when `id` is not watched."""
        watched = self._watched.pop(id, None)
        if watched is None:
            return
        if watched.fd >= 0:
            os.close(watched.fd)
            self._open -= 1
        if watched.folder is not None:
            watched.folder.close()
            self._open -= 1
        if watched.group is not None and self._groups.get(watched.group) == id:
            del self._groups[watched.group]
        if self._mains.get(watched.pid) == id:
            del self._mains[watched.pid]
        self._with_kin.discard(id)
        self.stirred.discard(id)

    def get(self, id: str) -> Sample | None:
        """The last sample; None when there was none yet or the process is gone."""
        watched = self._watched.get(id)
        return watched if watched is not None and watched.measured_at >= 0 else None

    def first(self, id: str, now: float) -> Sample | None:
        """The last sample of one bot, taken now when there was none yet: for who asks before the next round."""
        watched = self._watched.get(id)
        if watched is not None and watched.measured_at < 0:
            try:
                raw = os.pread(watched.fd, STAT_MAX, 0) if watched.fd >= 0 else read_small(f"/proc/{watched.pid}/stat")
            except OSError:
                return None
            watched.at = now
            _measure(watched, raw, now)
            _add_up(watched, -1.0)
            self.stirred.add(id)
        return self.get(id)

    def pids(self, id: str) -> list[int]:
        """The processes of one bot, as far as they are known: those of its last sample."""
        watched = self._watched.get(id)
        return [] if watched is None else [watched.pid, *(kin.pid for kin in watched.kin)]

    def exact(self, id: str, limit: int) -> int:
        """The memory of one bot in bytes; where it might be over `limit`, what its processes share is counted once."""
        watched = self._watched.get(id)
        if watched is None:
            return 0
        if watched.folder is None and watched.kin and watched.memory_bytes + watched.shared_bytes > limit:
            # Dear, and asked again each time: what was shared after a fork is copied when it is written to.
            pids = [watched.pid, *(kin.pid for kin in watched.kin)]
            every = watched.memory_bytes + watched.shared_bytes
            watched.shared_bytes = max(0, every - sum(map(resident, pids)))
            watched.memory_bytes = every - watched.shared_bytes
        return watched.memory_bytes

    def sample(self, now: float) -> None:
        """Sample every bot; those whose process is gone are watched no longer. `now`: seconds of CLOCK_BOOTTIME."""
        gone: list[str] = []
        pread, before = os.pread, self._sampled_at
        for id, watched in self._watched.items():
            try:
                raw = pread(watched.fd, STAT_MAX, 0) if watched.fd >= 0 else read_small(f"/proc/{watched.pid}/stat")
            except (ProcessLookupError, FileNotFoundError):
                gone.append(id)
                continue
            except OSError:
                continue  # descriptors are short this moment: the last sample stands
            watched.at = now
            if raw == watched.raw:
                # Most bots wait most of the time: the same bytes are the same figures, and no time was used. Who has
                # not run has not changed what its cgroup counts either.
                if now - watched.measured_at >= _SHORTEST_S:
                    watched.cpu_percent = 0.0
                    watched.measured_at = now
                continue
            if not _measure(watched, raw, now):
                gone.append(id)
                continue
            _add_up(watched, before)
            self.stirred.add(id)
        for id in gone:
            self.remove(id)
        self._sampled_at = now
        self._count_kin(before, now - before)

    def _count_kin(self, before: float, passed: float) -> None:
        """The other processes of the bots that have some."""
        try:
            found = self._census.take(self._mains, self._groups)
        except OSError:
            return  # descriptors are short this moment: the last ones stand
        with_kin, self._with_kin = self._with_kin, found.keys() & self._watched.keys()
        self.stirred |= self._with_kin
        for id in with_kin - self._with_kin:
            self._watched[id].kin = []
            _add_up(self._watched[id], before)
        for id in self._with_kin:
            watched, kin = self._watched[id], found[id]
            watched.kin = kin
            used = sum(one.new_ticks for one in kin) / TICKS_PER_S
            watched.cpu_s += used
            if watched.cpu_percent is not None and passed >= _SHORTEST_S:
                watched.cpu_percent += 100.0 * used / passed
            _add_up(watched, before)

    def close(self) -> None:
        for id in list(self._watched):
            self.remove(id)


def _add_up(watched: _Watched, before: float) -> None:
    """The figures of a bot from those of its processes, or of its cgroup. `before`: when it was sampled last."""
    processes = 1 + len(watched.kin)
    if processes != watched.processes:
        watched.processes, watched.shared_bytes = processes, 0
    memory = watched.own_bytes + PAGE * sum(one.stat.rss_pages for one in watched.kin)
    memory = max(watched.own_bytes, memory - watched.shared_bytes)
    watched.threads = watched.own_threads + sum(one.stat.threads for one in watched.kin)
    if watched.folder is not None:
        memory = watched.folder.used() or memory
    if memory != watched.memory_bytes:
        if 0.0 <= watched.first_at <= before:
            watched._remember(before, watched.memory_bytes)
        watched.memory_bytes = memory


def _measure(watched: _Watched, raw: bytes, now: float) -> bool:
    """Take the figures of `raw`; False when it is about another process than before."""
    stat = parse_stat(raw)
    if stat is None:
        return True  # never seen; the last sample stands
    if stat.start_ticks != watched.start_ticks:
        if watched.start_ticks >= 0:
            return False
        watched.start_ticks = stat.start_ticks
    watched.own_bytes = stat.rss_pages * PAGE
    watched.own_threads = stat.threads
    passed = now - watched.measured_at
    if watched.measured_at >= 0:
        if passed < _SHORTEST_S:
            return True  # the time used since the last measurement stays for the next one
        watched.cpu_percent = 100.0 * (stat.cpu_ticks - watched.ticks) / TICKS_PER_S / passed
    else:
        watched.first_at = now
    watched.cpu_s += (stat.cpu_ticks - watched.ticks) / TICKS_PER_S
    watched.raw, watched.ticks, watched.measured_at = raw, stat.cpu_ticks, now
    return True


def _ended(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
