"""Containment by cgroup: version 2, its core only (no controllers are needed), where a folder may be written to.

Controllers (memory.max, pids.max) belong into `Cgroup.make`, where the folder has just been made.
"""

from __future__ import annotations

import errno
import os

from botd.keeper import proc
from botd.keeper.cage import Cage
from botd.keeper.kill import kill_if

_GONE = (errno.ENOENT, errno.ENODEV)


class Cgroup(Cage):
    """One life's own cgroup. The kernel knows who is inside, and kills them in one step."""

    def __init__(self, path: str, use_kill: bool = True) -> None:
        self.path = self._folder = path
        self.procs = path + "/cgroup.procs"
        self._use_kill = use_kill

    def make(self) -> int | None:
        try:
            os.makedirs(self._folder, 0o755)
        except FileExistsError:
            if not self.empty():
                raise OSError(errno.EBUSY, "a former process still lives in the cgroup") from None
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def members(self, main: int) -> list[int]:
        found: list[int] = []
        for folder in self._folders():
            try:
                found += map(int, proc.read(folder + "/cgroup.procs").split())
            except OSError as error:
                # The folder went, and with it nothing that lives; whatever else it is, nobody knows who is inside.
                if error.errno not in _GONE:
                    raise
        return found

    def empty(self) -> bool:
        """Whether nobody lives inside; False also when that cannot be seen."""
        try:
            return b"populated 0" in proc.read(self._folder + "/cgroup.events")
        except OSError as error:
            return error.errno in _GONE

    def kill(self, main: int) -> int:
        found = self.members(main)
        if self._use_kill:
            try:
                _write(self._folder + "/cgroup.kill", b"1")
                return len(found)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.EOPNOTSUPP):
                    raise
                self._use_kill = error.errno == errno.EOPNOTSUPP
        for pid in found:
            kill_if(pid, lambda p: p in self.members(main))
        return len(found)

    def sweep(self, main: int) -> int:
        return 0 if self.empty() else self.kill(main)

    def remove(self) -> bool:
        try:
            os.rmdir(self._folder)
            return True
        except FileNotFoundError:
            return True
        except OSError:
            pass  # somebody is inside, or the bot made folders of its own
        for folder in reversed(self._folders()):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _folders(self) -> list[str]:
        """The life's folder and those that the bot made below it."""
        found = [self._folder]
        for folder in found:
            try:
                with os.scandir(folder) as entries:
                    found += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:
                continue
        return found


def own_cgroup() -> str | None:
    """The folder of this process's own cgroup in a cgroup2 mount; None when there is none in sight."""
    try:
        lines = proc.read("/proc/self/cgroup").decode().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        for line in proc.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            if not after.startswith("cgroup2 "):
                continue
            root, mount = before.split()[3:5]
            if own == root or own.startswith(root.rstrip("/") + "/"):
                return mount + own[len(root.rstrip("/")) :].rstrip("/")
    except (OSError, StopIteration, ValueError):
        return None
    return None


def can_move_into(folder: str) -> bool:
    """Whether a process may write itself into a cgroup, found out on a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        try:
            _write(folder + "/cgroup.procs", b"0")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
