"""What the running kernel can do, found out by trying."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select

_SYS_OPENAT2 = 437
# PIDFD_GET_INFO and the flag of its mask that asks for the exit status (Linux 6.15).
_PIDFD_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3
_INFO_SIZE = 64
_STATUS_AT = 60
_PROBE_STATUS = 7


class Feature:
    """One thing that botd uses. Without a `needed` one it does not run; for the others it has a substitute."""

    __slots__ = ("name", "needed", "present", "remedy", "text")

    def __init__(self, name: str, present: bool, text: str, *, needed: bool = False, remedy: str = "") -> None:
        self.name = name
        self.present = present
        self.text = text
        self.needed = needed
        self.remedy = remedy


def features() -> list[Feature]:
    return [_pidfd(), _exit_info(), *_cgroup(), _controllers(), _openat2()]


def _pidfd() -> Feature:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return Feature("pidfd", False, f"missing: {error}", needed=True, remedy="a kernel of 5.10 or newer")
    return Feature("pidfd", True, "processes are held by descriptor, never by number")


def _exit_info() -> Feature:
    """End a child, reap it, and ask its pidfd how it ended."""
    name = "exit status by pidfd"
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(_PROBE_STATUS)
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [])
            os.waitpid(pid, 0)
            buffer = bytearray(_INFO_SIZE)
            buffer[:8] = _INFO_EXIT.to_bytes(8, "little")
            fcntl.ioctl(descriptor, _PIDFD_GET_INFO, buffer)
        finally:
            os.close(descriptor)
    except (AttributeError, OSError):
        present = False
    else:
        status = int.from_bytes(buffer[_STATUS_AT : _STATUS_AT + 4], "little")
        present = os.waitstatus_to_exitcode(status) == _PROBE_STATUS
    if present:
        return Feature(name, True, "exact also for bots that end while the keeper is away")
    return Feature(
        name,
        False,
        "not in this kernel: unknown for bots that end in the moment while the keeper restarts",
        remedy="nothing needs to be done; Linux 6.15 has it",
    )


def _cgroup() -> list[Feature]:
    mount = _cgroup2_mount()
    if mount is None:
        remedy = "boot with systemd.unified_cgroup_hierarchy=1"
        return [Feature("cgroup v2", False, "not mounted: a bot's tree is ended process by process", remedy=remedy)]
    own = mount + _own_cgroup()
    if not os.access(own, os.W_OK) or not os.access(f"{own}/cgroup.procs", os.W_OK):
        return [
            Feature(
                "cgroup v2",
                False,
                f"{own} is not ours to write: a bot's tree is ended process by process",
                remedy="botctl daemon install (its unit has Delegate=yes)",
            )
        ]
    return [Feature("cgroup v2", True, own), _cgroup_kill(mount, own)]


def _controllers() -> Feature:
    """What could limit a bot here, as far as it can be seen from outside: the keeper finds out by trying."""
    found: dict[str, str] = {}
    for mount, kind, options in _cgroup_mounts():
        if kind == "cgroup2":
            own = mount + _own_cgroup()
            if os.access(f"{own}/cgroup.procs", os.W_OK):
                found |= dict.fromkeys(_words(f"{own}/cgroup.controllers"), "v2")
        elif os.access(mount, os.W_OK):
            found |= dict.fromkeys(options.split(","), "v1")
    here = [f"{name} ({found[name]})" for name in _CONTROLLERS if name in found]
    text = ", ".join(here) if here else "none that is ours: memory and processes of a bot are watched, not enforced"
    remedy = "botctl daemon install (its unit has Delegate=yes), or run botd as root"
    return Feature("controllers", len(here) == len(_CONTROLLERS), text, remedy=remedy)


_CONTROLLERS = ("memory", "pids", "cpu")


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().split()
    except OSError:
        return []


def _cgroup_kill(mount: str, own: str) -> Feature:
    # The root group has no such file; any group beneath it shows whether the kernel knows it.
    places = [own]
    if own.rstrip("/") == mount.rstrip("/"):
        try:
            places = [entry.path for entry in os.scandir(mount) if entry.is_dir()] or [own]
        except OSError:
            places = [own]
    if any(os.path.exists(f"{place}/cgroup.kill") for place in places):
        return Feature("cgroup.kill", True, "a bot's whole tree ends at once")
    return Feature(
        "cgroup.kill", False, "not seen: a bot's tree is ended process by process", remedy="Linux 5.14 has it"
    )


def _cgroup2_mount() -> str | None:
    return next((mount for mount, kind, _options in _cgroup_mounts() if kind == "cgroup2"), None)


def _cgroup_mounts() -> list[tuple[str, str, str]]:
    """(folder, cgroup or cgroup2, options) of every mounted hierarchy."""
    found = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                head, _, tail = line.partition(" - ")
                kind, _, rest = tail.partition(" ")
                if kind in ("cgroup", "cgroup2"):
                    found.append((head.split()[4], kind, rest.split()[-1]))
    except OSError:
        pass  # no /proc: then nothing is known, as if it were not mounted
    return found


def _own_cgroup() -> str:
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n").rstrip("/")
    except OSError:
        pass  # no /proc
    return ""


def _openat2() -> Feature:
    libc = ctypes.CDLL(None, use_errno=True)
    # With a size of 0 a kernel that knows the call answers EINVAL, another one ENOSYS.
    libc.syscall(_SYS_OPENAT2, -1, b".", None, 0)
    if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        text = "missing: paths are walked step by step when files are removed"
        return Feature("openat2", False, text, remedy="Linux 5.6 has it; a container may forbid it")
    return Feature("openat2", True, "files are removed without following links")
