"""The physical floor: the same work with nothing managed. Each function is what no manager can beat."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from benchmarks import processes
from benchmarks.machine import compiler

LINE_BYTES = 200
_MOVER = Path(__file__).with_name("mover.py")
_SPAWNER = Path(__file__).with_name("spawner.c")
_TRUNCATE_S = 0.05


@dataclass(frozen=True)
class Lives:
    """Seconds to start N programs, and to end and reap them."""

    start_s: float
    stop_s: float


@dataclass(frozen=True)
class Flow:
    """A flood of lines through something that moves them into a file."""

    lines_per_s: float
    cpu_s: float
    """What the mover used, per second of flood."""


def flooder() -> list[str]:
    """A command that writes lines of LINE_BYTES without end."""
    return [shutil.which("yes") or "/usr/bin/yes", processes.MARK, "x" * (LINE_BYTES - len(processes.MARK) - 2)]


def spawn(n: int) -> Lives:
    """posix_spawn in a loop of Python; it returns when the program was executed."""
    command = [processes.SLEEP, processes.MARK]
    pids: list[int] = []
    try:
        began = perf_counter()
        for _ in range(n):
            pid = os.posix_spawn(command[0], command, {})
            pids.append(pid)  # at once: what was started is ended, whatever interrupts this
        up = perf_counter()
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        while pids:
            os.waitpid(pids[-1], 0)
            pids.pop()
        return Lives(up - began, perf_counter() - up)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def c_spawner() -> Iterator[str | None]:
    """The compiled loop, or None where there is no compiler."""
    path = compiler()
    if path is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
        program = f"{folder}/spawner"
        subprocess.run([path, "-O2", "-o", program, str(_SPAWNER)], check=True)
        yield program


def spawn_in_c(program: str, n: int) -> Lives:
    """The same loop in C."""
    command = [program, str(n), processes.SLEEP, processes.MARK]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    start, stop = done.stdout.split()
    return Lives(float(start), float(stop))


def respawn(times: int) -> list[float]:
    """Seconds from each SIGKILL over waitpid to the next program executed."""
    command = [processes.SLEEP, processes.MARK]
    took = []
    pid = os.posix_spawn(command[0], command, {})
    try:
        for _ in range(times):
            began = perf_counter()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pid = os.posix_spawn(command[0], command, {})
            took.append(perf_counter() - began)
            sleep(0.002)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return took


def splice(seconds: float) -> Flow:
    """The flood through one splice from pipe to file."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
        return _flow([sys.executable, "-I", "-S", str(_MOVER), f"{folder}/log"], None, seconds)


def cat(seconds: float) -> Flow:
    """The flood through cat. The file is truncated behind its back, or it would fill the disk."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
        return _flow(["cat"], f"{folder}/log", seconds)


def _flow(mover: list[str], output: str | None, seconds: float) -> Flow:
    fd = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    source = target = None
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        source = subprocess.Popen(flooder(), stdout=writer)
        target = subprocess.Popen(mover, stdin=reader, stdout=fd)
        os.close(writer)
        os.close(reader)
        sleep(0.5)
        bytes_before, cpu_before, began = (
            processes.written_bytes(source.pid),
            processes.cpu_s(target.pid),
            perf_counter(),
        )
        while (left := began + seconds - perf_counter()) > 0:
            sleep(min(left, _TRUNCATE_S))
            if output is not None:
                os.ftruncate(fd, 0)
        took = perf_counter() - began
        written = processes.written_bytes(source.pid) - bytes_before
        return Flow(written / LINE_BYTES / took, (processes.cpu_s(target.pid) - cpu_before) / took)
    finally:
        for process in (source, target):
            if process is not None:
                process.kill()
                process.wait()
        os.close(fd)
