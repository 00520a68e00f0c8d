"""Fork, gate, exec: from a checked START to a program that runs.

The child inherits the bot's lock as descriptor 3 and waits at its gate, a pipe: one byte lets it through, end-of-file
(the keeper died) ends it. Past the gate each step has a name; a step that fails comes back over a close-on-exec pipe as
"step errno text", and the end of that pipe without a word means that the program was executed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource

from botd.keeper import oom
from botd.keeper.lean import exec_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LOCK_FD = 3
"""The keeper keeps its own lock at this number, so that no pipe of a start can ever be opened there."""

GATE_CLOSED = 125
STEP_FAILED = 126
NOT_FOUND = 127

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLONE3 = 435
_CLONE_PIDFD = 0x1000
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17

# PyDLL keeps the interpreter lock: nothing may run between the clone and the child's first instruction.
_libc = ctypes.PyDLL(None, use_errno=True)
_pidfd_slot = ctypes.c_int(-1)
_clone_args = (ctypes.c_uint64 * 11)()
# Made once: what is not allocated at a fork is no page that the forking process has to copy after it.
_clone_call = ctypes.c_long(_SYS_CLONE3), ctypes.byref(_clone_args), ctypes.c_size_t(ctypes.sizeof(_clone_args))
_clone_args[1] = ctypes.addressof(_pidfd_slot)
_ON = ctypes.c_ulong(1)
_ZEROS = (ctypes.c_ulong(0),) * 3


class Command:
    """What to execute and how, all of it checked and ready: nothing is allocated or converted between fork and exec.

    argv, cwd and env are bytes; `uid` and `gid` are None for the keeper's own user; `nofile` is the (soft, hard) limit
    on descriptors; `doors` are files to write "0" to, for the groups that the kernel could not place the child in.
    """

    __slots__ = ("argv", "cwd", "doors", "env", "gid", "nofile", "subreaper", "uid")

    def __init__(
        self,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        uid: int | None,
        gid: int | None,
        nofile: tuple[int, int],
    ) -> None:
        self.argv, self.env, self.cwd = argv, env, cwd
        self.uid, self.gid, self.nofile = uid, gid, nofile
        self.subreaper = False
        self.doors: list[str] = []


class Gate:
    """A child that waits. `release` lets it go on, `abort` ends it; exactly one of them is called.

    `error` is the end of the error pipe to watch; `out` and `err` are the read ends of its output.
    """

    __slots__ = ("_release", "err", "error", "out", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, release: int, error: int, out: int, err: int) -> None:
        self.pid, self.pidfd, self._release = pid, pidfd, release
        self.error, self.out, self.err = error, out, err

    def release(self) -> None:
        os.write(self._release, b"x")
        os.close(self._release)

    def abort(self) -> None:
        os.close(self._release)


class Pipes:
    """The four pipes of a start: gate, error report, stdout, stderr. OSError when descriptors are short.

    `uid` is who the output pipes shall belong to: a bot reopens them by name (/dev/stdout). Closing is the caller's.
    """

    __slots__ = ("_fds", "release")

    def __init__(self, uid: int | None) -> None:
        fds: list[int] = []
        try:
            fds += os.pipe2(os.O_CLOEXEC)
            for _ in range(3):
                # The bot's ends are opened anew, without this; a report fits into its pipe.
                fds += os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            if uid is not None:
                for fd in (fds[5], fds[7]):
                    os.fchown(fd, uid, -1)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        self._fds = fds
        self.release = fds[1]

    def theirs(self) -> tuple[int, int, int, int]:
        """The child's ends: wait, report, stdout, stderr."""
        return self._fds[0], self._fds[3], self._fds[5], self._fds[7]

    def gate(self, pid: int, pidfd: int) -> Gate:
        return Gate(pid, pidfd, self.release, self._fds[2], self._fds[4], self._fds[6])

    def close_theirs(self) -> None:
        for fd in self.theirs():
            os.close(fd)
        self._fds[0] = self._fds[3] = self._fds[5] = self._fds[7] = -1

    def close(self) -> None:
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)


