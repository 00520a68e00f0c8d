"""The machine under the figures: what it is, how busy it is, and how many bots it has room for."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import sleep
from typing import Any

from benchmarks.processes import read

BUSY_PERCENT = 10.0
"""Above this share of all cores used by others, figures say more about the others than about botd."""

_KEEPER_DESCRIPTORS, _DAEMON_DESCRIPTORS, _SPARE_DESCRIPTORS = 7, 4, 200
_BOT_MEMORY = 1 << 20
_PROCESSES = 500


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    compiler: str
    user: str
    load: tuple[float, float, float]
    busy_percent: float
    """CPU that others used in the second before the first measurement, of all cores."""

    def lines(self) -> list[str]:
        """For the head of the report."""
        load = " ".join(f"{value:.2f}" for value in self.load)
        return [
            f"{self.cores} cores of {self.cpu}, {self.memory_gb:.0f} GB, Linux {self.kernel}",
            f"Python {self.python}, {self.compiler}, run as {self.user}",
            f"load average at the start {load}; others used {self.busy_percent:.0f} % of the machine",
        ]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def look() -> Machine:
    """The facts; takes a second, which it spends listening to how busy the others are."""
    others = others_percent()
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=_meminfo(b"MemTotal:") / 1e9,
        kernel=platform.release(),
        python=platform.python_version(),
        compiler=_compiler_version(),
        user="root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        load=os.getloadavg(),
        busy_percent=others,
    )


def others_percent() -> float:
    """How much of all cores is used while we only listen, for a second."""
    with BusyMeter() as others:
        sleep(1.0)
    return others.percent


class BusyMeter:
    """`with BusyMeter() as meter:` then `meter.percent`: the share of all cores that was used meanwhile."""

    percent = 0.0

    def __enter__(self) -> BusyMeter:
        self._before = _cpu_times()
        return self

    def __exit__(self, *_error: object) -> None:
        busy, idle = (after - before for after, before in zip(_cpu_times(), self._before, strict=True))
        self.percent = 100.0 * busy / max(1, busy + idle)


def _cpu_times() -> tuple[int, int]:
    """(busy, idle) ticks of all cores. Time stolen by the hypervisor counts as busy: it is not ours."""
    times = [int(word) for word in read("/proc/stat").split(b"\n", 1)[0].split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, idle


def no_room(n: int) -> str | None:
    """Why `n` bots cannot be measured here, in words; None when they can."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Only root's keeper may raise the hard limit for itself; botd never does.
    each = _DAEMON_DESCRIPTORS if os.geteuid() == 0 else _KEEPER_DESCRIPTORS
    if n * each + _SPARE_DESCRIPTORS > hard:
        return f"needs {n * each + _SPARE_DESCRIPTORS} descriptors and the hard limit is {hard} (ulimit -Hn)"
    available = _meminfo(b"MemAvailable:")
    if n * _BOT_MEMORY > available:
        return f"needs about {n * _BOT_MEMORY / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free"
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = int(read("/proc/sys/kernel/pid_max") or 32768)
    if processes not in (resource.RLIM_INFINITY, -1):
        most = min(most, processes)
    if n + _PROCESSES > most:
        return f"needs {n + _PROCESSES} processes and at most {most} may exist"
    return None


def compiler() -> str | None:
    """The path of a C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


def _compiler_version() -> str:
    path = compiler()
    if path is None:
        return "no C compiler"
    words = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return words.partition("\n")[0] or path


def _cpu_model() -> str:
    for line in read("/proc/cpuinfo").decode("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine() or sys.platform


def _meminfo(key: bytes) -> int:
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0
