"""How large a release is, and how much of it every bot has a copy of: what sharing saves is reckoned from that."""

from __future__ import annotations

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.quota import Shared


class Releases:
    """Reads about each release once: it never changes."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[tuple[str, str], Shared] = {}

    def size(self, template: str, release: str) -> Shared | None:
        """Bytes of the files of a release; None where it cannot be read."""
        # Half a megabyte that a fleet of plain programs does without.
        from botd.storage.releases import load

        key = (template, release)
        if key not in self._known:
            try:
                units = load(self._paths, template, release).units
            except BotdError:
                return None  # who starts a bot of it is told
            linked = sum(unit.bytes for unit in units if unit.cls == "link")
            copied = sum(unit.bytes for unit in units if unit.cls == "copy")
            self._known[key] = Shared(linked + copied, copied)
        return self._known[key]
