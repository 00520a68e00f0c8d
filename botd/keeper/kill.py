"""SIGKILL for exactly the process that is meant: through a pidfd, looked at again after it was opened."""

from __future__ import annotations

import os

from botd.keeper import proc
from botd.keeper.lean import SIGKILL, SIGSTOP, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 64
"""How often a tree is walked until a walk finds nothing new; a fork bomb is stopped faster than it grows."""


def kill_trees(roots: Callable[[], list[int]]) -> int:
    """Stop everything below the roots until a walk finds nothing new, then kill it all, youngest first.

    Returns how many were killed; a tree larger than there are descriptors for takes several calls. OSError when there
    is none for the first.
    """
    held: dict[int, int] = {}
    opened: dict[int, int] = {}
    try:
        seen = _walk(roots())
        for _ in range(_ROUNDS):
            _open(opened, [pid for pid in seen if pid not in held], alone=not held)
            if not opened:
                break
            # Walk again: a pid found now, whose pidfd still lives, is the process that the pidfd refers to.
            seen = _walk(roots())
            for pid in list(opened):
                if pid in seen and _signal(opened[pid], SIGSTOP):
                    held[pid] = opened.pop(pid)
                else:
                    os.close(opened.pop(pid))
        return sum(_signal(held[pid], SIGKILL) for pid in reversed(held))
    finally:
        for pidfd in (*held.values(), *opened.values()):
            os.close(pidfd)


def _open(opened: dict[int, int], pids: list[int], alone: bool) -> None:
    """Open as many of them as there are descriptors for, less one to walk with; `alone`: OSError when that is none."""
    for pid in pids:
        try:
            pidfd = _pidfd(pid)
        except OSError:
            if opened:
                os.close(opened.popitem()[1])
            if alone and not opened:
                raise
            return
        if pidfd is not None:
            opened[pid] = pidfd


def _walk(found: list[int]) -> list[int]:
    mine, known = os.getpid(), set(found)
    for pid in found:
        for child in proc.children(pid):
            if child not in known:
                known.add(child)
                found.append(child)
    return [pid for pid in found if pid != mine and not proc.is_zombie(pid)]


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _signal(pidfd: int, number: int) -> bool:
    try:
        return send_signal(pidfd, number)
    except PermissionError:
        return False  # it became another user (a setuid program); only root may end it
