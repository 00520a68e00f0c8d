"""Two figures of the whole machine that tell whether a closer look at every bot is worth it now."""

from __future__ import annotations

from botd.system.procfs import read_small

TASKS_MORE = 64
MEMORY_LESS_BYTES = 32 << 20


class Sentinel:
    """Between two samples a bomb forks thousands of times and a leak fills the machine. Looking costs 40 microseconds.

    `proc`: a fixture in tests.
    """

    __slots__ = ("_available", "_proc", "_tasks")

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._tasks = self._available = 0

    def mark(self) -> None:
        """From now on changes count against this moment."""
        self._tasks, self._available = self._look()

    def stirred(self) -> bool:
        """Whether the machine has many more tasks, or much less memory, than at the last mark."""
        tasks, available = self._look()
        return tasks - self._tasks >= TASKS_MORE or self._available - available >= MEMORY_LESS_BYTES

    def _look(self) -> tuple[int, int]:
        """(tasks, available bytes); what cannot be read is as it was."""
        tasks, available = self._tasks, self._available
        try:
            # "0.00 0.01 0.05 1/230 4711"
            tasks = int(read_small(f"{self._proc}/loadavg").split()[3].partition(b"/")[2])
            for line in read_small(f"{self._proc}/meminfo").split(b"\n"):
                if line.startswith(b"MemAvailable:"):
                    available = int(line.split()[1]) * 1024
                    break
        except (OSError, ValueError, IndexError):
            pass  # no such figure here: the regular samples have to do
        return tasks, available
