"""By what each limit holds on this machine: enforced by the kernel, watched by botd, or not at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENFORCED, WATCHED, NONE = "enforced", "watched", "none"

LIMITS = ("memory", "swap", "processes", "cpu")
_CONTROLLER = {"memory": "memory", "swap": "swap", "processes": "pids", "cpu": "cpu"}
_WATCHABLE = ("memory", "processes")

BETTER = (
    "as root, or as a systemd service with Delegate=yes (botctl daemon install), on a machine with cgroup v2, "
    "the kernel enforces it"
)
BETTER_KILL = "with cgroup v2 that botd may write to (root, or Delegate=yes) the kernel ends a whole tree at once"


def mechanisms(hello: Mapping[str, Any], *, sampling: bool) -> dict[str, dict[str, str]]:
    """Subject -> {mode, by, remedy} for memory, swap, processes, cpu and tree (the end of a life with all it started).

    `hello`: what the keeper said of itself; `sampling`: monitoring.enableResourceMonitoring.
    """
    found, why = _table(hello, "controllers"), _table(hello, "why")
    out = {}
    for limit in LIMITS:
        version = found.get(_CONTROLLER[limit])
        if isinstance(version, str):
            out[limit] = _view(ENFORCED, f"cgroup {version}")
            continue
        words = why.get(_CONTROLLER[limit])
        remedy = words if isinstance(words, str) and words else BETTER
        if limit in _WATCHABLE and sampling:
            out[limit] = _view(WATCHED, "samples of the whole process tree", remedy)
        else:
            out[limit] = _view(NONE, "nothing limits it here", remedy)
    out["tree"] = _tree(hello)
    return out


def mode(limit: str, hello: Mapping[str, Any], folders: Mapping[str, str] | None, *, sampling: bool) -> str:
    """How one limit of one bot holds. `folders` of its life, None for a bot without one: as its next life would be."""
    name = _CONTROLLER[limit]
    if isinstance((folders if folders is not None else _table(hello, "controllers")).get(name), str):
        return ENFORCED
    return WATCHED if limit in _WATCHABLE and sampling else NONE


def _tree(hello: Mapping[str, Any]) -> dict[str, str]:
    if hello.get("containment") != "cgroup2":
        return _view(WATCHED, "its processes are followed from parent to child, and killed one by one", BETTER_KILL)
    if _table(hello, "features").get("cgroup_kill"):
        return _view(ENFORCED, "cgroup v2 (cgroup.kill)")
    return _view(ENFORCED, "cgroup v2 (its processes are killed one by one)", "Linux 5.14 has cgroup.kill")


def _table(hello: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = hello.get(key)
    return found if isinstance(found, Mapping) else {}


def _view(mode: str, by: str, remedy: str = "") -> dict[str, str]:
    return {"mode": mode, "by": by, "remedy": remedy}
