"""After a life has ended: again, at which time, or give up, and why, in words."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from botd.contract.vocabulary import RestartMode
from botd.core.bot import Exit
from botd.core.settings import RestartPolicy

JITTER = 0.25
"""The share of a delay that chance takes away, so that bots that fell together do not rise together.
Taken away and never added: the configured cap stays one."""

REFUSED_RETRY_S = 1.0
"""How long to wait when a start was refused for a reason that passes by itself."""


@dataclass(frozen=True, slots=True)
class Again:
    delay_s: float
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """It ended well and is not to be started again."""

    reason: str


Verdict = Again | GiveUp | Finished


def verdict(
    policy: RestartPolicy,
    mode: RestartMode,
    what: str,
    *,
    clean: bool,
    attempts: int,
    ran_s: float,
    chance: float,
) -> Verdict:
    """`what` ended the life (in words); `attempts` restarts in a row came before it, it ran `ran_s` seconds.

    A life that ran for `reset_after_s` or more was a good one: counting starts from zero again. `chance`
    is in [0, 1).
    """
    if clean and mode != "always":
        return Finished(f"{what}; restart policy is {mode}")
    if mode == "never":
        return GiveUp(f"{what}; restart policy is never")
    if not policy.enabled:
        if clean:
            return Finished(f"{what}; automatic restart is off (botRecovery.autoRestart)")
        return GiveUp(f"{what}; automatic restart is off (botRecovery.autoRestart)")
    attempt = 1 if ran_s >= policy.reset_after_s else attempts + 1
    if attempt > policy.max_attempts:
        return GiveUp(f"{what}; gave up after {policy.max_attempts} restarts in a row (autoRestartMaxAttempts)")
    delay = backoff(policy, attempt, chance)
    return Again(delay, attempt, f"{what}; restart {attempt} of {policy.max_attempts}")


def backoff(policy: RestartPolicy, attempt: int, chance: float) -> float:
    """Seconds to wait before restart number `attempt` (1, 2, ...) of a row."""
    delay = policy.delay_s
    if policy.exponential:
        # 2 ** 63 is beyond every cap; the bound keeps the power a small number.
        delay *= 2.0 ** min(attempt - 1, 63)
    delay = min(delay, policy.max_delay_s)
    return delay * (1.0 - JITTER * chance)


def words_of(exit: Exit) -> str:
    """How a life ended, in words that name the reason where botd or the kernel had one."""
    if exit.forks_refused:
        forks = "1 fork" if exit.forks_refused == 1 else f"{exit.forks_refused:,} forks"
        return f"{_cause_of(exit)} ({forks} refused by its limit of processes)"
    return _cause_of(exit)


def _cause_of(exit: Exit) -> str:
    if exit.cause == "memory":
        return exit.note or "ended for its memory"
    if exit.cause == "processes":
        return "ended for the number of its processes"
    if exit.cause == "relief":
        return "ended to relieve the machine's memory"
    if exit.cause == "quota":
        return "stopped because its user was over the quota of storage"
    if exit.cause == "unhealthy":
        return "ended for failing its health checks"
    return exit.words()


# What trying again by itself cannot mend: the command, the folder or a permission has to change first.
PERMANENT = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.E2BIG,
        errno.EINVAL,
    }
)


def is_permanent(error: int) -> bool:
    """Whether a start that failed with this errno can only be mended by a person."""
    return error in PERMANENT
