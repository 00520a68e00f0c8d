"""Lines in a file, however long they are and wherever it is read from: never more than a block is held."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterator

LINE_MAX = 64 * 1024
"""Bytes of a line that are shown; what is longer is cut, with a mark."""
BLOCK = 64 * 1024

Read = Callable[[int, int], bytes]
"""(length, offset) -> bytes, as os.pread."""


def next_line(read: Read, offset: int, end: int) -> int:
    """The first offset from `offset` on at which a line begins; `end` when there is none before it."""
    if offset <= 0:
        return 0
    at = offset - 1
    while at < end:
        block = read(min(BLOCK, end - at), at)
        if not block:
            break
        newline = block.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(block)
    return end


def line_start(read: Read, end: int) -> int:
    """Where the unfinished line at `end` begins; `end` itself when the last line is finished."""
    at = end
    while at > 0:
        size = min(BLOCK, at)
        newline = read(size, at - size).rfind(b"\n")
        if newline >= 0:
            return at - size + newline + 1
        at -= size
    return 0


def lines_backwards(read: Read, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """The lines between two offsets, the last one first: offset, length, and at most LINE_MAX of its bytes.

    A line that ends at `end` without a newline counts. No more than a block is held, however long a line is.
    """
    if end <= start:
        return
    stop = end - 1 if read(1, end - 1) == b"\n" else end
    at = stop
    while at > start:
        size = min(BLOCK, at - start)
        at -= size
        block = read(size, at)
        found = len(block)
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            begin = at + found + 1
            yield begin, stop - begin, _line(read, begin, stop, block, at)
            stop = at + found
    yield start, stop - start, _line(read, start, stop, b"", start)


def _line(read: Read, begin: int, stop: int, block: bytes, block_at: int) -> bytes:
    if stop <= block_at + len(block):
        return block[begin - block_at : stop - block_at]
    return read(min(stop - begin, LINE_MAX), begin)


def decode(data: bytes, length: int) -> tuple[str, str | None]:
    """Bytes of a line whose whole length is `length` -> its text, and in Base64 its bytes if they are no UTF-8."""
    if length > LINE_MAX:
        return f"{data[:LINE_MAX].decode('utf-8', 'replace')} [cut: {length - LINE_MAX} more bytes]", None
    data = data.removesuffix(b"\r")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), b2a_base64(data, newline=False).decode("ascii")
