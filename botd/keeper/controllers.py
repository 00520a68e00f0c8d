"""Which resource controllers this machine lets the keeper use, each found out by itself, and why not the others.

Version 2 hands a controller down only through groups without processes, and the keeper may itself sit in the group that
it was given. Then it moves into a leaf below it, together with what belongs to it, and never with anybody else.
"""

from __future__ import annotations

import errno
import os

from botd.keeper import groups, proc
from botd.keeper.fence import Fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.hierarchies import Hierarchies
    from botd.keeper.limits import Limits

NAMES = ("memory", "pids", "cpu")
LEAF = "keeper"
"""The group of the keeper itself beside those of the lives, whose names end with +generation."""

_PROBE = "probe"
_DELEGATED = ("user.delegate", "trusted.delegate")
_OFF = "switched off by --without=controllers"
_SWAP_V2 = "memory.swap.max"
_SWAP_V1 = "memory.memsw.limit_in_bytes"


class Controllers:
    """`version` maps memory, swap, pids and cpu to "v2", "v1" or None; `why` has words for those that are None.

    `bases` maps a version 1 controller to the folder of this home (`name`) in its hierarchy. `base` is the one in
    version 2, None where the keeper has none, and `top` the group that was given to the keeper there.
    """

    def __init__(self, found: Hierarchies, name: str, top: str | None, base: str | None, off: bool) -> None:
        self.version: dict[str, str | None] = dict.fromkeys(("memory", "swap", "pids", "cpu"))
        self.why: dict[str, str] = {}
        self.bases: dict[str, str] = {}
        if off:
            self.why = dict.fromkeys(self.version, _OFF)
            return
        for controller in NAMES:
            self._find(controller, found, name, top, base)
        self._find_swap(base)

    def fence(self, name: str, limits: Limits, cage: str | None) -> Fence | None:
        """What will hold the life `name`; None where nothing does, or nothing has to."""
        folders = {}
        for controller in NAMES:
            if self.version[controller] == "v2":
                if cage is not None:
                    folders[controller] = cage
            elif self.version[controller] == "v1" and limits.wants(controller):
                folders[controller] = f"{self.bases[controller]}/{name}"
        if self.version["swap"] is not None and "memory" in folders:
            folders["swap"] = folders["memory"]
        return Fence(folders, cage) if folders else None

    def close(self) -> None:
        """Remove the folders of this home, where no life has one any more."""
        for base in set(self.bases.values()):
            groups.remove_empty(base)

    def _find(self, controller: str, found: Hierarchies, name: str, top: str | None, base: str | None) -> None:
        if controller in found.v1:
            self._find_v1(controller, found.v1[controller], name)
        elif top is None or base is None:
            self.why[controller] = _no_folder(found.v2)
        else:
            trouble = hand_down(controller, top, base)
            if trouble is None:
                self.version[controller] = "v2"
            else:
                self.why[controller] = trouble

    def _find_v1(self, controller: str, own: str, name: str) -> None:
        if controller == "memory" and _holds(own + "/memory.use_hierarchy", b"0"):
            self.why[controller] = f"{own}/memory.use_hierarchy is 0: the limits above would not hold for bots; write 1"
            return
        base = f"{own}/{name}"
        probe = f"{base}/{_PROBE}"
        try:
            os.makedirs(probe, 0o755, exist_ok=True)
            try:
                if not os.path.exists(probe + _LIMIT_FILES[controller]):
                    raise OSError(errno.ENOENT, f"there is no {_LIMIT_FILES[controller][1:]} in {own}")
                if not groups.can_enter(probe + "/tasks"):
                    raise OSError(errno.EPERM, f"no process may be moved into a group below {own}")
            finally:
                os.rmdir(probe)
        except OSError as error:
            self.why[controller] = f"cgroup v1: {own}: {error.strerror}; {_HINT_V1}"
            return
        self.version[controller], self.bases[controller] = "v1", base

    def _find_swap(self, base: str | None) -> None:
        version = self.version["memory"]
        if version is None:
            self.why["swap"] = self.why["memory"]
            return
        folder, file = (base, _SWAP_V2) if version == "v2" else (self.bases["memory"], _SWAP_V1)
        if os.path.exists(f"{folder}/{file}"):
            self.version["swap"] = version
        else:
            self.why["swap"] = f"the kernel does not account for swap ({file} is missing); boot with swapaccount=1"


