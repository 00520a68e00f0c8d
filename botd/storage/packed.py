"""Compressed log files: gzip that any tool reads, with a table at its end so that we read any part of it.

    member member ... member trailer

Each member is a gzip stream of its own with at most CHUNK plain bytes; gzip(1) shows them as one file. The trailer is
an empty member whose extra field (subfield "BD") holds a row of "<II" (packed, plain bytes of each member) and then
"<QQI4s": the inode that the file had when it was plain, its size, the number of members, MAGIC. The inode tells a
reader who was in the middle of the plain file where to go on.

A bot may be able to write into its log folder, so nothing here is believed: the table has to cover the file exactly, no
member gives more than the table says, and a file that we did not write is read only as far as FOREIGN_MAX.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from itertools import accumulate
from struct import Struct

CHUNK = 256 << 10
MEMBERS_MAX = 4096
PLAIN_MAX = CHUNK * MEMBERS_MAX
"""A larger file stays plain (1 GiB)."""
FOREIGN_MAX = 16 << 20
"""Plain bytes of a file without our table: all of it has to be unpacked to find its last line."""
LEVEL = 6
SUFFIX = ".gz"

_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"BDL1"
_ROW = Struct("<II")
_FACTS = Struct("<QQI4s")
_HEAD = Struct("<4sIBBHccH")
_EMPTY = b"\x03\x00" + bytes(8)
_NO_INODE = 1 << 63
_MEMBER_MAX = CHUNK + CHUNK // 8
_FEED = 64 << 10


class Unreadable(Exception):
    """A file, or the rest of it, that cannot be read. args: why, in words."""


def pack_member(plain: bytes) -> bytes:
    """One member; at most CHUNK bytes go in."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(plain) + packer.flush()


def trailer(rows: list[tuple[int, int]], inode: int) -> bytes:
    """The end of a file with these members: (packed, plain) bytes of each."""
    facts = _FACTS.pack(inode, sum(plain for _, plain in rows), len(rows), _MAGIC)
    data = b"".join(_ROW.pack(*row) for row in rows) + facts
    head = _HEAD.pack(b"\x1f\x8b\x08\x04", 0, 0, 255, len(data) + 4, b"B", b"D", len(data))
    return head + data + _EMPTY


def inode_of_plain(fd: int) -> int:
    """The inode that a packed file had when it was plain; where that is not on record, a number that no inode is."""
    recorded = _recorded(fd)
    return recorded if recorded is not None else os.fstat(fd).st_ino | _NO_INODE


def _recorded(fd: int) -> int | None:
    tail = _FACTS.size + len(_EMPTY)
    raw = os.pread(fd, tail, max(0, os.fstat(fd).st_size - tail))
    if len(raw) < tail or not raw.endswith(_MAGIC + _EMPTY):
        return None
    inode: int = _FACTS.unpack_from(raw)[0]
    return inode


class Packed:
    """The plain bytes of a packed file, whose descriptor stays the caller's. Raises `Unreadable` and OSError."""

    __slots__ = ("_at", "_cached", "_fd", "_from", "_rows", "_starts", "_whole", "inode")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rows: list[tuple[int, int]] | None = None
        self._starts: list[int] = []
        """Plain and, in `_from`, packed offset of each member, and of the end."""
        self._from: list[int] = []
        self._cached = b""
        self._at = -1
        self._whole: bytes | None = None
        self.inode = inode_of_plain(fd)

    @property
    def ours(self) -> bool:
        """Whether it can be read in parts."""
        self._load()
        return self._rows is not None

    @property
    def size(self) -> int:
        """Plain bytes."""
        self._load()
        return self._starts[-1] if self._rows is not None else len(self._unpacked())

    def read(self, length: int, offset: int) -> bytes:
        """As os.pread does on a plain file."""
        self._load()
        if self._rows is None:
            return self._unpacked()[offset : offset + length]
        out = bytearray()
        while length > 0 and offset < self._starts[-1]:
            member = bisect_right(self._starts, offset) - 1
            begin = offset - self._starts[member]
            piece = self._member(member)[begin : begin + length]
            out += piece
            offset += len(piece)
            length -= len(piece)
        return bytes(out)

    def release(self) -> None:
        """Give the memory back; the next read takes it again."""
        self._cached, self._at, self._whole = b"", -1, None

    def _load(self) -> None:
        if self._rows is not None or self._whole is not None:
            return
        size = os.fstat(self._fd).st_size
        tail = _FACTS.size + len(_EMPTY)
        raw = os.pread(self._fd, tail, max(0, size - tail))
        if len(raw) < tail or not raw.endswith(_MAGIC + _EMPTY):
            return
        _, plain, count, _ = _FACTS.unpack_from(raw)
        length = _HEAD.size + count * _ROW.size + tail
        if count > MEMBERS_MAX or length > size:
            raise Unreadable("its table is damaged")
        table = os.pread(self._fd, count * _ROW.size, size - tail - count * _ROW.size)
        rows = list(_ROW.iter_unpack(table[: len(table) // _ROW.size * _ROW.size]))
        starts = list(accumulate((row[1] for row in rows), initial=0))
        packed = list(accumulate((row[0] for row in rows), initial=0))
        fits = all(0 < row[1] <= CHUNK and 0 < row[0] <= _MEMBER_MAX for row in rows)
        if len(rows) != count or not fits or starts[-1] != plain or packed[-1] != size - length:
            raise Unreadable("its table is damaged")
        self._rows, self._starts, self._from = rows, starts, packed

    def _member(self, number: int) -> bytes:
        if number == self._at:
            return self._cached
        assert self._rows is not None
        packed, plain = self._rows[number]
        unpacker = zlib.decompressobj(_GZIP)
        try:
            # One byte more than it may have: what would overflow is noticed, and not unpacked.
            data = unpacker.decompress(os.pread(self._fd, packed, self._from[number]), plain + 1)
        except zlib.error as error:
            raise Unreadable(f"damaged at byte {self._from[number]} ({error})") from None
        if len(data) != plain or not unpacker.eof or unpacker.unused_data:
            raise Unreadable(f"damaged at byte {self._from[number]}")
        self._cached, self._at = data, number
        return data

    def _unpacked(self) -> bytes:
        """All of a file that somebody else has packed."""
        if self._whole is not None:
            return self._whole
        out = bytearray()
        unpacker = zlib.decompressobj(_GZIP)
        at = 0
        raw = b""
        try:
            while True:
                if not raw:
                    raw = os.pread(self._fd, _FEED, at)
                    at += len(raw)
                    if not raw:
                        if not unpacker.eof:
                            raise Unreadable("its end is missing")
                        break
                if unpacker.eof:
                    unpacker = zlib.decompressobj(_GZIP)
                out += unpacker.decompress(raw, FOREIGN_MAX - len(out) + 1)
                raw = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
                if len(out) > FOREIGN_MAX:
                    raise Unreadable(f"not written by botd, and more than {FOREIGN_MAX >> 20} MiB when it is unpacked")
        except zlib.error as error:
            raise Unreadable(f"damaged ({error})") from None
        self._whole = bytes(out)
        return self._whole
