"""What bots have printed: the last lines of one or many, from when to when, in the order of time.

Everything here reads files and blocks: call it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from botd.storage.logfiles import BASES, LogFile, Stream, close_all, open_stream

LINE_MAX = 64 * 1024
"""Bytes of a line that are shown; what is longer is cut, with a mark."""
BLOCK = 64 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 3

Match = Callable[[str], object]
Position = dict[Stream, tuple[int, int]]
"""Where reading ended: for each stream the inode of a file and an offset in it. A stream without a file is left out."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which lines. `lines`: the last so many of all (None: no bound but `limit_bytes`); `since` and `until`: seconds
    since the epoch, both included; `grep`: a regular expression that is searched in each line; `partial`: also a last
    line that has no end yet; `limit_bytes`: how much text at most, the newest stays.
    """

    lines: int | None = 100
    since: float | None = None
    until: float | None = None
    grep: str | None = None
    stream: Literal["both", "stdout", "stderr"] = "both"
    partial: bool = True
    limit_bytes: int = 8 << 20

    @property
    def streams(self) -> tuple[Stream, ...]:
        return ("stdout", "stderr") if self.stream == "both" else (self.stream,)


class LogLine(NamedTuple):
    """One line. `at`: seconds since the epoch, exact to a tenth; `inode` and `offset`: the place where it begins."""

    id: str
    stream: Stream
    at: float
    text: str
    inode: int
    offset: int


@dataclass(slots=True)
class Tail:
    """The lines in the order of time. `truncated`: `limit_bytes` left out older ones that were asked for.

    `positions` says for each bot where to go on (see `follow.Follower`).
    """

    lines: list[LogLine] = field(default_factory=list)
    truncated: bool = False
    positions: dict[str, Position] = field(default_factory=dict)


def read(folders: Mapping[str, str], query: Query) -> Tail:
    """Lines of many bots: `folders` maps a bot's id to its log folder; one that does not exist is empty.

    A `grep` is searched by a process of its own, because nothing can interrupt a regular expression that
    explodes: BotdError(invalid) for a wrong expression, (timeout) when it takes too long.
    """
    if query.grep is not None:
        from botd.storage.grep import search

        return search(folders, query)
    return scan(folders, query, None)


def scan(folders: Mapping[str, str], query: Query, match: Match | None) -> Tail:
    """`read` in this process, with the lines that `match` holds for."""
    tail = Tail()
    kept: list[tuple[float, LogLine]] = []
    enough = None if query.lines is None else max(4096, 4 * query.lines)
    for id, path in folders.items():
        kept += _read_bot(id, path, query, match, tail)
        if enough is not None and len(kept) > enough:
            kept = _newest(kept, query, tail)
    tail.lines = [line for _, line in _newest(kept, query, tail)]
    return tail


def _newest(kept: list[tuple[float, LogLine]], query: Query, tail: Tail) -> list[tuple[float, LogLine]]:
    """The newest lines that the query has room for, in order. Sorting is stable: a stream keeps its own order."""
    kept.sort(key=lambda entry: entry[0])
    if query.lines is not None:
        kept = kept[-query.lines :] if query.lines else []
    room = query.limit_bytes
    for i in range(len(kept) - 1, -1, -1):
        room -= len(kept[i][1].text)
        if room < 0:
            tail.truncated = True
            return kept[i + 1 :]
    return kept


def _read_bot(id: str, path: str, query: Query, match: Match | None, tail: Tail) -> list[tuple[float, LogLine]]:
    position: Position = {}
    tail.positions[id] = position
    try:
        folder = os.open(path, _FOLDER)
    except OSError:
        return []
    try:
        found: list[tuple[float, LogLine]] = []
        for stream in query.streams:
            for attempt in range(_ATTEMPTS):
                files = open_stream(folder, BASES[stream])
                try:
                    lines, truncated = _read_stream(id, stream, files, query, match, position)
                    again = any(file.shrunk() for file in files)
                finally:
                    close_all(files)
                if not again or attempt == _ATTEMPTS - 1:
                    break
            tail.truncated |= truncated
            found += lines
        return found
    finally:
        os.close(folder)


def _read_stream(
    id: str, stream: Stream, files: list[LogFile], query: Query, match: Match | None, position: Position
) -> tuple[list[tuple[float, LogLine]], bool]:
    """The lines of one stream with the keys to sort them by, and whether `limit_bytes` cut them short."""
    newest_first: list[list[LogLine]] = []
    left = query.lines
    room = query.limit_bytes
    truncated = False
    for number in range(len(files) - 1, -1, -1):
        file = files[number]
        end = file.size
        if number == len(files) - 1:
            if not query.partial:
                end = _line_start(file.fd, end)
            position[stream] = (file.inode, end)
        if left == 0 or truncated:
            break
        start, end = _window(file, end, query)
        offsets: list[int] = []
        texts: list[str] = []
        for offset, length, raw in lines_backwards(file.fd, start, end):
            text = decode(raw, length)
            if match is not None and not match(text):
                continue
            room -= len(text)
            if room < 0 and texts:
                truncated = True
                break
            offsets.append(offset)
            texts.append(text)
            if left is not None:
                left -= 1
                if left == 0:
                    break
        offsets.reverse()
        texts.reverse()
        times = file.index.times(offsets, file.before)
        newest_first.append(
            [
                LogLine(id, stream, at, text, file.inode, offset)
                for at, text, offset in zip(times, texts, offsets, strict=True)
            ]
        )
    ordered: list[tuple[float, LogLine]] = []
    # A clock that was set back must not mix up the order within a stream.
    latest = 0.0
    for part in reversed(newest_first):
        for line in part:
            latest = max(latest, line.at)
            ordered.append((latest, line))
    return ordered, truncated


def _window(file: LogFile, end: int, query: Query) -> tuple[int, int]:
    """The part of a file that `since` and `until` leave, from the beginning of a line to the end of one."""
    start = 0
    if query.since is not None and file.before < query.since:
        number = file.index.first_at_or_after(query.since)
        if number < file.index.count:
            start = _next_line(file.fd, file.index.record(number)[1], end)
        elif file.index.count or file.mtime < query.since:
            start = end
    if query.until is not None:
        number = file.index.first_at_or_after(query.until)
        while number < file.index.count and file.index.record(number)[0] <= query.until:
            number += 1
        if file.before > query.until:
            end = start
        elif number < file.index.count:
            end = min(end, _next_line(file.fd, file.index.record(number)[1], end))
    return start, max(start, end)


def _next_line(fd: int, offset: int, end: int) -> int:
    """The first offset from `offset` on at which a line begins; `end` when there is none before it."""
    if offset <= 0:
        return 0
    at = offset - 1
    while at < end:
        block = os.pread(fd, min(BLOCK, end - at), at)
        if not block:
            break
        newline = block.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(block)
    return end


def _line_start(fd: int, end: int) -> int:
    """Where the unfinished line at `end` begins; `end` itself when the last line is finished."""
    at = end
    while at > 0:
        size = min(BLOCK, at)
        newline = os.pread(fd, size, at - size).rfind(b"\n")
        if newline >= 0:
            return at - size + newline + 1
        at -= size
    return 0


def lines_backwards(fd: int, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """The lines between two offsets, the last one first: offset, length, and at most LINE_MAX of its bytes.

    A line that ends at `end` without a newline counts. No more than a block is held, however long a line is.
    """
    if end <= start:
        return
    stop = end - 1 if os.pread(fd, 1, end - 1) == b"\n" else end
    at = stop
    while at > start:
        size = min(BLOCK, at - start)
        at -= size
        block = os.pread(fd, size, at)
        found = len(block)
        while (found := block.rfind(b"\n", 0, found)) >= 0:
            begin = at + found + 1
            yield begin, stop - begin, _line(fd, begin, stop, block, at)
            stop = at + found
    yield start, stop - start, _line(fd, start, stop, b"", start)


def _line(fd: int, begin: int, stop: int, block: bytes, block_at: int) -> bytes:
    if stop <= block_at + len(block):
        return block[begin - block_at : stop - block_at]
    return os.pread(fd, min(stop - begin, LINE_MAX), begin)


def decode(raw: bytes, length: int) -> str:
    """Bytes of a line whose whole length is `length` -> text; what is not UTF-8 is replaced."""
    if length <= LINE_MAX:
        return raw.removesuffix(b"\r").decode("utf-8", "replace")
    return f"{raw[:LINE_MAX].decode('utf-8', 'replace')} [cut: {length - LINE_MAX} more bytes]"
