"""Whose turn it is: each id has one time, the latest that was said. Pure."""

from __future__ import annotations

import heapq


class Rota:
    """Finding who is due costs nothing for those who are not."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def put(self, id: str, at: float) -> None:
        """Its turn is at `at`, whatever was said before."""
        self._at[id] = at
        heapq.heappush(self._heap, (at, id))
        if len(self._heap) > 64 + 4 * len(self._at):
            self._heap = [(at, id) for id, at in self._at.items()]
            heapq.heapify(self._heap)

    def sooner(self, id: str, at: float) -> None:
        """Its turn is at `at` at the latest."""
        if at < self._at.get(id, float("inf")):
            self.put(id, at)

    def drop(self, id: str) -> None:
        """It has no turn any more."""
        self._at.pop(id, None)

    def due(self, now: float) -> bool:
        """Whether it is anybody's turn."""
        self._tidy()
        return bool(self._heap) and self._heap[0][0] <= now

    def take(self, now: float, most: int) -> list[str]:
        """Those whose turn has come, the longest due first, at most so many; they have none then."""
        out: list[str] = []
        while len(out) < most and self.due(now):
            _, id = heapq.heappop(self._heap)
            del self._at[id]
            out.append(id)
        return out

    def _tidy(self) -> None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
