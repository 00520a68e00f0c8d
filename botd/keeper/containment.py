"""Keeping hold of everything a bot starts, however it forks, renames or daemonises itself.

Two ways with one interface. A cgroup (v2 core, no controllers needed) holds the whole tree by itself and the kernel
kills it in one step. Without one the bot is made a subreaper, so that its orphans stay below it while it lives and come
to the keeper when it dies; then the tree is walked, stopped and killed, every process through a pidfd.

Controllers (memory.max, pids.max) belong into `Cgroup.__init__`, where the folder has just been made.
"""

from __future__ import annotations

import errno
import os
from zlib import crc32

from botd.keeper import proc
from botd.keeper.launch import can_fork_into
from botd.keeper.lean import SIGKILL, SIGSTOP, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

_ROUNDS = 64
"""How often a tree is walked until a walk finds nothing new; a fork bomb is stopped faster than it grows."""


class Cgroup:
    """One life's own cgroup, made (and emptied of a former life's remains) by the constructor."""

    def __init__(self, path: str, use_kill: bool = True) -> None:
        self.path: str | None = path
        self._folder = path
        self._use_kill = use_kill

    def make(self) -> int | None:
        """Create the folder; a directory descriptor to be born into. OSError EBUSY when somebody lives there."""
        try:
            os.makedirs(self._folder, 0o755)
        except FileExistsError:
            if not self.empty():
                raise OSError(errno.EBUSY, "a former process still lives in the cgroup") from None
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def procs(self) -> str:
        return self._folder + "/cgroup.procs"

    def members(self, main: int) -> list[int]:
        """Pids inside, folders that the bot made below its own included."""
        found: list[int] = []
        for folder in self._folders():
            try:
                found += map(int, proc.read(folder + "/cgroup.procs").split())
            except OSError:
                continue  # the folder went, and with it nothing that lives
        return found

    def empty(self) -> bool:
        try:
            return b"populated 0" in proc.read(self._folder + "/cgroup.events")
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENODEV)

    def kill(self, main: int) -> int:
        """SIGKILL everything inside; how many were found. Call again until `empty`."""
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
            _kill_if(pid, lambda p: p in self.members(main))
        return len(found)

    def sweep(self, main: int) -> int:
        """Kill what outlived the main process; how many there were."""
        return 0 if self.empty() else self.kill(main)

    def remove(self) -> bool:
        """Take the empty folder away; False when it is still populated."""
        for folder in reversed(self._folders()):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _folders(self) -> list[str]:
        found = [self._folder]
        for folder in found:
            try:
                with os.scandir(folder) as entries:
                    found += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:
                continue
        return found


class Tree:
    """One life's process tree. `known`: the children of the keeper that are no strays; `marks`: the life's pipes."""

    path: str | None = None
    procs: str | None = None

    def __init__(self, known: Container[int], marks: Callable[[], list[int]], child: bool) -> None:
        self._known = known
        self._marks = marks
        self._child = child

    def make(self) -> None:
        return None

    def members(self, main: int) -> list[int]:
        found = [main]
        for pid in found:
            found += [p for p in proc.children(pid) if p not in found]
        return found

    def empty(self) -> bool:
        return not (self._child and self._strays())

    def kill(self, main: int) -> int:
        """SIGKILL the main process and all its descendants; how many there were."""
        return _kill_trees(lambda: [main])

    def sweep(self, main: int) -> int:
        """Kill what outlived the main process; how many there were."""
        if self._child:
            return _kill_trees(self._strays)
        return _kill_trees(lambda: self._bearers(main))

    def remove(self) -> bool:
        return True

    def _strays(self) -> list[int]:
        return [p for p in proc.children(os.getpid()) if p not in self._known and not _zombie(p)]

    def _bearers(self, main: int) -> list[int]:
        # An earlier keeper was this bot's ancestor, so its orphans went elsewhere. They still bear the marks of the
        # bot: its session, or one of its pipes.
        above, inodes = proc.ancestors(), self._marks()
        found = []
        for pid in proc.pids():
            if pid in above or pid == main or pid in self._known:
                continue
            fields = proc.stat(pid)
            if not fields or fields[0] == b"Z":
                continue
            if int(fields[3]) == main or proc.pipe_fds(pid, inodes):
                found.append(pid)
        return found


