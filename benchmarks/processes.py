"""Processes as the kernel sees them: what they used, whether they live, and how the benchmark's own ones end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable
from time import perf_counter, sleep

SLEEP = "/bin/sleep"
MARK = f"86400.{os.getpid()}"
"""The argument of every bot that this run starts, by whatever manager: what bears it is ours to count and to end."""

_TICKS = os.sysconf("SC_CLK_TCK")


def read(path: str) -> bytes:
    """A whole file of /proc; empty when the process is gone or not ours to read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def marked() -> list[int]:
    """The pids of all living processes that bear MARK."""
    wanted = b"\0" + MARK.encode() + b"\0"
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and wanted in read(f"/proc/{name}/cmdline")]


def at_home(folder: str) -> list[int]:
    """The pids of all processes that were born with HOME=folder."""
    wanted = f"\0HOME={folder}\0".encode()
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and wanted in b"\0" + read(f"/proc/{name}/environ")
    ]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process since its start: in nanoseconds where the kernel keeps them, else in clock ticks."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return 0.0
    exact = [read(f"/proc/{pid}/task/{thread}/schedstat").split() for thread in threads]
    if exact and all(exact):
        return sum(int(fields[0]) for fields in exact) / 1e9
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def pss_mb(pid: int) -> float:
    """Proportional set size in MB (10^6 bytes): private pages whole, shared ones in equal parts."""
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def rss_mb(pid: int) -> float:
    """Resident set size in MB."""
    fields = read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if fields else float("nan")


def written_bytes(pid: int) -> int:
    """What a process has written so far, to whatever."""
    for line in read(f"/proc/{pid}/io").splitlines():
        if line.startswith(b"wchar:"):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/io cannot be read")


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    state = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1]
    return bool(state) and state[0] not in (b"Z", b"X")


def gone(pids: Iterable[int], within_s: float) -> bool:
    """Wait for the end of processes that need not be children; False when one is left after `within_s` seconds."""
    deadline = perf_counter() + within_s
    for pid in pids:
        while alive(pid):
            if perf_counter() > deadline:
                return False
            _wait(pid, deadline - perf_counter())
    return True


def _wait(pid: int, seconds: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(1.0, seconds * 1000))
    finally:
        os.close(pidfd)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process; one that is gone is as good."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it was quicker


def sweep(find: Callable[[], list[int]] = marked) -> int:
    """End every process that `find` finds, until it finds none; how many there were."""
    total = 0
    while pids := find():
        total += len(pids)
        for pid in pids:
            kill(pid)
        if not gone(pids, 5.0):
            break
        sleep(0.05)
    return total
