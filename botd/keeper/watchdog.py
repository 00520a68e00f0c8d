"""Looking at a process that has gone silent, and doing what helps: wake it, wait, or end it. Used by both programs."""

from __future__ import annotations

import os
from time import monotonic

from botd.keeper import proc
from botd.keeper.lean import SIGCONT, SIGKILL, send_signal
from botd.keeper.vigil import BEAT_S, DISK, FINE, HUNG, LOOK_S, PATIENCE_S, SILENT, STOPPED, TRACED, Sight, Vigil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.loop import Loop

Figures = tuple[float, float, float]
DEFAULT: Figures = (BEAT_S, LOOK_S, PATIENCE_S)

_SIGUSR1 = 10
_LONGEST_S = 3600.0
_TICKS = os.sysconf("SC_CLK_TCK")


def figures(value: object) -> Figures | None:
    """(beat, look, patience) in seconds, from a list or "beat,look,patience"; None when it is neither."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list) or len(value) != len(DEFAULT):
        return None
    try:
        beat, look, patience = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    return (beat, look, patience) if 0.01 <= beat <= look <= patience <= _LONGEST_S else None


def look(pid: int) -> Sight | None:
    """What there is to see of a process; None when it has ended. The caller holds a pidfd of it."""
    fields = proc.stat(pid)
    if not fields or fields[0] in proc.DEAD:
        return None
    traced = dumps = False
    try:
        for line in proc.read(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"TracerPid:"):
                traced = line.split()[1] != b"0"
            elif line.startswith(b"SigCgt:"):
                dumps = bool(int(line.split()[1], 16) & 1 << _SIGUSR1 - 1)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        # Nanoseconds on a processor and in the queue for one, of the main thread: the one that answers.
        waited: float | None = int(proc.read(f"/proc/{pid}/schedstat").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = None
    return Sight(fields[0].decode("ascii"), traced, waited, sum(map(int, fields[11:15])), dumps)


class Watchdog:
    """Watches one other process at a time. `name` is what it is called, `say` gets what was seen and done, in words.

    Whoever hears from it sets `heard`. `tick` is to be called every `beat_s` seconds while `watching`.
    """

    def __init__(self, name: str, by: str, say: Callable[[str], None]) -> None:
        self._name, self._by, self._say = name, by, say
        self._vigil = Vigil()
        self._pid = self._pidfd = -1
        self._said = ""
        self._asked = False
        self._woken_after_s = 0.0
        self.heard = False
        self.ended = ""
        """Why this watchdog ended the last process; "" when it did not."""

    @property
    def watching(self) -> bool:
        return self._pidfd >= 0

    @property
    def beat_s(self) -> float:
        return self._vigil.beat_s

    def set(self, values: Figures) -> None:
        """Other figures from now on."""
        if self._vigil.figures != values:
            self._vigil = Vigil(*values)

    def watch(self, pid: int, starting: bool = False) -> None:
        """From now on this process; the one that is watched already is watched on."""
        if self.watching and pid == self._pid:
            return
        self.unwatch()
        if pid == os.getpid():
            return  # nobody ends itself
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            return  # it has ended: its connection, or its parent, tells
        self._pid = pid
        self._said, self._asked, self.heard = "", False, False
        self._vigil.begin(monotonic(), starting)

    def unwatch(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pid = self._pidfd = -1

    def tick(self) -> None:
        """Judge, and do what has to be done. Never raises OSError: a process that cannot be looked at is left alone."""
        heard, self.heard = self.heard, False
        silent_s = self._vigil.silent_s
        if not self._vigil.tick(monotonic(), heard):
            if heard and self._said:
                self._back(silent_s)
            return
        try:
            sight = look(self._pid)
            if sight is not None:
                self._act(self._vigil.judge(sight), sight)
        except OSError as error:
            self._once("unseen", f"{self._who()} is silent and cannot be looked at: {error}")

    def _back(self, silent_s: float) -> None:
        if self._said == STOPPED:
            self._say(f"{self._who()} was stopped (SIGSTOP) for {self._woken_after_s:.0f} s; {self._by} woke it")
        else:
            self._say(f"{self._who()} answers again after {silent_s:.0f} s")
        self._said, self._asked = "", False

    def _act(self, verdict: str, sight: Sight) -> None:
        silent = f"{self._vigil.silent_s:.0f} s"
        if verdict == STOPPED:
            self._woken_after_s = self._vigil.silent_s
            send_signal(self._pidfd, SIGCONT)
            self._once(STOPPED, f"{self._who()} is stopped (SIGSTOP) and has been silent for {silent}; waking it")
        elif verdict == TRACED:
            self._once(TRACED, f"{self._who()} is held by a debugger; it is left alone")
        elif verdict == DISK:
            self._once(DISK, f"{self._who()} has waited for a disk for {silent}; waiting with it")
        elif verdict == HUNG:
            self._end(sight)
        elif verdict == SILENT and not self._said and self._vigil.idle_s * 2 >= self._vigil.patience_s:
            self._once(SILENT, f"{self._who()} has not answered for {silent}; ended at {self._vigil.patience_s:.0f} s")
        elif verdict == FINE:
            self._said = ""

    def _end(self, sight: Sight) -> None:
        if sight.dumps and not self._asked:
            # Where it hangs is worth one more beat: it writes the stacks of its threads to its log.
            self._asked = True
            send_signal(self._pidfd, _SIGUSR1)
            return
        self.ended = f"it had not answered for {self._vigil.idle_s:.0f} s and was ended by {self._by}"
        send_signal(self._pidfd, SIGKILL)
        self._say(f"{self._who()} hangs: {self.ended}")
        self._vigil.killed()
        self.unwatch()

    def _once(self, what: str, text: str) -> None:
        if self._said != what:
            self._said = what
            self._say(text)

    def _who(self) -> str:
        return f"{self._name} (pid {self._pid})"


class BotdWatch:
    """The keeper's watchdog over botd: on from the start of a botd, or from a hello that asks for it."""

    def __init__(self, loop: Loop, say: Callable[[str], None]) -> None:
        self._loop = loop
        self.dog = Watchdog("botd", "the keeper", say)
        self._ticking = False

    def started(self, pid: int) -> None:
        """The keeper started a botd, which has not said hello yet."""
        self.dog.watch(pid, starting=True)
        self._tick_on()

    def greeted(self, pid: int, wanted: object) -> None:
        """botd said hello and how it wants to be watched; one that did not say (a former version) is not."""
        values = figures(wanted)
        self.dog.unwatch()
        if values is not None:
            self.dog.set(values)
            self.dog.watch(pid)
            self._tick_on()

    def _tick_on(self) -> None:
        if self.dog.watching and not self._ticking:
            self._ticking = True
            self._loop.after(self.dog.beat_s, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self.dog.watching:
            self.dog.tick()
        self._tick_on()
