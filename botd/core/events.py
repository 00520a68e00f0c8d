"""What happened to one bot. Events of a life carry its generation: one from an earlier life changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from botd.core.bot import Deadline, Exit


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Its owner wants it running. `recover` keeps the outage open so that the success is counted."""

    recover: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    why: str = "stopped by request"


@dataclass(frozen=True, slots=True)
class RestartRequested:
    why: str = "restarted by request"


@dataclass(frozen=True, slots=True)
class DeleteRequested:
    """`purge`: nothing of it is to be kept for an undelete."""

    purge: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """The keeper has forked the life; it waits at its gate."""

    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Running:
    """The program was executed."""

    generation: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The program could not be executed. `permanent`: trying again by itself cannot help."""

    generation: int
    reason: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class SpawnRefused:
    """Nothing was started, and nothing is wrong with the bot: try again soon, uncounted.

    `spent`: the highest generation that the keeper has seen of this bot; it is above ours where an older database
    was restored.
    """

    generation: int
    reason: str
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Adopted:
    """The keeper has a life with a later number than ours: the record is older than what runs."""

    generation: int
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class Exited:
    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Time passed `deadline`. Ignored unless it still is the state's own."""

    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Condemned:
    """This life must end: `cause` is memory, processes, relief, unhealthy or quota; only quota keeps it down.

    `at_once`: without its grace, because what it does in that time harms others.
    """

    generation: int
    cause: str
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class HealthReported:
    generation: int
    healthy: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rebooted:
    """The machine was restarted since this state was written: no process of it is left, no time in it holds."""


Event = (
    StartRequested
    | StopRequested
    | RestartRequested
    | DeleteRequested
    | Spawned
    | Running
    | SpawnFailed
    | SpawnRefused
    | Adopted
    | Exited
    | DeadlinePassed
    | Condemned
    | HealthReported
    | Rebooted
)

EVENTS: tuple[type, ...] = (
    StartRequested,
    StopRequested,
    RestartRequested,
    DeleteRequested,
    Spawned,
    Running,
    SpawnFailed,
    SpawnRefused,
    Adopted,
    Exited,
    DeadlinePassed,
    Condemned,
    HealthReported,
    Rebooted,
)

OF_A_LIFE = (Spawned, Running, SpawnFailed, SpawnRefused, Exited, Condemned, HealthReported)
