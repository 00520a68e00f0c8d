"""Whom the kernel ends first when memory is short: a bot, never the keeper of all of them.

`oom_score_adj` may be raised by anybody and lowered only with CAP_SYS_RESOURCE (root). Where the keeper may, it lowers
itself and its bots stand where every program stands, at 0. Where it may not, it stays and raises its bots.
"""

from __future__ import annotations

import os

KEEPER, BOTD = -900, -500
"""Not -1000: a keeper that eats the machine has to be endable all the same."""

RAISED = 100
"""What bots get more than an unprivileged keeper: a tenth of the machine's memory."""

_OWN = "/proc/self/oom_score_adj"


def current() -> int | None:
    """This process's own value; None where there is none to read."""
    try:
        fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 16))
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None


def lower(value: int) -> bool:
    """Bring this process down to `value` at least. Whether it is there now."""
    now = current()
    return now is not None and (now <= value or assume(value))


def assume(value: int) -> bool:
    """Take a value; False where that is not permitted."""
    try:
        fd = os.open(_OWN, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % value)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def protect_keeper() -> int | None:
    """Lower this process where that is permitted; the value that bots are to get (None: leave it alone)."""
    given = current()
    if given is None:
        return None
    if lower(KEEPER):
        return max(0, given)
    # As unprivileged, also below zero, where a service manager has put us: raising is all that is needed.
    return max(0, given + RAISED if given >= 0 else 0)
