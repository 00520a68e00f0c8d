"""Which lives are to end for what they use: over a limit that is watched, or to relieve the machine. Pure.

Whose memory the kernel limits never gets here: it is stopped at its limit by the kernel.

Relief is for a machine whose memory has stood at memoryThreshold for a while. One life at a time ends, with a pause to
see what it brought: first who is over its own limit, by how much; then who grows fastest. A bot that neither is over
its limit nor grows is left alone, however old or large it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from botd.core import caps
from botd.core.bot import Spec
from botd.core.settings import MIB, Limits

PATIENCE_S = 4.0
"""How long the machine must stand at its threshold: a moment passes by itself."""
PAUSE_S = 10.0
"""How long to wait for what the end of a life has brought, before the next one."""
HYSTERESIS_PERCENT = 5.0
"""So far under the threshold the shortage is over."""
YOUNG_S = 20.0
"""Every program grows while it starts: so long that is no offence."""
GROWS_PER_MIN = 8 * MIB
GROWS_SHARE_PER_MIN = 0.05
"""Growth (of its own size, and in any case) that is more than coming and going."""
WILD = 1.5
"""A life that is, or will be within its grace, so many times over its limit gets no grace."""


class Verdict(NamedTuple):
    """The life ends for `reason`; `at_once` without its grace."""

    cause: str
    reason: str
    at_once: bool


def over(spec: Spec, limits: Limits, used: int, growth: float = 0.0) -> Verdict | None:
    """Whether a life that uses `used` bytes and grows by `growth` bytes a minute ends for its watched limit."""
    limit = caps.caps_of(spec, limits).memory_bytes
    if used <= limit:
        return None
    words = f"memory {used >> 20} MiB over its limit of {limit >> 20} MiB ({caps.memory_key(spec)}, watched)"
    soon = used + max(0.0, growth) * spec.stop_grace_s / 60.0
    return Verdict("memory", words, soon > limit * WILD)


def too_many(spec: Spec, limits: Limits, count: int) -> Verdict | None:
    """Whether a life of `count` processes and threads ends for its watched limit of them."""
    limit = caps.caps_of(spec, limits).processes
    if limit is None or count <= limit:
        return None
    words = f"{count:,} processes and threads, over its limit of {limit:,} ({caps.processes_key(spec)}, watched)"
    # What has run over by forking goes on forking while it is asked to end.
    return Verdict("processes", words, True)


@dataclass(frozen=True, slots=True)
class User:
    """One life as relief sees it: bytes, bytes a minute, seconds since it began to run."""

    id: str
    generation: int
    used: int
    limit: int
    growth: float
    age_s: float


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is remembered between two looks. `since`: the machine is short of memory since then, None: it is not."""

    since: float | None = None
    relieved_at: float | None = None


class Decision(NamedTuple):
    """`chosen` ends for `reason`; both None: nobody. `told`: a line for the history of the daemon, or ""."""

    shortage: Shortage
    chosen: User | None = None
    reason: str = ""
    told: str = ""


def decide(
    shortage: Shortage, percent: float, threshold: float, users: Iterable[User], *, ending: bool, now: float
) -> Decision:
    """One look at the machine, with `percent` of its memory in use. `ending`: somebody is on the way out already."""
    if percent < threshold:
        if shortage.since is None or percent >= threshold - HYSTERESIS_PERCENT:
            return Decision(shortage)
        told = f"{_machine(percent, threshold)} again: the shortage is over"
        return Decision(replace(shortage, since=None), told=told)
    if shortage.since is None:
        told = f"{_machine(percent, threshold)}: starts are refused, and bots that outgrow theirs are relieved"
        return Decision(replace(shortage, since=now), told=told)
    if ending or now - shortage.since < PATIENCE_S:
        return Decision(shortage)
    if shortage.relieved_at is not None and now - shortage.relieved_at < PAUSE_S:
        return Decision(shortage)
    worst = max(users, key=_rank, default=None)
    if worst is None or _rank(worst)[0] == _INNOCENT:
        return Decision(shortage)
    reason = f"relieved: {_machine(percent, threshold)}, {_offence(worst)}"
    return Decision(replace(shortage, relieved_at=now), worst, reason)


_INNOCENT, _GROWING, _OVER = range(3)


def _rank(user: User) -> tuple[int, float, str]:
    """The greatest goes first; the id makes it the same whatever the order."""
    if user.used > user.limit:
        return _OVER, float(user.used - user.limit), user.id
    least = max(float(GROWS_PER_MIN), GROWS_SHARE_PER_MIN * user.used)
    if user.growth >= least and user.age_s >= YOUNG_S:
        return _GROWING, user.growth, user.id
    return _INNOCENT, 0.0, user.id


def _offence(user: User) -> str:
    if user.used > user.limit:
        return f"it is {(user.used - user.limit) >> 20} MiB over its limit of {user.limit >> 20} MiB, the most"
    return f"it grew {user.growth / MIB:.0f} MiB/min, the fastest"


def _machine(percent: float, threshold: float) -> str:
    return f"the machine's memory is at {percent:.0f} % (memoryThreshold {threshold:g})"
