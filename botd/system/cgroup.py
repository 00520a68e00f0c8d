"""The figures that the kernel keeps for one life, read from the folders of its controllers (version 1 or 2)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from botd.system.procfs import read_small

_CACHE_AGAIN_BYTES = 1 << 20


class MemoryFolder:
    """The memory of one life. Its usage file stays open: a read of it costs a microsecond."""

    __slots__ = ("_cache", "_cache_at", "_key", "_raw", "_stat", "_used", "fd")

    def __init__(self, folder: str) -> None:
        """OSError when there is no such folder, or no descriptor left."""
        self._raw = b""
        self._used = self._cache = 0
        self._cache_at = -_CACHE_AGAIN_BYTES
        self._stat = folder + "/memory.stat"
        try:
            self.fd = os.open(folder + "/memory.current", os.O_RDONLY | os.O_CLOEXEC)
            self._key = b"inactive_file"
        except FileNotFoundError:
            self.fd = os.open(folder + "/memory.usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
            self._key = b"total_inactive_file"

    def used(self) -> int | None:
        """The working set: bytes in use without file pages that would be dropped first. None: the folder is gone."""
        try:
            raw = os.pread(self.fd, 32, 0)
            if raw == self._raw:
                return self._used
            usage = int(raw)
            # The statistics cost ten times as much, and change little as long as the usage does.
            if abs(usage - self._cache_at) >= _CACHE_AGAIN_BYTES:
                self._cache, self._cache_at = _figure(self._stat, self._key), usage
        except (OSError, ValueError):
            return None
        self._raw, self._used = raw, max(0, usage - self._cache)
        return self._used

    def close(self) -> None:
        os.close(self.fd)


def forks_refused(folders: Mapping[str, str]) -> int:
    """How often this life was refused one more process or thread by its limit; 0 where nobody counts."""
    folder = folders.get("pids")
    if folder is None:
        return 0
    try:
        return _figure(folder + "/pids.events", b"max")
    except (OSError, ValueError):
        return 0


def _figure(path: str, key: bytes) -> int:
    """The figure of `key` in a file of "key value" lines; 0 when it is not there."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = b"\n" + os.read(fd, 16384)
    finally:
        os.close(fd)
    at = raw.find(b"\n" + key + b" ")
    return int(raw[at + len(key) + 2 :].partition(b"\n")[0]) if at >= 0 else 0


def counted(folders: Mapping[str, str]) -> int | None:
    """Processes and threads of a life as its controller counts them; None where there is none."""
    folder = folders.get("pids")
    if folder is None:
        return None
    try:
        return int(read_small(folder + "/pids.current"))
    except (OSError, ValueError):
        return None
