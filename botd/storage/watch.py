"""Being told when something in a folder changes: inotify where there is any, a look every 100 ms where there is not.

One inotify descriptor serves every folder that is watched (a user may have 128 of them), and nothing of this is loaded
before somebody follows a log.
"""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Any, ClassVar

POLL_S = 0.1
_MASK = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x800  # MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE, MOVE_SELF
NAMES = 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""Only that names come and go (the folder's own too), not that files are written."""
_ONLYDIR = 0x01000000
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")
_OVERFLOW = 0x4000


class FolderWatch:
    """Tells when a folder (an open descriptor) has changed since `clear`. `close` it before the descriptor."""

    def __init__(self, folder: int, mask: int = _MASK) -> None:
        self._event = asyncio.Event()
        self._notifier = _Notifier.shared()
        self._number = self._notifier.add(folder, self._event, mask) if self._notifier is not None else -1

    def clear(self) -> None:
        """Forget earlier changes; to be called before looking at the folder."""
        self._event.clear()

    async def wait(self) -> None:
        """Wait for a change since `clear`; without inotify, for the time of looking again."""
        if self._number >= 0:
            await self._event.wait()
        else:
            await asyncio.sleep(POLL_S)

    def close(self) -> None:
        if self._notifier is not None and self._number >= 0:
            self._notifier.remove(self._number, self._event)
            self._number = -1


class _Notifier:
    """The inotify descriptor of one event loop, closed with the last folder."""

    _shared: ClassVar[_Notifier | None] = None

    def __init__(self, libc: Any, fd: int) -> None:
        self._libc = libc
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._watches: dict[int, set[asyncio.Event]] = {}
        self._loop.add_reader(fd, self._ready)

    @classmethod
    def shared(cls) -> _Notifier | None:
        """The notifier of the running loop; None where inotify is not to be had."""
        if cls._shared is None or cls._shared._loop is not asyncio.get_running_loop():
            opened = _open_inotify()
            cls._shared = None if opened is None else cls(*opened)
        return cls._shared

    def add(self, folder: int, event: asyncio.Event, mask: int) -> int:
        """The number of the watch; -1 when the kernel has none to spare."""
        number: int = self._libc.inotify_add_watch(self._fd, f"/proc/self/fd/{folder}".encode(), mask | _ONLYDIR)
        if number < 0:
            self._close_if_unused()
            return -1
        self._watches.setdefault(number, set()).add(event)
        return number

    def remove(self, number: int, event: asyncio.Event) -> None:
        events = self._watches.get(number, set())
        events.discard(event)
        if not events and self._watches.pop(number, None) is not None:
            self._libc.inotify_rm_watch(self._fd, number)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._watches:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            if _Notifier._shared is self:
                _Notifier._shared = None

    def _ready(self) -> None:
        try:
            raw = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at + _EVENT.size <= len(raw):
            number, mask, _, length = _EVENT.unpack_from(raw, at)
            at += _EVENT.size + length
            numbers = list(self._watches) if mask & _OVERFLOW else [number]
            for one in numbers:
                for event in self._watches.get(one, ()):
                    event.set()


def _open_inotify() -> tuple[Any, int] | None:
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.inotify_init1(_NONBLOCK_CLOEXEC)
    except (ImportError, OSError, AttributeError):
        return None
    return (libc, fd) if fd >= 0 else None
