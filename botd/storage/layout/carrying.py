"""What a bot has written into its folder goes with it to the next release.

Everything that the former release did not bring gets a second name (a hard link) in the folder being made, so that a
death at any instant leaves the former folder as it was. Where the release brings something else under that name, the
release wins and the bot's version is kept in data/replaced/.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from botd.contract.errors import BotdError
from botd.storage import tree
from botd.storage.layout import copies
from botd.storage.layout.building import HALF, PRIVATE, REPLACED, below, exists
from botd.storage.layout.copies import is_same, is_torn
from botd.storage.layout.plans import Plan, leads_into_release
from botd.storage.layout.records import RECORD
from botd.storage.layout.walking import open_folder, walk

CACHE = "__pycache__"
"""Made again where it is missing; carried over, it could be taken for that of a changed program."""
_SHOWN = 10
_VERSIONS = 1000
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(slots=True)
class Carried:
    """`replaced`: files of the bot that gave way to the release's; `kept`: those that the bot goes on with although the
    release has others; `left`: what could not be carried over, with the reason.
    """

    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Carrier:
    """Carries over from one folder (a descriptor, `old`) to one that was built by `plan` (`new`).

    `former`: the plan by which `old` was built, None when nobody knows any more: then everything in it that the new
    release does not have is the bot's own. `ours`: how the targets of links begin that botd has made.
    """

    def __init__(self, data: int, plan: Plan, former: Plan | None) -> None:
        self._data = data
        self._plan = plan
        self._former = former
        self._label = former.hash[:12] if former is not None else "unknown"
        self.done = Carried()

    def carry(self, old: int, new: int) -> None:
        """BotdError(conflict) when something moves meanwhile, or a link stands for a folder of data/; OSError."""
        walk(old, new, "", self._judge, self._leave)

    # --- one entry ----------------------------------------------------------------------------------------------

    def _judge(self, path: str, name: str, is_folder: bool, old: int, new: int) -> bool:
        if path == RECORD or name == HALF or (is_folder and name == CACHE):
            return False
        if is_folder:
            return self._judge_folder(path, name, old, new)
        st = os.stat(name, dir_fd=old, follow_symlinks=False)
        is_link = stat.S_ISLNK(st.st_mode)
        if is_link:
            if self._is_ours(path, os.readlink(name, dir_fd=old)):
                return False
        elif stat.S_ISREG(st.st_mode) and self._is_as_brought(path, name, old):
            return False
        if not exists(new, name):
            self._link(name, old, new, path)
        elif self._plan.is_private(path) or self._goes_on(path) or (is_link and self._is_shared_folder(path)):
            # Its private file, which is not in data/ for once; a copy that both releases have alike; or where it has
            # dependencies of its own, for which `_judge_folder` says why.
            os.unlink(name, dir_fd=new)
            self._link(name, old, new, path)
            self.done.kept.append(path)
        else:
            self._put_aside(path, name, old)
        return False

    def _judge_folder(self, path: str, name: str, old: int, new: int) -> bool:
        plan = self._plan
        if path in plan.folders:
            return True
        brought = self._former is not None and path in self._former.folders
        own = not brought and (path in plan.private or self._is_shared_folder(path))
        if own:
            # Dependencies of the bot's own: they win over the shared ones, which node finds one folder further up.
            os.unlink(name, dir_fd=new)
            self.done.kept.append(f"{path}/")
        elif exists(new, name):
            self._put_folder_aside(path, name, old)
            return False
        os.mkdir(name, PRIVATE, dir_fd=new)
        return True

    def _leave(self, path: str, name: str, new: int) -> None:
        """On the way back up: a folder that only the former release had, and that nothing is in, is not needed."""
        if self._former is not None and path in self._former.folders and path not in self._plan.folders:
            try:
                os.rmdir(name, dir_fd=new)
            except OSError:
                pass  # something of the bot's own is in it

    # --- what is whose ------------------------------------------------------------------------------------------

    def _is_ours(self, path: str, target: str) -> bool:
        if leads_into_release(target):
            return True
        for plan in (self._former, self._plan):
            if plan is None:
                continue
            private = plan.private.get(path)
            if target in (plan.symlinks.get(path), plan.shared.get(path), private and private.link):
                return True
        return False

    def _is_as_brought(self, path: str, name: str, old: int) -> bool:
        """Whether it is a copy that the bot has not changed."""
        if self._former is not None:
            return path in self._former.files and is_same(name, old, f"{self._former.tree}/{path}")
        if path not in self._plan.files:
            return False
        source = f"{self._plan.tree}/{path}"
        return is_same(name, old, source) or is_torn(name, old, source)

    def _goes_on(self, path: str) -> bool:
        """Whether both releases have the same there, so that the bot's change of it stands."""
        former, plan = self._former, self._plan
        if former is None or path not in former.files or path not in plan.files:
            return False
        return is_same(f"{former.tree}/{path}", None, f"{plan.tree}/{path}")

    def _is_shared_folder(self, path: str) -> bool:
        return path in self._plan.shared and os.path.isdir(self._plan.shared[path])

    # --- where it goes ------------------------------------------------------------------------------------------

    def _link(self, name: str, old: int, new: int, path: str) -> None:
        if not second_name(name, old, new, name):
            self.done.left.append(f"{path!a}: it is neither a file nor a link, and cannot have a second name")

    def _put_aside(self, path: str, name: str, old: int) -> None:
        self.done.replaced.append(path)
        parent = below(self._data, (REPLACED, self._label, *path.split("/")[:-1]), f"data/{REPLACED}")
        try:
            _second_name_of(name, old, parent)
        finally:
            os.close(parent)

    def _put_folder_aside(self, path: str, name: str, old: int) -> None:
        """Of a folder where the release has something else: what in it was not brought."""
        source = open_folder(old, name, path)
        parts = (REPLACED, self._label, *path.split("/"))
        place = below(self._data, parts, f"data/{REPLACED}")

        def judge(path: str, name: str, is_folder: bool, old: int, new: int) -> bool:
            if is_folder:
                if name != CACHE and not exists(new, name):
                    os.mkdir(name, PRIVATE, dir_fd=new)
                return name != CACHE
            st = os.stat(name, dir_fd=old, follow_symlinks=False)
            if stat.S_ISLNK(st.st_mode) and self._is_ours(path, os.readlink(name, dir_fd=old)):
                return False
            if not (stat.S_ISREG(st.st_mode) and self._is_as_brought(path, name, old)):
                _second_name_of(name, old, new)
            return False

        def leave(_path: str, name: str, new: int) -> None:
            try:
                os.rmdir(name, dir_fd=new)
            except OSError:
                pass  # something was put into it

        try:
            walk(source, place, path, judge, leave)
            if os.listdir(place):
                self.done.replaced.append(f"{path}/")
        finally:
            os.close(source)
            os.close(place)
        _remove_empty(self._data, parts)


