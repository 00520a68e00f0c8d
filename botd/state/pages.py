"""Rows out of an SQLite file and its write-ahead log without SQLite: from every page that can still be read.

SQLite gives up at the first page that is broken; this reads all the others. No index, no schema and no tree is
needed: each leaf of a table holds whole rows. Deleted rows do not come back, because the store has `secure_delete` on
and only cells that a page still lists are read. The format is that of https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"SQLite format 3\0"
_PAGE_SIZES = frozenset(1 << n for n in range(9, 17))
_LEAF_OF_TABLE = 0x0D
_OVERFLOW_PAGES_MAX = 1 << 16

Value = int | float | str | bytes | None


class Row(NamedTuple):
    """One row of whichever table: the columns as they are stored, a rowid column as None."""

    rowid: int
    values: tuple[Value, ...]


class Frame(NamedTuple):
    """One page in the log. `offset` is where its 24 bytes of header begin; `commits`: a transaction ends with it."""

    page: int
    commits: bool
    salts: bytes
    checksum: tuple[int, int]
    offset: int


class Log:
    """A write-ahead log as bytes. `header_sound` is false when its first 32 bytes cannot be believed."""

    def __init__(self, data: bytes, page_size: int) -> None:
        self._data = data
        self.page_size = page_size
        self._order = "<"
        self.header_sound = False
        salts, checksum = b"", (0, 0)
        if len(data) >= 32:
            magic, _, size, _ = struct.unpack_from(">4I", data)
            if magic in (0x377F0682, 0x377F0683) and size in _PAGE_SIZES:
                self._order = ">" if magic & 1 else "<"
                checksum = self._sum((0, 0), data[:24])
                self.header_sound = checksum == struct.unpack_from(">2I", data, 24)
            if self.header_sound:
                self.page_size, salts = size, data[16:24]
            elif len(data) >= 56:
                salts = data[40:48]  # those of the first frame: better than nothing
        self.frames = self._frames(salts)
        self._first = checksum if self.header_sound else None

    def _frames(self, salts: bytes) -> list[Frame]:
        """Those of this log's life; what follows is left from an earlier one."""
        step, out = 24 + self.page_size, []
        for at in range(32, len(self._data) - step + 1, step):
            page, commits = struct.unpack_from(">2I", self._data, at)
            found = self._data[at + 8 : at + 16]
            if found == salts and page:
                out.append(Frame(page, commits > 0, found, struct.unpack_from(">2I", self._data, at + 16), at))
        return out

    def sound(self, index: int) -> bool:
        """Whether the frame of this index is as it was written, going by the checksum of the one before."""
        frame = self.frames[index]
        before = self.frames[index - 1].checksum if index else self._first
        if before is None:
            return True  # the header is broken: nothing to go by
        data = self._data[frame.offset : frame.offset + 24 + self.page_size]
        return self._sum(self._sum(before, data[:8]), data[24:]) == frame.checksum

    def content(self, frame: Frame) -> bytes:
        return self._data[frame.offset + 24 : frame.offset + 24 + self.page_size]

    def ends(self) -> int:
        """How many frames there are up to the end of the last transaction that was written whole."""
        for index in range(len(self.frames) - 1, -1, -1):
            if self.frames[index].commits and self.sound(index):
                return index + 1
        return 0

    def _sum(self, start: tuple[int, int], data: bytes) -> tuple[int, int]:
        a, b = start
        words = struct.unpack(f"{self._order}{len(data) // 4}I", data)
        for x, y in zip(words[::2], words[1::2], strict=True):
            a = (a + x + b) & 0xFFFFFFFF
            b = (b + y + a) & 0xFFFFFFFF
        return a, b


class Pages:
    """The pages of the database at `path`, the newer ones out of its log. OSError when it cannot be read at all."""

    def __init__(self, path: str) -> None:
        self._data = _read(path)
        self.size = _page_size(self._data)
        self._newer: dict[int, bytes] = {}
        wal = _read(f"{path}-wal", missing=b"")
        log = Log(wal, self.size)
        self.size = log.page_size
        for index in range(log.ends()):
            if log.sound(index):
                self._newer[log.frames[index].page] = log.content(log.frames[index])

    def numbers(self) -> Iterator[int]:
        in_file = -(-len(self._data) // self.size)
        yield from range(1, max(in_file, *self._newer, 0) + 1)

    def page(self, number: int) -> bytes:
        """Empty when there is none; a page that was cut off is filled up with zeros."""
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        data = self._data[(number - 1) * self.size : number * self.size]
        return data.ljust(self.size, b"\0") if data else b""

    def image(self) -> bytes:
        """The whole database as one file without a log."""
        data = b"".join(map(self.page, self.numbers()))
        # Read and write versions of 1: no write-ahead log.
        return data[:18] + b"\1\1" + data[20:]

    def rows(self) -> Iterator[Row]:
        """Every row of every table that can be read; what cannot is left out."""
        for number in self.numbers():
            page = self.page(number)
            start = 100 if number == 1 else 0
            if len(page) < start + 8 or page[start] != _LEAF_OF_TABLE:
                continue
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            for i in range(min(count, (self.size - start - 8) // 2)):
                at = int.from_bytes(page[start + 8 + 2 * i : start + 10 + 2 * i], "big")
                try:
                    yield self._row(page, at)
                except (ValueError, IndexError, struct.error):
                    continue  # this cell is broken; its neighbours may be whole

    def _row(self, page: bytes, at: int) -> Row:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        payload = self._payload(page, at, length)
        return Row(rowid - (1 << 64) if rowid >= 1 << 63 else rowid, tuple(_columns(payload)))

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        if length > len(self._data) + self.size * (len(self._newer) + 1):
            raise ValueError("longer than everything there is")
        most = self.size - 35
        if length <= most:
            local = length
        else:
            least = (self.size - 12) * 32 // 255 - 23
            local = least + (length - least) % (self.size - 4)
            if local > most:
                local = least
        out = page[at : at + local]
        if local < length:
            following = int.from_bytes(page[at + local : at + local + 4], "big")
            for _ in range(_OVERFLOW_PAGES_MAX):
                if not following or len(out) >= length:
                    break
                more = self.page(following)
                following = int.from_bytes(more[:4], "big")
                out += more[4:]
        if len(out) < length:
            raise ValueError("cut off")
        return out[:length]


def _read(path: str, missing: bytes | None = None) -> bytes:
    try:
        # Never waits: in its place may stand a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if missing is None:
            raise
        return missing
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _page_size(data: bytes) -> int:
    size = int.from_bytes(data[16:18], "big")
    size = 65536 if size == 1 else size
    return size if size in _PAGE_SIZES and data[:16] == MAGIC else 4096


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _columns(payload: bytes) -> Iterator[Value]:
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise ValueError("no record")
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    at = end
    for kind in kinds:
        size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        data = payload[at : at + size]
        if len(data) < size:
            raise ValueError("cut off")
        at += size
        if kind == 0:
            yield None
        elif kind in _INTEGERS:
            yield int.from_bytes(data, "big", signed=True)
        elif kind == 7:
            yield struct.unpack(">d", data)[0]
        elif kind in (8, 9):
            yield kind - 8
        elif kind >= 13 and kind % 2:
            yield data.decode("utf-8")
        elif kind >= 12:
            yield data
        else:
            raise ValueError("a kind that is reserved")
