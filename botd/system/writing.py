"""Who writes, asked so cheaply that a quiet machine costs nothing: the room on a disk, and /proc/PID/io.

A hint and no more: what a process writes may go elsewhere, and replace what was there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from botd.system.procfs import read_small


def free_bytes(path: str) -> int | None:
    """Room on the file system of `path`, what is to be written out counted as written; None when it cannot be told."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bfree * found.f_frsize


def written_bytes(pids: Iterable[int], proc: str = "/proc") -> int | None:
    """What these processes, and their children that have ended, have written since they began.

    None when the kernel tells us of none of them: they are gone, or closed to us. `proc`: a fixture in tests.
    """
    total = None
    for pid in pids:
        try:
            raw = read_small(f"{proc}/{pid}/io")
            figures = dict(line.split(b": ", 1) for line in raw.splitlines())
            # What goes to a file that is mapped is only in the one, what goes to a file in memory only in the other.
            total = (total or 0) + max(int(figures[b"wchar"]), int(figures[b"write_bytes"]))
        except (OSError, ValueError, KeyError):
            continue
    return total
