"""Whether a silent process is stopped, held by a debugger, starved, or hung. Pure: no clock, no look at anything.

Both programs judge each other by these rules. What counts is not silence but silence in which an answer was possible:
neither time in which we ourselves did not get to run (suspend does not even pass on CLOCK_MONOTONIC), nor time that the
other spent stopped, in a disk's hands (D) or in the queue for a processor.
"""

from __future__ import annotations

FINE, STOPPED, TRACED, DISK, SILENT, HUNG = "fine", "stopped", "traced", "disk", "silent", "hung"

BEAT_S, LOOK_S, PATIENCE_S = 2.0, 5.0, 30.0
"""A word at least so often; a look at who has been silent so long; an end of who could have answered for so long."""

_DOUBLINGS = 5
_STARTING = 2
_UNKNOWN_SHARE = 3
"""Where the kernel does not tell how long a process waited for a processor, a third of the time is taken to count."""


class Sight:
    """What one look showed: `state` (a letter of /proc/PID/stat), `traced` (by a debugger), `waited_s` for a processor
    since its start (None: not told), `cpu` (ticks that it and its children used), `dumps` (it catches SIGUSR1)."""

    __slots__ = ("cpu", "dumps", "state", "traced", "waited_s")

    def __init__(self, state: str, traced: bool, waited_s: float | None, cpu: int, dumps: bool = False) -> None:
        self.state, self.traced, self.waited_s, self.cpu, self.dumps = state, traced, waited_s, cpu, dumps


class Vigil:
    """One pair of eyes. Call `tick` every `beat_s` seconds, and `judge` with a fresh look whenever it says so.

    Each end of a hung process doubles the patience with the next one (up to 32 times), until one has answered for ten
    times the patience. `silent_s` is for how long nothing was heard.
    """

    def __init__(self, beat_s: float = BEAT_S, look_s: float = LOOK_S, patience_s: float = PATIENCE_S) -> None:
        self.figures = beat_s, look_s, patience_s
        self.beat_s, self._look_s, self._patience_s = self.figures
        self._kills = 0
        self._well_s = 0.0
        self.begin(0.0)

    def begin(self, now: float, starting: bool = False) -> None:
        """Another process from now on. `starting`: it has not said a word yet; as long as it works it may go on."""
        self._ticked_at = now
        self._starting = starting
        self._elapsed_s = 0.0
        self._seen: Sight | None = None
        self.silent_s = self.idle_s = 0.0

    @property
    def patience_s(self) -> float:
        """The seconds without an answer that end a process now."""
        return self._patience_s * (1 << self._kills) * (_STARTING if self._starting else 1)

    def tick(self, now: float, heard: bool) -> bool:
        """Whether it is to be looked at. `heard`: it said something since the last tick."""
        self._elapsed_s = elapsed = now - self._ticked_at
        self._ticked_at = now
        if heard:
            self._starting = False
            self._seen = None
            self.silent_s = self.idle_s = 0.0
            self._well_s += elapsed
            if self._well_s >= 10 * self._patience_s:
                self._kills = 0
            return False
        self.silent_s += elapsed
        if elapsed > 2 * self.beat_s + 0.5:
            # We are late ourselves: what kept us from running may keep the other one too.
            self._elapsed_s = 0.0
        return self.silent_s >= self._look_s

    def judge(self, sight: Sight) -> str:
        """What it is. HUNG: end it, and say so by `killed`."""
        before, self._seen = self._seen, sight
        if sight.traced or sight.state == "t":
            return TRACED
        if sight.state == "T":
            return STOPPED
        if sight.state == "D":
            return DISK
        if self._starting and before is not None and before.cpu != sight.cpu:
            self.idle_s = 0.0
            return FINE
        if before is None:
            return SILENT
        if sight.waited_s is None or before.waited_s is None:
            self.idle_s += self._elapsed_s / _UNKNOWN_SHARE
        else:
            self.idle_s += max(0.0, self._elapsed_s - (sight.waited_s - before.waited_s))
        return HUNG if self.idle_s >= self.patience_s else SILENT

    def killed(self) -> None:
        """It was ended. The next one gets more time."""
        self._kills = min(self._kills + 1, _DOUBLINGS)
        self._well_s = self.idle_s = 0.0
