"""Small files of /proc: reading one, and what /proc/PID/stat says."""

from __future__ import annotations

import os
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STAT_MAX = 1024


class Stat(NamedTuple):
    """The part of /proc/PID/stat that matters here. Ticks are of TICKS_PER_S, user and system together."""

    state: bytes
    parent: int
    session: int
    cpu_ticks: int
    threads: int
    start_ticks: int
    rss_pages: int


def parse_stat(raw: bytes) -> Stat | None:
    """/proc/PID/stat -> its figures; None when it is none. The program's name may hold spaces and brackets."""
    fields = raw[raw.rfind(b")") + 2 :].split(b" ", 22)
    try:
        return Stat(
            fields[0],
            int(fields[1]),
            int(fields[3]),
            int(fields[11]) + int(fields[12]),
            int(fields[17]),
            int(fields[19]),
            int(fields[21]),
        )
    except (IndexError, ValueError):
        return None


def is_thread(raw: bytes) -> bool:
    """Whether /proc/NUMBER/stat is of a thread that is not its process's first: those answer there, too, unlisted.

    They alone signal nobody when they end (the field exit_signal).
    """
    fields = raw[raw.rfind(b")") + 2 :].split(b" ", 36)
    return len(fields) > 35 and fields[35] == b"-1"


def read_small(path: str) -> bytes:
    """The first kilobyte of a file. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, STAT_MAX)
    finally:
        os.close(fd)


def resident(pid: int) -> int:
    """Bytes of a process, those shared with others in equal parts; 0 when it is gone.

    Where its page tables are closed to us: what it shares with nobody else, about.
    """
    try:
        # Short where it is there at all: one line a figure.
        for line in read_small(f"/proc/{pid}/smaps_rollup").split(b"\n"):
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # not ours, or a kernel without it
    try:
        _size, held, shared = read_small(f"/proc/{pid}/statm").split()[:3]
        return max(0, int(held) - int(shared)) * PAGE
    except (OSError, ValueError):
        return 0