_LIMIT_FILES = {"memory": "/memory.limit_in_bytes", "pids": "/pids.max", "cpu": "/cpu.cfs_quota_us"}
_HINT_V1 = "run the keeper as root, or have the folder given to its user"
_HINT_BUSY = "start it in a scope of its own (systemd-run --scope -p Delegate=yes)"
_HINT_V2 = f"{_HINT_BUSY}, or as root"


def _no_folder(own: str | None) -> str:
    if own is None:
        return "no cgroup file system with this controller is in sight; mount cgroup2 at /sys/fs/cgroup"
    return f"nothing may be created in {own}; {_HINT_V2}"


def hand_down(controller: str, top: str, base: str) -> str | None:
    """Have the groups in `base`, a group in `top`, get a controller; None when they do, else why not."""
    available = _words(top + "/cgroup.controllers")
    if controller not in available:
        return f"{top} has no {controller} controller: the group above does not hand it down; {_HINT_V2}"
    try:
        if controller not in _words(top + "/cgroup.subtree_control"):
            _enable(controller, top, base)
        if controller not in _words(base + "/cgroup.subtree_control"):
            groups.write(base + "/cgroup.subtree_control", b"+" + controller.encode())
    except OSError as error:
        return f"{error.strerror}; {_HINT_BUSY if error.errno == errno.EBUSY else _HINT_V2}"
    return None


def _enable(controller: str, top: str, base: str) -> None:
    wish = b"+" + controller.encode()
    try:
        groups.write(top + "/cgroup.subtree_control", wish)
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    _empty(top, f"{base}/{LEAF}")
    groups.write(top + "/cgroup.subtree_control", wish)


def _empty(top: str, leaf: str) -> None:
    """Move everybody in `top` into a leaf. OSError with words when somebody is there who must not be moved."""
    if _of_a_service(top):
        # systemd puts the next process of the unit there, which fails as long as bots have controllers below it.
        raise OSError(errno.EBUSY, f"systemd could not restart the service of {top} any more while bots live")
    family = proc.ancestors() | set(proc.children(os.getpid()))
    everybody = delegated(top)
    for _ in range(_ROUNDS):
        inside = [int(pid) for pid in proc.read(top + "/cgroup.procs").split()]
        if not inside:
            return
        strangers = [pid for pid in inside if pid not in family]
        if strangers and not everybody:
            raise OSError(errno.EBUSY, f"other processes sit in {top} (pid {strangers[0]}), and are not ours to move")
        os.makedirs(leaf, 0o755, exist_ok=True)
        for pid in inside:
            try:
                groups.write(leaf + "/cgroup.procs", b"%d" % pid)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise  # ESRCH: it has ended


_ROUNDS = 8


def _of_a_service(folder: str) -> bool:
    """Whether systemd may put the processes of a service there (into its own group, or its DelegateSubgroup)."""
    parent, name = os.path.split(folder)
    return name.endswith(".service") or (parent.endswith(".service") and not name.endswith((".scope", ".slice")))


def delegated(folder: str) -> bool:
    """Whether systemd marked a group as handed over to whoever runs in it."""
    for name in _DELEGATED:
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue  # not marked, or trusted marks are not for us to see
    return False


def _words(path: str) -> list[str]:
    try:
        return proc.read(path).decode("ascii", "replace").split()
    except OSError:
        return []


def _holds(path: str, text: bytes) -> bool:
    try:
        return proc.read(path).strip() == text
    except OSError:
        return False
