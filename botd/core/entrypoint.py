"""Which program a template starts, where its manifest does not say: as npm and Python people would guess."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from typing import Any

_NODE = (".js", ".mjs", ".cjs")
_PYTHON = ("main.py", "bot.py", "app.py", "__main__.py")


def find(files: Collection[str], package: Mapping[str, Any] | None) -> tuple[list[str], str] | None:
    """The command and why it is that one; None when nothing tells. `files`: the paths of all files of the template,
    `package`: what package.json says, where there is one.
    """
    if package is not None:
        started = _started(package)
        if started is not None and started[0] in files:
            return ["{node}", *started], f"package.json: scripts.start is {' '.join(['node', *started])!r}"
        main = package.get("main")
        if isinstance(main, str) and main:
            named = posixpath.normpath(main)
            for path in (named, *(named + end for end in _NODE), *(f"{named}/index{end}" for end in _NODE)):
                if path in files:
                    return ["{node}", path], f"package.json: main is {main!r}"
    for name in ("index.js", "index.mjs", "index.cjs"):
        if name in files:
            return ["{node}", name], f"there is {name}"
    for name in _PYTHON:
        if name in files:
            return ["{python}", name], f"there is {name}"
    return None


def _started(package: Mapping[str, Any]) -> list[str] | None:
    """The arguments of `node X ...` in scripts.start; anything that only a shell understands is none of it."""
    scripts = package.get("scripts")
    start = scripts.get("start") if isinstance(scripts, Mapping) else None
    if not isinstance(start, str) or any(c in start for c in "&|;<>$`\"'\\*?{}()\n"):
        return None
    words = start.split()
    if len(words) < 2 or words[0] != "node" or words[1].startswith("-"):
        return None
    return [posixpath.normpath(words[1]), *words[2:]]


def missing_packages(package: Mapping[str, Any] | None, paths: Collection[str]) -> list[str]:
    """The dependencies of package.json that are not in node_modules."""
    wanted = (package or {}).get("dependencies")
    if not isinstance(wanted, Mapping):
        return []
    return sorted(name for name in wanted if isinstance(name, str) and f"node_modules/{name}" not in paths)
