"""What this machine offers to hold on to a bot's processes and to limit what they use.

A cgroup of version 2 (cgroup2.py) holds the whole tree by itself. Without one (tree.py) the keeper follows who descends
from whom. Which controllers limit it (controllers.py) is another question, and may be answered by version 1.
"""

from __future__ import annotations

import errno
import os
from zlib import crc32

from botd.keeper import groups, hierarchies
from botd.keeper.cgroup2 import Cgroup
from botd.keeper.controllers import LEAF, Controllers
from botd.keeper.fence import Fence
from botd.keeper.launch import can_clone
from botd.keeper.tree import Strays, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from botd.keeper.cage import Cage
    from botd.keeper.life import Life
    from botd.keeper.limits import Limits


class Cages:
    """Which containment this machine offers, and one cage for every life.

    `want` is "auto", "cgroup2" or "tree". OSError when "cgroup2" is demanded and cannot be had.
    """

    def __init__(self, home: str, want: str, known: Container[int], without: Container[str] = ()) -> None:
        self.strays = Strays(known)
        self.use_kill = "cgroup_kill" not in without
        self.clone_into = False
        self.base: str | None = None
        found, name = hierarchies.own(), folder_name(home)
        top = None if found.v2 is None else given(found.v2, name)
        if want in ("auto", "cgroup2"):
            if top is not None:
                self.base = self._find(top, name, "clone3" in without)
            if self.base is None and want == "cgroup2":
                raise OSError(errno.ENOTSUP, "no cgroup v2 folder that may be written to was found")
        if self.base is not None:
            self.use_kill = self.use_kill and os.path.exists(self.base + "/cgroup.kill")
        self.kind = "cgroup2" if self.base else "tree"
        self.controllers = Controllers(found, name, top, self.base, "controllers" in without)

    def cage(self, life_id: str, gen: int, marks: Callable[[], list[int]], limits: Limits) -> Cage:
        """The cage of a life that is about to start; its `make` wants the same limits."""
        name = _name(life_id, gen)
        path = None if self.base is None else f"{self.base}/{name}"
        fence = self.controllers.fence(name, limits, path)
        if path is None:
            return Tree(self.strays, marks, True, fence)
        return Cgroup(path, self.use_kill, fence)

    def former(self, facts: dict[str, Any], marks: Callable[[], list[int]], child: bool = False) -> Cage:
        """The cage of a life that an earlier keeper started, by the `cgroup` and `folders` of its facts.

        `child`: it was this very process.
        """
        path, folders = facts.get("cgroup"), facts.get("folders")
        fence = Fence(folders, path) if isinstance(folders, dict) and folders else None
        return Cgroup(path, self.use_kill, fence) if path else Tree(self.strays, marks, child, fence)

    def limit(self, life: Life, limits: Limits) -> None:
        """Give a live life other limits; its `folders` may be others then. OSError with words when it cannot be."""
        if life.cage is None:
            return
        cage, offered = life.cage, self.controllers
        fence = cage.fence or Fence({}, cage.path)
        missing = [
            name for name in offered.bases if offered.version[name] and limits.wants(name) and name not in fence.folders
        ]
        if "memory" in missing:
            # What it has taken so far would stay where it is, and the limit would be a wrong one.
            raise OSError(errno.ENOTSUP, "it was started without a memory limit; it gets one at its next start")
        fence.change(limits)
        for name in missing:
            cage.fence = fence
            folder = f"{offered.bases[name]}/{_name(*life.key)}"
            fence.take_in(name, folder, limits, lambda: cage.members(life.pid))
        if fence.folders:
            life.facts["folders"] = fence.folders

    def leftovers(self, wanted: Container[str]) -> list[tuple[str, Cage]]:
        """(id, cage) of lives that nobody knows any more; `wanted` are the folders of those that are known."""
        found: dict[str, dict[str, str]] = {}
        for controller, base in (("", self.base), *self.controllers.bases.items()):
            for name in os.listdir(base) if base is not None and os.path.isdir(base) else ():
                path = f"{base}/{name}"
                if "+" in name and os.path.isdir(path) and path not in wanted:
                    found.setdefault(name, {})[controller] = path
        cages = []
        for name, folders in found.items():
            facts = {"cgroup": folders.pop("", None), "folders": folders}
            cages.append((name.rpartition("+")[0].replace("+", "/"), self.former(facts, list)))
        return cages

    def close(self) -> None:
        """Remove the folders of this home; those in which a life has one still are left to the next keeper."""
        self.controllers.close()
        if self.base is not None:
            groups.remove_empty(self.base)

    def _find(self, top: str, name: str, no_clone: bool) -> str | None:
        base = f"{top}/{name}"
        probe = base + "/probe"
        try:
            os.makedirs(probe, 0o755, exist_ok=True)
            if not os.access(top + "/cgroup.procs", os.W_OK):
                return None
            fd = os.open(probe, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.clone_into = not no_clone and can_clone(fd)
            finally:
                os.close(fd)
            if not self.clone_into and not groups.can_enter(probe + "/cgroup.procs"):
                return None
            os.rmdir(probe)
        except OSError:
            return None
        return base


def given(own: str, name: str) -> str:
    """The group that the keeper was given: its own, or the one in which it made the leaf that it sits in."""
    return own.removesuffix(f"/{name}/{LEAF}")


def _name(life_id: str, gen: int) -> str:
    """What the folders of a life are called."""
    return f"{life_id.replace('/', '+')}+{gen}"


def folder_name(home: str) -> str:
    """What the cgroup folder of this home is called."""
    return f"botd-{crc32(os.path.realpath(home).encode()):08x}"