def subreaper() -> None:
    """Make this process the parent of every orphan among its descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, _ON)


def launch(command: Command, lock: int, cgroup: int | None) -> Gate:
    """Fork a child that waits at its gate, holding `lock`; `cgroup` (a directory descriptor) is where it is born.

    OSError when a pipe or the fork fails; nothing is left open then, and a child that exists finds its gate closed.
    """
    pipes = Pipes(command.uid)
    try:
        pid, pidfd = clone(cgroup) if cgroup is not None else (os.fork(), -1)
        if pid == 0:
            os.close(pipes.release)
            child(command, lock, *pipes.theirs())
        if pidfd < 0:
            pidfd = os.pidfd_open(pid)
    except OSError:
        pipes.close()
        raise
    pipes.close_theirs()
    return pipes.gate(pid, pidfd)


def can_clone(cgroup: int | None = None) -> bool:
    """Whether clone3 is there (sandboxes forbid it) and a child can be born inside `cgroup`.

    The alternative to the latter, moving it there, takes 6 to 25 ms.
    """
    try:
        pid, pidfd = clone(cgroup)
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(pidfd)
    return True


def clone(cgroup: int | None, of_parent: bool = False) -> tuple[int, int]:
    """Fork a child, inside a cgroup if one is given: (pid, pidfd), pid 0 in the child.

    `of_parent`: it becomes this process's sibling. It goes without the C library's and the interpreter's fork handlers,
    which exist for threads: there are none.
    """
    into = 0 if cgroup is None else _CLONE_INTO_CGROUP
    _clone_args[0] = into | _CLONE_PIDFD | (_CLONE_PARENT if of_parent else 0)
    _clone_args[4] = 0 if of_parent else _SIGCHLD
    _clone_args[10] = 0 if cgroup is None else cgroup
    pid = _libc.syscall(*_clone_call)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid, _pidfd_slot.value


class Inherited:
    """What the keeper found out at its start for all that it starts. `oom_score_adj`: None leaves theirs alone."""

    oom_score_adj: int | None = None


def settle() -> None:
    """Set what every program starts with and a child inherits: no_new_privs, umask, whom the kernel ends first when
    memory is short, signals. OSError: it cannot be."""
    _prctl(_PR_SET_NO_NEW_PRIVS, _ON)
    os.umask(0o077)
    if Inherited.oom_score_adj is not None:
        oom.assume(Inherited.oom_score_adj)
    exec_signals()


def child(command: Command, lock: int, wait: int, report: int, out: int, err: int, settled: bool = False) -> NoReturn:
    """The child's whole life before exec. It never returns and never raises.

    `settled`: its parent has done what `settle` does.
    """
    step = "gate"
    status = STEP_FAILED
    try:
        if os.read(wait, 1) != b"x":
            os._exit(GATE_CLOSED)
        step = "lock"
        os.dup2(lock, LOCK_FD)
        step = "setsid"
        os.setsid()
        step = "cgroup"
        for door in command.doors:
            os.write(os.open(door, os.O_WRONLY | os.O_CLOEXEC), b"0")
        step = "rlimits"
        resource.setrlimit(resource.RLIMIT_NOFILE, command.nofile)
        if command.uid is not None and command.gid is not None:
            step = "setgroups"
            os.setgroups([])
            step = "setgid"
            os.setresgid(command.gid, command.gid, command.gid)
            step = "setuid"
            os.setresuid(command.uid, command.uid, command.uid)
        if not settled:
            step = "no_new_privs"
            settle()
        step = "stdin"
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        step = "stdout"
        # Open for reading too: no reader's death ever breaks the pipe.
        os.dup2(os.open(f"/proc/self/fd/{out}", os.O_RDWR | os.O_CLOEXEC), 1)
        step = "stderr"
        os.dup2(os.open(f"/proc/self/fd/{err}", os.O_RDWR | os.O_CLOEXEC), 2)
        step = "chdir"
        os.chdir(command.cwd)
        if command.subreaper:
            step = "subreaper"
            subreaper()
        step = "exec"
        status = NOT_FOUND
        _exec(command.argv, command.env)
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is told and the child ends
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        words = os.strerror(number) if number else f"{type(error).__name__}: {error}"
        os.write(report, f"{step} {number} {words}".encode("utf-8", "replace")[:512])
    finally:
        os._exit(status)


def _exec(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """execvpe: a name without a slash is looked for in the PATH of `env`; always raises when it returns."""
    name = argv[0]
    if b"/" in name:
        os.execve(name, argv, env)
    denied: OSError | None = None
    for folder in env.get(b"PATH", os.defpath.encode()).split(b":"):
        try:
            os.execve(os.path.join(folder, name), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def parse_report(data: bytes) -> tuple[str, int | None, str]:
    """(step, errno or None, words) of a failed step, from what the child wrote."""
    step, _, rest = data.decode("utf-8", "replace").partition(" ")
    number, _, words = rest.partition(" ")
    return step, int(number) or None if number.isdigit() else None, words


def _prctl(option: int, value: ctypes.c_ulong) -> None:
    if _libc.prctl(option, value, *_ZEROS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
