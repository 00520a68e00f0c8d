"""Descriptors: room for as many as possible, and a few kept back for when they run out all the same."""

from __future__ import annotations

import os
import resource

_MOST = 1 << 19
_RESERVE = 16
"""An end needs two or three, a connection one, a rotation four."""


def raise_limit(hard: int) -> None:
    """Room for up to eight descriptors a life; `hard` is the hard limit now."""
    for wanted in (_MOST, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return
        except (OSError, ValueError):
            continue  # only root may raise the hard limit


class Reserve:
    """Descriptors that no start may use up: what lives must be able to end, and botd to come in."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self.whole()

    def whole(self) -> bool:
        """Whether all of them are there; those that were given away are taken back where there is room."""
        try:
            while len(self._fds) < _RESERVE:
                self._fds.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def give(self) -> None:
        """Let others have them."""
        while self._fds:
            os.close(self._fds.pop())
