"""By what limits hold: `memory, processes: enforced (cgroup v2); cpu: none`."""

from __future__ import annotations

from botctl.render.terminal import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# What the daemon calls them, and what people do.
NAMES = {"memory": "memory", "swap": "swap", "processes": "processes", "cpu": "CPU", "tree": "ending a whole tree"}


def each(document: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, mode, by, remedy) of what the daemon says about its mechanisms; nothing from an older daemon."""
    found = document.get("mechanisms")
    for key, view in found.items() if isinstance(found, dict) else ():
        if isinstance(view, dict):
            mode, by, remedy = (clean(str(view.get(word) or "")) for word in ("mode", "by", "remedy"))
            yield NAMES.get(key, clean(str(key))), mode, by, remedy


def in_words(document: dict[str, Any]) -> str:
    """One line; what holds in the same way stands together."""
    groups: dict[str, list[str]] = {}
    for name, mode, by, _remedy in each(document):
        how = f"{mode} by {by}" if mode == "enforced" else mode
        groups.setdefault(how, []).append(name)
    return "; ".join(f"{', '.join(names)}: {how}" for how, names in groups.items())
