"""What a bot's folder consists of, for one release: a plan that is made once and carried out for many bots."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from botd.core.classify import Unit
from botd.storage.releases import Release

_KEPT = 16
"""Plans in memory: the releases that are in use at a time are few, and one takes some kilobytes."""

MODULES = "node_modules"

_into_release = re.compile(r"/templates/[^/]+/releases/[0-9a-f]{64}/tree(?:/|\Z)").search


Links = Literal["shared", "private", "none"]
"""Which links there are: those into the release and those into data/; the latter alone (full copies); none, where the
file system cannot hold any: then private files are real ones in app/, which no release replaces."""


@dataclass(slots=True)
class Folder:
    """One real folder of app/: what is made in it, by name. `parts` leads to it from app/."""

    parts: tuple[str, ...]
    folders: list[str] = field(default_factory=list)
    files: dict[str, bool] = field(default_factory=dict)
    """Copied; True: executable."""
    links: dict[str, str] = field(default_factory=dict)
    """Symbolic links and their targets, those of all three classes."""


@dataclass(frozen=True, slots=True)
class Private:
    """A path that lives in data/. `seed`: the release has a first version of it. `link`: what stands for it in app/,
    None where there are no links.
    """

    kind: Literal["file", "dir"]
    seed: bool
    link: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths are relative to app/, and to the release's tree where they come from it. `folders`: parents come first."""

    template: str
    hash: str
    tree: str
    links: Links
    folders: dict[str, Folder]
    files: dict[str, bool]
    symlinks: dict[str, str]
    """Links that the source itself has among the copied files."""
    shared: dict[str, str]
    private: dict[str, Private]

    @property
    def modules(self) -> str | None:
        """Where the shared node_modules is that a package of the bot's own falls back to; None: there is none."""
        return self.shared.get(MODULES)

    def is_private(self, path: str) -> bool:
        """Whether it is a private path or in a private folder."""
        while path:
            if path in self.private:
                return True
            path = path.rpartition("/")[0]
        return False


def leads_into_release(target: str) -> bool:
    """Whether a link is one that was made here; wherever the home was then, for it may have been moved."""
    return target.startswith("/") and _into_release(target) is not None


_plans: OrderedDict[tuple[str, Links], Plan] = OrderedDict()
_plans_lock = Lock()


def known(tree: str, links: Links) -> Plan | None:
    """The plan of a release that was planned before: what it says never changes, as its content does not."""
    with _plans_lock:
        plan = _plans.get((tree, links))
        if plan is not None:
            _plans.move_to_end((tree, links))
        return plan


def plan(release: Release, links: Links) -> Plan:
    """The plan of a release. Reads its folders at the first time. OSError when they cannot be read."""
    found = known(release.tree, links)
    if found is None:
        found = _make(release, links)
        with _plans_lock:
            _plans[release.tree, links] = found
            while len(_plans) > _KEPT:
                _plans.popitem(last=False)
    return found


def _make(release: Release, links: Links) -> Plan:
    made = Plan(release.template, release.hash, release.tree, links, {"": Folder(())}, {}, {}, {}, {})
    for unit in release.units:
        if unit.cls == "ignored":
            continue
        _folder(made, os.path.dirname(unit.path))
        if unit.cls == "private":
            _add_private(made, unit)
        elif unit.cls == "link" and links == "shared":
            made.shared[unit.path] = f"{release.tree}/{unit.path}"
        else:
            _add_copy(made, unit.path)
    for path, target in (*made.symlinks.items(), *made.shared.items()):
        _at(made, path).links[os.path.basename(path)] = target
    for path, private in made.private.items():
        if private.link is not None:
            _at(made, path).links[os.path.basename(path)] = private.link
    for path, executable in made.files.items():
        _at(made, path).files[os.path.basename(path)] = executable
    return made


def _add_private(made: Plan, unit: Unit) -> None:
    seed = os.path.lexists(f"{made.tree}/{unit.path}")
    up = "../" * (unit.path.count("/") + 1)
    link = None if made.links == "none" else f"{up}data/{unit.path}"
    made.private[unit.path] = Private("dir" if unit.kind == "dir" else "file", seed, link)
    if link is None:
        if seed:
            _add_copy(made, unit.path)
        elif unit.kind == "dir":
            _folder(made, unit.path)


def _add_copy(made: Plan, path: str) -> None:
    """A file, a link, or a folder with all that is in it."""
    source = f"{made.tree}/{path}"
    if os.path.islink(source):
        made.symlinks[path] = os.readlink(source)
    elif os.path.isdir(source):
        _folder(made, path)
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            _add_copy(made, f"{path}/{name}")
    else:
        made.files[path] = bool(os.stat(source).st_mode & 0o100)


def _folder(made: Plan, path: str) -> Folder:
    found = made.folders.get(path)
    if found is None:
        parent = _folder(made, os.path.dirname(path))
        parent.folders.append(os.path.basename(path))
        found = made.folders[path] = Folder(tuple(path.split("/")))
    return found


def _at(made: Plan, path: str) -> Folder:
    return made.folders[os.path.dirname(path)]
