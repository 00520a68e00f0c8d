"""What bots have printed: the last lines of one or many, from when to when, in the order of time.

Everything here reads files and blocks: call it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from botd.storage.logfiles import BASES, LogFile, Stream, close_all, open_stream
from botd.storage.loglines import decode, line_start, lines_backwards, next_line
from botd.storage.packed import Unreadable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 3

Match = Callable[[str], object]


class Place(NamedTuple):
    """A place between two lines: `inode` of a file, the time at which that file `began` (0: unknown), `offset`.

    `inside`: in the middle of a line whose beginning was given out already, because it is too long.
    """

    inode: int
    offset: int
    began: float = 0.0
    inside: bool = False


Position = dict[Stream, Place]
"""Where reading ended, for each stream that has a file."""


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
    """One line. `at`: seconds since the epoch, exact to a tenth; `inode` and `offset`: the place where it begins.

    `raw`: its bytes in Base64 where they are no UTF-8; `text` has replacement characters then.
    """

    id: str
    stream: Stream
    at: float
    text: str
    inode: int
    offset: int
    raw: str | None = None


@dataclass(slots=True)
class Tail:
    """The lines in the order of time. `truncated`: `limit_bytes` left out older ones that were asked for.

    `positions` says for each bot where to go on (see `follow.Follower`); `notes`: what could not be read, in words.
    """

    lines: list[LogLine] = field(default_factory=list)
    truncated: bool = False
    positions: dict[str, Position] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
                notes: list[str] = []
                try:
                    lines, truncated = _read_stream(id, stream, files, query, match, position, notes)
                    again = any(file.shrunk() for file in files)
                finally:
                    close_all(files)
                if not again or attempt == _ATTEMPTS - 1:
                    break
            tail.truncated |= truncated
            tail.notes += notes
            found += lines
        return found
    finally:
        os.close(folder)


def _read_stream(
    id: str,
    stream: Stream,
    files: list[LogFile],
    query: Query,
    match: Match | None,
    position: Position,
    notes: list[str],
) -> tuple[list[tuple[float, LogLine]], bool]:
    """The lines of one stream with the keys to sort them by, and whether `limit_bytes` cut them short."""
    newest_first: list[list[LogLine]] = []
    take = _Take(query, match)
    for number in range(len(files) - 1, -1, -1):
        file = files[number]
        newest = number == len(files) - 1
        if take.full and not newest:
            break
        found: list[tuple[int, str, str | None]] = []
        try:
            end = file.size
            if newest:
                end = end if query.partial else line_start(file.read, end)
                position[stream] = Place(file.inode, end, file.began)
            if not take.full:
                take.lines(file, *_window(file, end, query), found)
        except (Unreadable, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            notes.append(f"{id}: {file.name} cannot be read, what is older in it is left out: {why}")
        finally:
            file.release()
        found.reverse()
        times = file.index.times([offset for offset, _, _ in found], file.before)
        newest_first.append(
            [
                LogLine(id, stream, at, text, file.inode, offset, raw)
                for at, (offset, text, raw) in zip(times, found, strict=True)
            ]
        )
    ordered: list[tuple[float, LogLine]] = []
    # A clock that was set back must not mix up the order within a stream.
    latest = 0.0
    for part in reversed(newest_first):
        for line in part:
            latest = max(latest, line.at)
            ordered.append((latest, line))
    return ordered, take.truncated


class _Take:
    """How many lines, and how much text, of a stream are still wanted."""

    __slots__ = ("_left", "_match", "_room", "truncated")

    def __init__(self, query: Query, match: Match | None) -> None:
        self._left = query.lines
        self._room = query.limit_bytes
        self._match = match
        self.truncated = False

    @property
    def full(self) -> bool:
        return self._left == 0 or self.truncated

    def lines(self, file: LogFile, start: int, end: int, into: list[tuple[int, str, str | None]]) -> None:
        """Offset, text and raw bytes of the wanted lines between two offsets, the last one first."""
        some = False
        for offset, length, data in lines_backwards(file.read, start, end):
            text, raw = decode(data, length)
            if self._match is not None and not self._match(text):
                continue
            self._room -= len(text)
            if self._room < 0 and some:
                self.truncated = True
                return
            some = True
            into.append((offset, text, raw))
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    return


def _window(file: LogFile, end: int, query: Query) -> tuple[int, int]:
    """The part of a file that `since` and `until` leave, from the beginning of a line to the end of one."""
    start = 0
    if query.since is not None and file.before < query.since:
        number = file.index.first_at_or_after(query.since)
        if number < file.index.count:
            start = next_line(file.read, file.index.record(number)[1], end)
        elif file.index.count or file.mtime < query.since:
            start = end
    if query.until is not None:
        number = file.index.first_at_or_after(query.until)
        while number < file.index.count and file.index.record(number)[0] <= query.until:
            number += 1
        if file.before > query.until:
            end = start
        elif number < file.index.count:
            end = min(end, next_line(file.read, file.index.record(number)[1], end))
    return start, max(start, end)
