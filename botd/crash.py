"""Named places at which a test may kill this process, as kill -9 would, between any two steps.

The standard library only, and hardly any of it: botd and the keeper both come past here. Names that begin with `botd-`
are botd's; tests/faults finds all of them in the source and dies at each.
"""

from __future__ import annotations

import os


def _parse(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    return name, int(count) if count.isdigit() else 1


# Taken out of the environment, so that nobody who is started from here inherits it.
_name, _passes = _parse(os.environ.pop("BOTD_CRASH_AT", ""))


def armed() -> dict[str, str]:
    """What the environment of a program needs that takes this one's place and shall die at the same point."""
    return {"BOTD_CRASH_AT": f"{_name}:{_passes}"} if _name else {}


def crash_point(name: str) -> None:
    """Do nothing; or, at the n-th pass of the point in BOTD_CRASH_AT=name[:n], die by SIGKILL."""
    global _passes
    if not _name or name != _name:
        return
    _passes -= 1
    if _passes == 0:
        os.kill(os.getpid(), 9)
