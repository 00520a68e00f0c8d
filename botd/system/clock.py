"""Time, from one place. Everything that decides gets `now` as an argument; only the rim asks this clock."""

from __future__ import annotations

import os
import time
from functools import lru_cache


class Clock:
    """The real clock. Tests bring their own with the same methods.

    For faults on purpose: the file that BOTD_CLOCK names has two numbers, the seconds by which somebody has set the
    wall clock, and those that the machine has been suspended for.
    """

    __slots__ = ("_boot_id", "_shifts", "_wall_at_boot")

    def __init__(self) -> None:
        self._boot_id = ""
        self._shifts = os.environ.get("BOTD_CLOCK", "")
        self._wall_at_boot = self.wall() - self.boottime()

    def boottime(self) -> float:
        """Seconds since the machine booted, suspended time included: nobody can set it. For every decision."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) + (self._shift(1) if self._shifts else 0.0)

    def wall(self) -> float:
        """Seconds since the epoch; jumps when somebody sets the clock. For display only."""
        return time.time() + (sum(map(self._shift, (0, 1))) if self._shifts else 0.0)

    def steady(self) -> float:
        """Seconds since the epoch as the wall clock had it when botd began: for the age of what is on record."""
        return self._wall_at_boot + self.boottime()

    def _shift(self, which: int) -> float:
        try:
            with open(self._shifts, encoding="ascii") as file:
                return float(file.read().split()[which])
        except (OSError, ValueError, IndexError):
            return 0.0

    def boot_id(self) -> str:
        """The name of this boot of the machine: a boottime means nothing under another one."""
        if not self._boot_id:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                self._boot_id = file.read().strip()
        return self._boot_id


def rfc3339(wall: float) -> str:
    """Seconds since the epoch -> "2024-05-01T12:00:00.250Z". ValueError or OverflowError when that is no time."""
    seconds, milliseconds = divmod(round(wall * 1000), 1000)
    return f"{_to_the_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)  # a listing of a fleet repeats its seconds
def _to_the_second(seconds: int) -> str:
    t = time.gmtime(seconds)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
