"""How long the pipe of a flooding bot rests between two moves. Pure.

A move costs nearly the same whether it moves a line or a megabyte, so small ones are gathered: a chatty bot costs 200
moves a second, not one a line. A flood is moved when its pipe is three quarters full: often enough that its writer
hardly ever waits, seldom enough that the moves are large. One that fills its pipe each time is moved at FLOOD_PACE, on
average, so that it cannot have the keeper (and a core of the machine) for itself.
"""

from __future__ import annotations

REST_S = 0.005
SHORTEST_S = 0.001
"""What epoll can wait for."""

FLOOD_BYTES = 1024 * 1024
"""The capacity of a pipe that was found half full once, and may be that large."""

FLOOD_PACE = 460e6
"""Bytes a second: 2.3 million lines of 200 bytes."""

_FILL, _FULL = 0.75, 0.9
_BEHIND_S = 0.1


class Flood:
    """The rhythm of one pipe of FLOOD_BYTES."""

    __slots__ = ("_due", "_gather", "_gathered")

    def __init__(self) -> None:
        self._gather = REST_S
        self._gathered = False
        self._due = 0.0

    def rest(self, moved: int, capacity: int, now: float) -> float:
        """Seconds to rest after `moved` bytes came at `now`; 0.0: the next byte shall be moved at once."""
        # Who was late (a busy machine, a rotation) catches up.
        self._due = max(self._due, now - _BEHIND_S) + moved / FLOOD_PACE
        # "Full" is less than the capacity: not every page of a pipe is.
        if moved >= _FULL * capacity:
            # How much more would have come nobody knows.
            self._gather = max(SHORTEST_S, self._gather / 2)
            self._gathered = False
            return max(0.0, self._due - now)
        if self._gathered:
            self._gather = min(REST_S, max(SHORTEST_S, self._gather * _FILL * capacity / moved))
        self._gathered = True
        return max(self._gather, self._due - now)
