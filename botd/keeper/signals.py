"""Signals to the keeper itself, as a descriptor: blocked, so that a child between fork and exec never swallows one.

A child inherits the mask, not what is pending; `exec_signals` opens it, and what arrived meanwhile acts by default.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]  # the C half has no stubs
import ctypes
import os
from sys import byteorder

from botd.keeper.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HUP, INT, QUIT, USR1, TERM = 1, 2, 3, 10, 15
_RECORD, _PID_AT = 128, 12
_SIGSET_BYTES = 128
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK

_libc = ctypes.PyDLL(None, use_errno=True)


class Signals:
    """TERM and INT call `leave(sender)`, USR1 and QUIT call `dump()`, HUP (a terminal that closes) does nothing.

    `sender` is the pid, 0 for the kernel or a process of another namespace. OSError where there is no signalfd.
    """

    def __init__(self, loop: Loop, leave: Callable[[int], None], dump: Callable[[], None]) -> None:
        numbers = (HUP, INT, QUIT, USR1, TERM)
        wanted = sum(1 << number - 1 for number in numbers)
        fd = _libc.signalfd(-1, wanted.to_bytes(_SIGSET_BYTES, byteorder), _FLAGS)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
        self._leave, self._dump = leave, dump
        loop.watch(fd, self._arrived, 1, fd)

    def _arrived(self, fd: int) -> None:
        try:
            data = os.read(fd, 8 * _RECORD)
        except BlockingIOError:
            return
        for at in range(0, len(data), _RECORD):
            number = int.from_bytes(data[at : at + 4], byteorder)
            if number in (TERM, INT):
                self._leave(int.from_bytes(data[at + _PID_AT : at + _PID_AT + 4], byteorder))
            elif number in (USR1, QUIT):
                self._dump()
