"""Whether the file system of the fleet could keep quotas itself: project quotas, as ext4, XFS and f2fs have them.

botd keeps its quotas by measuring, which works everywhere. A project quota set by the machine's administrator beside it
is a wall that no program gets over, not even with files that have no name any more.
"""

from __future__ import annotations

import fcntl
import os

from botctl.findings import GOOD, finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from botctl.findings import Finding

_GETXATTR = 0x801C581F
"""FS_IOC_FSGETXATTR: struct fsxattr is 28 bytes, the project is the fourth of its numbers."""
_OPTIONS = ("prjquota", "pquota")


def project_quota(home: str, mounts: str = "/proc/self/mountinfo") -> Iterator[Finding]:
    """What doctor says of it; nothing where the file system keeps none. `mounts`: a fixture in tests."""
    found = _mount(os.stat(home).st_dev, mounts)
    if found is None:
        return
    kind, options = found
    words = [option for option in options if option.partition("=")[0] in _OPTIONS]
    if not words:
        return
    project = _project(home)
    told = f"{kind} keeps project quotas ({words[0]})"
    told += f"; this folder is in project {project}" if project else "; this folder is in none"
    yield finding("project quotas", GOOD, told)


def _mount(device: int, mounts: str) -> tuple[str, list[str]] | None:
    """The type and the options of the file system of a device; None where it is not listed."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(mounts, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                fields, of_system = left.split(), right.split()
                if len(fields) > 5 and fields[2] == number and len(of_system) > 2:
                    return of_system[0], [*fields[5].split(","), *of_system[2].split(",")]
    except OSError:
        pass  # a machine without /proc says nothing about it
    return None


def _project(path: str) -> int:
    """The project of a folder; 0 for none, and where the file system knows of no projects."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        raw = fcntl.ioctl(fd, _GETXATTR, bytes(28))
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int.from_bytes(raw[12:16], "little")
