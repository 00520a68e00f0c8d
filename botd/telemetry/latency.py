"""How long starts, restarts and requests take: the last thousand of each, and counts since the start."""

from __future__ import annotations

from collections import deque
from typing import Any

KEPT = 1000


class Reservoir:
    """The newest KEPT durations, in seconds."""

    __slots__ = ("_values", "count")

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=KEPT)
        self.count = 0

    def add(self, seconds: float) -> None:
        self._values.append(seconds)
        self.count += 1

    def view(self) -> dict[str, Any]:
        ordered = sorted(self._values)
        return {
            "count": self.count,
            "p50_s": _quantile(ordered, 0.5),
            "p99_s": _quantile(ordered, 0.99),
            "max_s": round(ordered[-1], 6) if ordered else None,
        }


class Latencies:
    def __init__(self) -> None:
        self.starts = Reservoir()
        self.recoveries = Reservoir()
        self._requests = Reservoir()
        self._errors = 0
        self._methods: dict[str, list[int]] = {}

    def request(self, method: str, took_s: float, *, ok: bool) -> None:
        self._requests.add(took_s)
        self._errors += not ok
        if method in self._methods or len(self._methods) < 100:
            counts = self._methods.setdefault(method, [0, 0])
            counts[0] += 1
            counts[1] += not ok

    def requests(self) -> dict[str, Any]:
        by_method = {name: {"count": count, "errors": bad} for name, (count, bad) in sorted(self._methods.items())}
        return {**self._requests.view(), "errors": self._errors, "by_method": by_method}


def _quantile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 6)
