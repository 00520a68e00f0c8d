"""Reading processes: who is it really, how did it end, who descends from it.

A pid is only a number that is given out again. Identity is boot id + pid + start time + pidfd inode, and every signal
goes through a pidfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
from sys import byteorder

from botd.keeper.lean import send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PIDFD_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3
_INFO_BYTES = 64
_INFO_STATUS = slice(60, 64)
_CAP_SYS_PTRACE = 1 << 19

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing about the process that was looked at: there is no room to look."""

DEAD = (b"Z", b"X")
"""States of a process that has ended."""


class Switches:
    """Kernel features that may be missing; found out at the start, switched off by tests."""

    pidfd_info = True
    unique_inodes = True
    zombie_stat = True


def boot_id() -> str:
    return read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is no such process."""
    fields = stat(pid)
    return int(fields[19]) if fields else None


def stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state (field 3 of the manual) on; None when there is no such process."""
    try:
        data = read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself contain anything, parentheses and spaces included.
    return data[data.rindex(b")") + 2 :].split()


def is_zombie(pid: int) -> bool:
    """Whether a process has ended (it waits to be reaped, or is gone already)."""
    fields = stat(pid)
    return not fields or fields[0] in DEAD


def pidfd_inode(pidfd: int) -> int:
    return os.fstat(pidfd).st_ino


def pidfd_pid(pidfd: int) -> int:
    """The pid behind a pidfd: -1 when it was reaped. ValueError when the descriptor is no pidfd."""
    for line in read(f"/proc/self/fdinfo/{pidfd}").splitlines():
        if line.startswith(b"Pid:"):
            return int(line[4:])
    raise ValueError("not a pidfd")


def reopen(pid: int, ticks: int, inode: int) -> int | None:
    """A pidfd of exactly the process that was recorded; None when it is gone or its number was given to another.

    OSError when it cannot be looked at (descriptors are short).
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in SHORT:
            raise
        return None
    # Read after the open: while the pidfd is held, a process with these marks is the one it refers to.
    same = start_ticks(pid) == ticks and send_signal_0(pidfd)
    if same and Switches.unique_inodes and pidfd_inode(pidfd) != inode:
        same = False
    if not same:
        os.close(pidfd)
        return None
    return pidfd


def send_signal_0(pidfd: int) -> bool:
    """Whether the process behind the pidfd still has its pid (a zombie has)."""
    try:
        return send_signal(pidfd, 0)
    except PermissionError:
        return True


def exit_from_pidfd(pidfd: int) -> int | None:
    """The raw wait status of a process that was reaped by somebody else; None where the kernel does not tell."""
    if not Switches.pidfd_info:
        return None
    buffer = bytearray(_INFO_BYTES)
    buffer[0:8] = _INFO_EXIT.to_bytes(8, byteorder)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    if not int.from_bytes(buffer[0:8], byteorder) & _INFO_EXIT:
        return None
    return int.from_bytes(buffer[_INFO_STATUS], byteorder)


def exit_from_zombie(pid: int, ticks: int) -> int | None:
    """The raw wait status of a zombie that its parent has not reaped; None when it is none or we may not see it."""
    if not Switches.zombie_stat:
        return None
    fields = stat(pid)
    if not fields or fields[0] != b"Z" or int(fields[19]) != ticks:
        return None
    # The kernel prints 0 to those who may not know, and a guessed 0 would be a lie.
    if not _may_see(pid):
        return None
    return int(fields[-1])


def probe_pidfd_info() -> bool:
    """Whether this kernel keeps exit statuses for pidfds (6.15+), found out on a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    pidfd = os.pidfd_open(pid)
    try:
        os.waitpid(pid, 0)
        return exit_from_pidfd(pidfd) == 7 << 8
    finally:
        os.close(pidfd)


def probe_unique_inodes() -> bool:
    """Whether pidfds of different processes have different inodes (6.9+)."""
    mine = os.pidfd_open(os.getpid())
    try:
        first = os.pidfd_open(1)
    except OSError:
        return False
    finally:
        inode = pidfd_inode(mine)
        os.close(mine)
    try:
        return os.getpid() != 1 and pidfd_inode(first) != inode
    finally:
        os.close(first)


def children(pid: int) -> list[int]:
    """Pids of the children of every thread of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, read(f"/proc/{pid}/task/{task}/children").split())
    except FileNotFoundError:
        if os.path.exists(f"/proc/{pid}/task/{pid}"):
            return [p for p in pids() if parent(p) == pid]  # a kernel without CONFIG_PROC_CHILDREN
    except ProcessLookupError:
        pass  # it ended while we looked
    return found


def parent(pid: int) -> int | None:
    fields = stat(pid)
    return int(fields[1]) if fields else None


def ancestors() -> set[int]:
    """This process and all above it."""
    found: set[int] = set()
    pid: int | None = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parent(pid)
    return found


def pids() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def pipe_fds(pid: int, inodes: Iterable[int]) -> dict[int, int]:
    """Which of the pipes (by inode) a process may write to: inode -> descriptor number in that process.

    Writers only: botd and the keeper hold read ends of every bot's pipes. OSError only when descriptors are short.
    """
    wanted = {f"pipe:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                inode = wanted.get(os.readlink(f"{folder}/{name}"))
                # The link's own mode tells how the descriptor was opened.
                if inode is not None and os.lstat(f"{folder}/{name}").st_mode & 0o200:
                    found[inode] = int(name)
            except OSError:
                continue  # closed meanwhile
    except OSError as error:
        if error.errno in SHORT:
            raise
        # Gone, or another user's.
    return found


def _may_see(pid: int) -> bool:
    uid = os.geteuid()
    try:
        for line in read(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"Uid:") and all(int(u) == uid for u in line.split()[1:]):
                return True
        for line in read("/proc/self/status").splitlines():
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_SYS_PTRACE)
    except OSError:
        return False
    return False


def read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = chunk = os.read(fd, 16384)
        while chunk:
            chunk = os.read(fd, 65536)
            data += chunk
        return data
    finally:
        os.close(fd)
