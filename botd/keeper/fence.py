"""The limits of one life and what became of them: written to the controllers' files, read back when it ended.

Version 2 has every controller in the life's one cgroup. Version 1 has a folder for each hierarchy, made only where
there is a limit to keep. What the files count is the truth: it outlives the keeper.

A process enters a v1 folder by writing "0" to `tasks`, itself, while it is still a single thread; that takes 50 to 150
µs. `cgroup.procs` means the same, but takes a lock of the whole machine: 25 ms at times, in which nobody forks.
"""

from __future__ import annotations

import errno
import os

from botd.keeper import groups, proc
from botd.keeper.hierarchies import amount, keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.limits import Limits
    from botd.keeper.wire import Message

_PERIOD_US = 100_000
_ROUNDS = 16
_SHORT_BYTES = 8 * 4096
"""Nobody is killed for want of more than eight pages at once: the kernel asks for less instead."""


class Fence:
    """The controllers that hold one life.

    `folders` maps "memory", "swap", "pids" and "cpu", each where it is in force, to the folder that holds the life;
    `cage` is the life's cgroup of version 2, None when it has none. `oom` is a descriptor that becomes readable when
    version 1 is short of memory for this life, else -1.
    """

    __slots__ = ("_cage", "folders", "oom")

    def __init__(self, folders: dict[str, str], cage: str | None) -> None:
        self.folders = folders
        self.oom = -1
        self._cage = cage

    def own(self) -> list[str]:
        """The folders of version 1, each once."""
        return [folder for folder in dict.fromkeys(self.folders.values()) if folder != self._cage]

    def doors(self) -> list[str]:
        """The files by which a child that is a single thread enters them, writing "0"."""
        return [folder + "/tasks" for folder in self.own()]

    def make(self, limits: Limits) -> None:
        """Prepare it for a start. OSError says which file; EBUSY when somebody lives in one of the folders."""
        for folder in self.own():
            groups.renew(folder)
        for controller in self.folders:
            self._set(controller, limits, new=True)
        self.arm()

    def change(self, limits: Limits) -> None:
        """Other limits from now on. OSError (EBUSY: more memory is in use than version 1 can take back)."""
        for controller in self.folders:
            self._set(controller, limits, new=False)

    def take_in(self, controller: str, folder: str, limits: Limits, inside: Callable[[], list[int]]) -> None:
        """Add a version 1 controller to a life that runs: every process of it (`inside`) is moved, which takes a while.

        OSError when that fails.
        """
        groups.renew(folder)
        self.folders[controller] = folder
        moved: set[int] = set()
        for _ in range(_ROUNDS):
            # Children of those that are inside are born inside; only the others' must be looked for again.
            fresh = [pid for pid in inside() if pid not in moved]
            if not fresh:
                break
            for pid in fresh:
                moved.add(pid)
                _enter(folder, pid)
        self._set(controller, limits, new=True)

    def arm(self) -> bool:
        """Have `oom` tell of a shortage of memory; whether it does. Version 2 ends the life by itself."""
        folder = self.folders.get("memory")
        if folder is None or folder == self._cage:
            return False
        if self.oom >= 0:
            return True
        fd = -1
        try:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(folder + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                groups.write(folder + "/cgroup.event_control", b"%d %d" % (fd, control))
            finally:
                os.close(control)
        except OSError:
            # A kernel without it, or no descriptor left: the end of a main process is labelled all the same.
            if fd >= 0:
                os.close(fd)
            return False
        self.oom = fd
        return True

    def hear(self) -> None:
        """Take the word that came; the next one makes `oom` readable again."""
        try:
            os.eventfd_read(self.oom)
        except BlockingIOError:
            pass  # somebody was faster

    def disarm(self) -> None:
        if self.oom >= 0:
            os.close(self.oom)
        self.oom = -1

    def members(self) -> list[int]:
        """Pids inside the first of the version 1 folders: whoever is in one of them is in all."""
        own = self.own()
        return groups.members(own[0]) if own else []

    def no_more(self) -> None:
        """Allow no fork from now on, so that what is to be killed does not grow."""
        folder = self.folders.get("pids")
        if folder is not None:
            try:
                groups.write(folder + "/pids.max", b"0")
            except OSError:
                return  # gone already; otherwise it is killed as it is

    def remove(self) -> bool:
        """Take the version 1 folders away; False when somebody is still inside."""
        self.disarm()
        return all(groups.remove(folder) for folder in self.own())

    # What the files count

    def kills(self) -> int:
        """How many processes of this life the kernel has killed for memory."""
        folder = self.folders.get("memory")
        if folder is None:
            return 0
        name = "memory.events" if folder == self._cage else "memory.oom_control"
        return _numbers(f"{folder}/{name}").get("oom_kill", 0)

    def killed_for_memory(self) -> Message | None:
        """{"kills", "peak_bytes", "limit_bytes"} when there were any.

        The peak is None where the kernel does not keep it (version 2 before 5.19), the limit is None when it was not
        reached: then the machine, or a group above, was short of memory.
        """
        kills = self.kills()
        if not kills:
            return None
        folder = self.folders["memory"]
        if folder == self._cage:
            local = _numbers(folder + "/memory.events.local") or _numbers(folder + "/memory.events")
            reached, peak, limit = local.get("oom", 0) > 0, "memory.peak", "memory.max"
        else:
            # With swap accounted for it is the sum that is full first. (failcnt of the sum stays 0 on newer kernels.)
            reached = any(_full(f"{folder}/{name}") for name in ("memory", "memory.memsw"))
            peak, limit = "memory.max_usage_in_bytes", "memory.limit_in_bytes"
        return {
            "kills": kills,
            "peak_bytes": _number(f"{folder}/{peak}"),
            "limit_bytes": _number(f"{folder}/{limit}") if reached else None,
        }

    def refused(self) -> int:
        """How many forks the limit on processes has refused."""
        folder = self.folders.get("pids")
        return 0 if folder is None else _numbers(folder + "/pids.events").get("max", 0)

    # What is written to them

    def _set(self, controller: str, limits: Limits, new: bool) -> None:
        """Write one controller's limits; a new folder has none, so nothing has to be lifted there."""
        if controller == "swap":
            return  # comes with memory
        folder = self.folders[controller]
        value = getattr(limits, controller)
        if controller == "pids":
            if value is not None or not new:
                groups.write(folder + "/pids.max", b"max" if value is None else b"%d" % value)
        elif controller == "cpu":
            if value is not None or not new:
                self._set_cpu(folder, value)
        elif folder == self._cage:
            if new:
                _if_there(folder + "/memory.oom.group", b"1")
            if value is not None or not new:
                groups.write(folder + "/memory.max", b"max" if value is None else b"%d" % value)
            if limits.swap is not None or not new:
                _if_there(folder + "/memory.swap.max", b"max" if limits.swap is None else b"%d" % limits.swap)
        else:
            self._set_memory(folder, value, None if value is None or limits.swap is None else value + limits.swap)

    def _set_memory(self, folder: str, memory: int | None, total: int | None) -> None:
        """Version 1 limits memory, and memory with swap; the sum may never be the smaller one, not even in between."""
        both = folder + "/memory.memsw.limit_in_bytes"
        former = _number(both)
        grows = former is not None and (total is None or total >= former)
        if grows:
            _if_there(both, b"-1" if total is None else b"%d" % total)
        groups.write(folder + "/memory.limit_in_bytes", b"-1" if memory is None else b"%d" % memory)
        if total is not None and not grows:
            _if_there(both, b"%d" % total)

    def _set_cpu(self, folder: str, cores: float | None) -> None:
        if folder == self._cage:
            quota = b"max" if cores is None else b"%d" % round(cores * _PERIOD_US)
            groups.write(folder + "/cpu.max", b"%s %d" % (quota, _PERIOD_US))
            return
        path = folder + "/cpu.cfs_quota_us"
        try:
            groups.write(path, b"-1" if cores is None else b"%d" % round(cores * _PERIOD_US))
        except OSError as error:
            # Version 1 refuses more than a group above allows; then that one is the limit.
            if error.errno != errno.EINVAL:
                raise
            groups.write(path, b"-1")


def _enter(folder: str, pid: int) -> None:
    try:
        groups.write(folder + "/cgroup.procs", b"%d" % pid)
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise  # ESRCH: it has ended


def _numbers(path: str) -> dict[str, int]:
    try:
        return keyed(proc.read(path))
    except OSError:
        return {}


def _number(path: str) -> int | None:
    try:
        return amount(proc.read(path))
    except OSError:
        return None


def _full(stem: str) -> bool:
    """Whether a version 1 limit (memory, or memory with swap) was reached."""
    limit, peak = _number(stem + ".limit_in_bytes"), _number(stem + ".max_usage_in_bytes")
    return limit is not None and peak is not None and peak >= limit - _SHORT_BYTES


def _if_there(path: str, data: bytes) -> None:
    """For what not every kernel counts: hello tells that it is missing."""
    try:
        groups.write(path, data)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