class Cages:
    """Which containment this machine offers, and one cage for every life.

    `want` is "auto", "cgroup2" or "tree". OSError when "cgroup2" is demanded and cannot be had.
    """

    def __init__(self, home: str, want: str, known: Container[int], without: Container[str] = ()) -> None:
        self._known = known
        self.use_kill = "cgroup_kill" not in without
        self.clone_into = False
        self.base: str | None = None
        if want in ("auto", "cgroup2"):
            self.base = self._find(home, "clone3" in without)
            if self.base is None and want == "cgroup2":
                raise OSError(errno.ENOTSUP, "no cgroup v2 folder that may be written to was found")
        if self.base is not None:
            self.use_kill = self.use_kill and os.path.exists(self.base + "/cgroup.kill")
        self.kind = "cgroup2" if self.base else "tree"

    def cage(self, life_id: str, gen: int, marks: Callable[[], list[int]]) -> Cgroup | Tree:
        """The cage of a life that is about to start."""
        if self.base is None:
            return Tree(self._known, marks, child=True)
        return Cgroup(f"{self.base}/{life_id.replace('/', '+')}+{gen}", self.use_kill)

    def former(self, path: str | None, marks: Callable[[], list[int]]) -> Cgroup | Tree:
        """The cage of a life that an earlier keeper started."""
        return Cgroup(path, self.use_kill) if path else Tree(self._known, marks, child=False)

    def leftovers(self, wanted: Container[str]) -> list[tuple[str, Cgroup]]:
        """(id, cgroup) of lives that nobody knows any more."""
        found = []
        for name in os.listdir(self.base) if self.base is not None else ():
            path = f"{self.base}/{name}"
            if os.path.isdir(path) and path not in wanted:
                found.append((name.rpartition("+")[0].replace("+", "/"), Cgroup(path, self.use_kill)))
        return found

    def close(self) -> None:
        if self.base is not None:
            try:
                os.rmdir(self.base)
            except OSError:
                pass  # a life's folder is still there; the next keeper removes it

    def _find(self, home: str, no_clone: bool) -> str | None:
        own = _own_cgroup()
        if own is None:
            return None
        base = f"{own}/botd-{crc32(os.path.realpath(home).encode()):08x}"
        probe = base + "/probe"
        try:
            os.makedirs(probe, 0o755, exist_ok=True)
            if not os.access(own + "/cgroup.procs", os.W_OK):
                return None
            fd = os.open(probe, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.clone_into = not no_clone and can_fork_into(fd)
            finally:
                os.close(fd)
            if not self.clone_into and not _can_move_into(probe):
                return None
            os.rmdir(probe)
        except OSError:
            return None
        return base


def _own_cgroup() -> str | None:
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


def _can_move_into(folder: str) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            _write(folder + "/cgroup.procs", b"0")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _kill_trees(roots: Callable[[], list[int]]) -> int:
    """Stop everything below the roots until a walk finds nothing new, then kill it all, youngest first."""
    held: dict[int, int] = {}
    try:
        seen = _walk(roots())
        for _ in range(_ROUNDS):
            opened = {pid: fd for pid in seen if pid not in held and (fd := _pidfd(pid)) is not None}
            if not opened:
                break
            # Walk again: a pid found now, whose pidfd still lives, is the process that the pidfd refers to.
            seen = _walk(roots())
            for pid, pidfd in opened.items():
                if pid in seen and _signal(pidfd, SIGSTOP):
                    held[pid] = pidfd
                else:
                    os.close(pidfd)
        return sum(_signal(held[pid], SIGKILL) for pid in reversed(held))
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _walk(found: list[int]) -> list[int]:
    mine = os.getpid()
    for pid in found:
        found += [p for p in proc.children(pid) if p not in found]
    return [pid for pid in found if pid != mine and not _zombie(pid)]


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _signal(pidfd: int, number: int) -> bool:
    try:
        return send_signal(pidfd, number)
    except PermissionError:
        return False  # it became another user (a setuid program); only root may end it


def _kill_if(pid: int, still: Callable[[int], bool]) -> None:
    pidfd = _pidfd(pid)
    if pidfd is None:
        return
    try:
        if still(pid):
            _signal(pidfd, SIGKILL)
    finally:
        os.close(pidfd)


def _zombie(pid: int) -> bool:
    fields = proc.stat(pid)
    return not fields or fields[0] in (b"Z", b"X")


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
