"""How a limit of descriptors is shared out, so that no use of them takes what another one cannot do without.

What is short costs comfort first: a sample opens its file each time, probes take turns, the keeper finds a bot's
pipes in /proc instead of getting them back from botd. Last come the database, the keeper and an administrator's call.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from dataclasses import dataclass

from botd.contract.errors import BotdError

log = logging.getLogger("botd")

OWN = 32
"""The database, the keeper, the loop, the logs, and a child process on its way: never more than this."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of `limit` descriptors: how many `connections` and `probes` there may be at once, how many `sampled` files stay
    open, and the number from which on duplicates of the bots' own (`held_below`) are not kept.
    """

    limit: int
    connections: int
    held_below: int
    sampled: int
    probes: int


def shares(limit: int) -> Shares:
    left = max(0, limit - OWN)
    connections = max(4, min(1024, left // 4))
    sampled, probes = left // 4, max(1, min(64, left // 16))
    return Shares(limit, connections, max(0, limit - connections - probes - OWN // 2), sampled, probes)


def raise_limit() -> Shares:
    """Four descriptors a bot: a soft limit of 1024 would end at 250 bots."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            log.warning("the limit of descriptors stays at %d: %s", soft, error)
    return current()


def current() -> Shares:
    """By the limit that is in force now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return shares(1 << 20 if soft == resource.RLIM_INFINITY else soft)


def is_shortage(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def shortage() -> BotdError:
    """What a caller is told when its call needed a descriptor and there was none."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return BotdError(
        "unavailable",
        f"botd is out of file descriptors (its limit is {limit})",
        hint="close followers and connections, or give botd more: LimitNOFILE= in its unit, ulimit -n elsewhere",
    )


def need(count: int) -> None:
    """Raises `shortage` unless so many descriptors can be had without taking what botd needs for itself."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if len(os.listdir("/proc/self/fd")) + count > limit - OWN // 4:
        raise shortage()