def notes(done: Carried, label: str) -> list[str]:
    """In words, what somebody should know."""
    said = []
    if done.replaced:
        said.append(f"the release replaced {_listed(done.replaced)}; the bot's own are in data/{REPLACED}/{label}/")
    if done.kept:
        said.append(f"the bot goes on with its own {_listed(done.kept)}")
    if done.left:
        said.append(f"not carried over: {_listed(done.left)}")
    return said


def _listed(paths: list[str]) -> str:
    shown = ", ".join(repr(path)[1:-1] for path in sorted(paths)[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"


def _remove_empty(base: int, parts: tuple[str, ...]) -> None:
    """Folders that were made for nothing, from the inmost outwards."""
    while parts:
        above = tree.descend(base, parts[:-1])
        try:
            os.rmdir(parts[-1], dir_fd=above)
        except OSError:
            return  # something is in it
        finally:
            os.close(above)
        parts = parts[:-1]


def keep_aside(data: int, label: str, path: str, parent: int, name: str) -> None:
    """Move `name` of a directory to data/replaced/LABEL/PATH, or beside an earlier one of that name."""
    place = below(data, (REPLACED, label, *path.split("/")[:-1]), f"data/{REPLACED}")
    try:
        os.rename(name, _free(place, name), src_dir_fd=parent, dst_dir_fd=place)
    finally:
        os.close(place)


def _free(place: int, name: str) -> str:
    for number in range(1, _VERSIONS):
        version = name if number == 1 else f"{name[:240]}~{number}"
        if not exists(place, version):
            return version
    raise BotdError("conflict", f"data/{REPLACED} has {_VERSIONS} versions of {name!a}", hint="remove some of them")


def _second_name_of(name: str, old: int, place: int) -> None:
    """As data/replaced has it: an attempt that was cut short may have done so before."""
    st = os.stat(name, dir_fd=old, follow_symlinks=False)
    try:
        there = os.stat(name, dir_fd=place, follow_symlinks=False)
        if (there.st_dev, there.st_ino) == (st.st_dev, st.st_ino):
            return
    except FileNotFoundError:
        pass
    second_name(name, old, place, _free(place, name))


def second_name(name: str, old: int, new: int, new_name: str) -> bool:
    """Give a file, a link or anything else but a folder a second name; a file that can have none is copied."""
    try:
        os.link(name, new_name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
        return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    st = os.stat(name, dir_fd=old, follow_symlinks=False)
    if stat.S_ISLNK(st.st_mode):
        os.symlink(os.readlink(name, dir_fd=old), new_name, dir_fd=new)
        return True
    fd = copies.open_file(name, old)
    if fd is None:
        return False
    try:
        copies.copy(fd, new, new_name, st.st_mode & 0o700)
    finally:
        os.close(fd)
    return True
