"""The start of a life, in the order that makes a second one impossible whatever instruction the keeper is killed at.

spent?  a generation that was used is refused
lock    taken without waiting; busy means: somebody of this bot still lives
fork    the child holds the lock and waits at its gate
START   journaled, and botd gets descriptors of its own
GO      journaled, and only then the child is released
"""

from __future__ import annotations

import errno
import os
from time import CLOCK_BOOTTIME, clock_gettime, time

from botd.crash import crash_point
from botd.keeper import locks, proc
from botd.keeper.launch import Gate
from botd.keeper.life import Life
from botd.keeper.limits import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages
    from botd.keeper.journal import Journal
    from botd.keeper.limits import Limits
    from botd.keeper.output import Output
    from botd.keeper.request import Start


class Refused(Exception):
    """Nothing was forked. args: why ("busy" or "released"), words."""


class Failed(Exception):
    """The generation is spent and nothing of it lives. args: step, errno or None, words."""


def instant() -> dict[str, float]:
    """Now, on the wall and since boot."""
    return {"wall": time(), "boottime": clock_gettime(CLOCK_BOOTTIME)}


def conceive(start: Start, journal: Journal, cages: Cages) -> tuple[Life, int, int | None]:
    """Everything before the fork: (life, lock, cgroup to be born in); the two descriptors are the caller's to close.

    Refused or Failed say that there is no life, and then nothing is left open.
    """
    if start.gen <= journal.spent.get(start.id, -1):
        spent = journal.spent[start.id]
        text = f"generation {start.gen} of {start.id} was used already (the highest is {spent})"
        raise Refused("released", text, spent)
    crash_point("start-checked")
    life = Life(start.id, start.gen)
    try:
        lock = locks.take(start.lock)
    except OSError as error:
        raise Failed("lock", error.errno, f"{start.lock}: {error.strerror}") from error
    if lock is None:
        raise Refused("busy", f"the lock of {start.id} is held: a former life of it has not ended")
    crash_point("start-locked")
    try:
        life.cage = cages.cage(start.id, start.gen, life.marks, start.limits)
        birthplace = life.cage.make(start.limits)
    except OSError as error:
        os.close(lock)
        if life.cage is not None:
            life.cage.remove()
        if error.errno == errno.EBUSY:
            raise Refused("busy", f"{start.id}: {error.strerror}") from error
        raise Failed("containment", error.errno, str(error.strerror)) from error
    crash_point("start-caged")
    start.command.subreaper = life.cage.path is None
    if birthplace is not None and not cages.clone_into:
        os.close(birthplace)
        birthplace = None
        if life.cage.procs is not None:
            start.command.doors.append(life.cage.procs)
    if life.cage.fence is not None:
        start.command.doors += life.cage.fence.doors()
    return life, lock, birthplace


def deliver(
    life: Life, gate: Gate, start: Start, journal: Journal, output: Output, boot: str, tell: Callable[[Life], None]
) -> None:
    """Everything between the fork and the release. Failed says that the child was told to go, and is gone.

    `tell` is called between START and GO, so that botd holds the descriptors before a byte is written.
    """
    crash_point("start-forked")
    life.pid, life.pidfd, life.error_fd = gate.pid, gate.pidfd, gate.error
    folder, limits = start.log
    step = "identify"
    try:
        life.facts = {
            "pid": gate.pid,
            "start_ticks": proc.start_ticks(gate.pid),
            "pidfd_inode": proc.pidfd_inode(gate.pidfd),
            "at": instant(),
            "cgroup": life.cage.path if life.cage else None,
            "out": os.fstat(gate.out).st_ino,
            "err": os.fstat(gate.err).st_ino,
            "lock": start.lock,
            "log": {"dir": folder, **limits.facts()},
        }
        if life.cage and life.cage.fence:
            life.facts["folders"] = life.cage.fence.folders
        if start.limits is not NONE:
            life.facts["limits"] = start.limits.message()
        if life.facts["start_ticks"] is None:
            raise OSError(errno.ESRCH, "it was killed before it started")
        step = "logs"
        output.check(folder)
        for name, fd in (("out", gate.out), ("err", gate.err)):
            life.sources.append(output.attach(life.id, fd, folder, name, limits))
        step = "journal"
        crash_point("start-identified")
        journal.write("START", life.id, life.gen, boot=boot, **life.facts)
        crash_point("start-journaled")
        tell(life)
        crash_point("start-told")
        journal.write("GO", life.id, life.gen)
        crash_point("start-go")
    except OSError as error:
        abort(life, gate, output)
        words = f"{folder}: {error.strerror}" if step == "logs" else str(error.strerror or error)
        raise Failed(step, error.errno, words) from error
    gate.release()
    crash_point("start-released")


def limit(life: Life, limits: Limits, cages: Cages, journal: Journal) -> None:
    """Give a live life other limits than it was born with. OSError with words when it cannot have them."""
    cages.limit(life, limits)
    life.facts["limits"] = limits.message()
    journal.write("LIMITS", *life.key, limits=life.facts["limits"], folders=life.facts.get("folders"))


def abort(life: Life, gate: Gate, output: Output) -> None:
    """Close the gate of a child that shall not live, and wait the moment it takes to go."""
    gate.abort()
    try:
        os.waitpid(gate.pid, 0)
    except ChildProcessError:
        pass  # it was killed at its gate, and reaped with the strays
    for fd in (gate.pidfd, gate.error, *(gate.out, gate.err)[len(life.sources) :]):
        os.close(fd)
    for source in life.sources:
        output.finish(source)
    if life.cage is not None:
        life.cage.remove()
