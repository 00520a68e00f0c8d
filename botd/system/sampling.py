"""What each bot uses, read straight from /proc: a thousand bots must cost next to nothing.

The descriptor of /proc/PID/stat stays open: it belongs to the process and not to the number, so a reused pid can
never be taken for the bot, and a read saves looking up the path. Where descriptors are short the file is
opened each time instead, and the start time tells a stranger.
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# With less time than this between two samples a single clock tick would look like a busy processor.
_SHORTEST_S = 0.1
_STAT_MAX = 1024


class Stat(NamedTuple):
    """The part of /proc/PID/stat that matters here. Ticks are of TICKS_PER_S, user and system together."""

    state: bytes
    cpu_ticks: int
    threads: int
    start_ticks: int
    rss_pages: int


class Sample:
    """What one bot used at its last sample. It is updated in place: read it, do not keep it.

    `memory_bytes` resident memory; `cpu_percent` of one processor since the sample before (None at the first one);
    `cpu_s` in all; `threads`; `at` the `now` of the sample.
    """

    __slots__ = ("at", "cpu_percent", "cpu_s", "memory_bytes", "threads")

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.cpu_percent: float | None = None
        self.cpu_s = 0.0
        self.threads = 0
        self.at = 0.0


class _Watched(Sample):
    __slots__ = ("fd", "measured_at", "pid", "raw", "start_ticks", "ticks")

    def __init__(self, pid: int, fd: int, start_ticks: int) -> None:
        super().__init__()
        self.pid = pid
        self.fd = fd
        self.start_ticks = start_ticks
        self.ticks = 0
        self.measured_at = -1.0
        self.raw = b""


class Sampler:
    """Samples the main process of many bots. `max_open` bounds its descriptors (default: a quarter of the limit)."""

    __slots__ = ("_max_open", "_open", "_watched")

    def __init__(self, max_open: int | None = None) -> None:
        self._watched: dict[str, _Watched] = {}
        self._open = 0
        self._max_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4 if max_open is None else max_open

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, id: str, pid: int, pidfd: int | None = None) -> bool:
        """Watch the process `pid` as bot `id`, in place of what was watched under that id. False when it is gone.

        With a `pidfd` of the life it is certain that `pid` has not been reused in between; it is only looked at here.
        """
        self.remove(id)
        fd = -1
        try:
            fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            stat = parse_stat(os.pread(fd, _STAT_MAX, 0))
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
        self._watched[id] = watched
        return True

    def remove(self, id: str) -> None:
        """Stop watching; nothing happens when `id` is not watched."""
        watched = self._watched.pop(id, None)
        if watched is not None and watched.fd >= 0:
            os.close(watched.fd)
            self._open -= 1

    def get(self, id: str) -> Sample | None:
        """The last sample; None when there was none yet or the process is gone."""
        watched = self._watched.get(id)
        return watched if watched is not None and watched.measured_at >= 0 else None

    def first(self, id: str, now: float) -> Sample | None:
        """The last sample of one bot, taken now when there was none yet: for who asks before the next round."""
        watched = self._watched.get(id)
        if watched is not None and watched.measured_at < 0:
            try:
                raw = os.pread(watched.fd, _STAT_MAX, 0) if watched.fd >= 0 else _read_once(watched.pid)
            except OSError:
                return None
            watched.at = now
            _measure(watched, raw, now)
        return self.get(id)

    def sample(self, now: float) -> None:
        """Sample every bot; those whose process is gone are watched no longer. `now`: seconds of CLOCK_BOOTTIME."""
        gone: list[str] = []
        pread = os.pread
        for id, watched in self._watched.items():
            try:
                raw = pread(watched.fd, _STAT_MAX, 0) if watched.fd >= 0 else _read_once(watched.pid)
            except (ProcessLookupError, FileNotFoundError):
                gone.append(id)
                continue
            except OSError:
                continue  # descriptors are short this moment: the last sample stands
            watched.at = now
            if raw == watched.raw:
                # Most bots wait most of the time: the same bytes are the same figures, and no time was used.
                if now - watched.measured_at >= _SHORTEST_S:
                    watched.cpu_percent = 0.0
                    watched.measured_at = now
            elif not _measure(watched, raw, now):
                gone.append(id)
        for id in gone:
            self.remove(id)

    def close(self) -> None:
        for id in list(self._watched):
            self.remove(id)


def _measure(watched: _Watched, raw: bytes, now: float) -> bool:
    """Take the figures of `raw`; False when it is about another process than before."""
    stat = parse_stat(raw)
    if stat is None:
        return True  # never seen; the last sample stands
    if stat.start_ticks != watched.start_ticks:
        if watched.start_ticks >= 0:
            return False
        watched.start_ticks = stat.start_ticks
    watched.memory_bytes = stat.rss_pages * PAGE
    watched.threads = stat.threads
    watched.cpu_s = stat.cpu_ticks / TICKS_PER_S
    passed = now - watched.measured_at
    if watched.measured_at >= 0:
        if passed < _SHORTEST_S:
            return True  # the time used since the last measurement stays for the next one
        watched.cpu_percent = 100.0 * (stat.cpu_ticks - watched.ticks) / TICKS_PER_S / passed
    watched.raw, watched.ticks, watched.measured_at = raw, stat.cpu_ticks, now
    return True


def parse_stat(raw: bytes) -> Stat | None:
    """/proc/PID/stat -> its figures; None when it is none. The program's name may hold spaces and brackets."""
    fields = raw[raw.rfind(b")") + 2 :].split(b" ", 22)
    try:
        return Stat(fields[0], int(fields[11]) + int(fields[12]), int(fields[17]), int(fields[19]), int(fields[21]))
    except (IndexError, ValueError):
        return None


def _read_once(pid: int) -> bytes:
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, _STAT_MAX, 0)
    finally:
        os.close(fd)


def _ended(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
