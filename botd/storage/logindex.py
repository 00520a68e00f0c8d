"""The time index of a log file: a row of 16-byte records "<dQ", the wall time of a move and the offset in the file at
which the bytes moved then begin. There is at most one record for each 100 ms. Whatever stands in it may be damaged.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from struct import Struct

LAST_TIME = 253402300800.0
"""The year 10000: nothing can write such a time."""
_RECORD = Struct("<dQ")
_RECORDS_AT_ONCE = 4096


class Index:
    """The time index of one file; with `fd` -1 an empty one. Closed by its owner."""

    __slots__ = ("count", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.count = os.fstat(fd).st_size // _RECORD.size if fd >= 0 else 0

    def record(self, number: int) -> tuple[float, int]:
        """Time and offset of one record. A damaged one has the time nan."""
        raw = os.pread(self.fd, _RECORD.size, number * _RECORD.size)
        if len(raw) < _RECORD.size:
            return math.nan, 0
        at, offset = _RECORD.unpack(raw)
        return (at if 0 <= at < LAST_TIME else math.nan), offset

    def first_at_or_after(self, at: float) -> int:
        """The number of the first record that is not before `at`; `count` when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.record(middle)[0] < at:
                low = middle + 1
            else:
                high = middle
        return low

    def last_covering(self, offset: int) -> int:
        """The number of the last record that begins at or before `offset`; -1 when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.record(middle)[1] <= offset:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def times(self, offsets: Sequence[int], before: float) -> Iterator[float]:
        """The time of each of these ascending offsets; `before` for those that the first record does not reach."""
        if not offsets:
            return
        number = self.last_covering(offsets[0])
        at = before if number < 0 else known(self.record(number)[0], before)
        coming = self._from(number + 1)
        pending = next(coming, None)
        for offset in offsets:
            while pending is not None and pending[1] <= offset:
                at = known(pending[0], at)
                pending = next(coming, None)
            yield at

    def _from(self, number: int) -> Iterator[tuple[float, int]]:
        while number < self.count:
            raw = os.pread(self.fd, _RECORDS_AT_ONCE * _RECORD.size, number * _RECORD.size)
            raw = raw[: len(raw) // _RECORD.size * _RECORD.size]
            if not raw:
                return
            for at, offset in _RECORD.iter_unpack(raw):
                yield (at if 0 <= at < LAST_TIME else math.nan), offset
            number += len(raw) // _RECORD.size


def known(at: float, otherwise: float) -> float:
    """A time, or another one where it is nan."""
    return otherwise if math.isnan(at) else at
