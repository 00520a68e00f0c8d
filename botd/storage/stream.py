"""One stream of a bot, read on from a place and across rotations; `follow` puts the streams of a bot together."""

from __future__ import annotations

import os
from typing import NamedTuple

from botd.storage.logfiles import BASES, LogFile, Stream, cut_mark, find, inode_of, open_number, rotated
from botd.storage.loglines import BLOCK, LINE_MAX, decode
from botd.storage.logs import Place, Position
from botd.storage.packed import Unreadable

LAG_MAX = 4 << 20
"""Bytes of one file that a reader may be behind."""
LAG_KEPT = 256 << 10
LINES_MAX = 2000
"""Lines of one stream that are given out at a time."""
_READ_MAX = 4 * BLOCK
_ATTEMPTS = 100


class Piece(NamedTuple):
    """A line in a file. `behind`: the offset after it."""

    offset: int
    text: str
    raw: str | None
    behind: int


class StreamReader:
    """Where the reader is in one stream: an open file, which no rotation takes away, and an offset in it."""

    __slots__ = (
        "_began",
        "_file",
        "_folder",
        "_inside",
        "_log",
        "_offset",
        "inode",
        "missed",
        "more",
        "notes",
        "stream",
    )

    def __init__(self, folder: int, stream: Stream, position: Position | None) -> None:
        self._folder = folder
        self._log = f"{BASES[stream]}.log"
        self._offset = 0
        self._inside = False
        """The beginning of this line was given out already (it is too long): the rest of it is passed over."""
        self.stream: Stream = stream
        self._file: LogFile | None = None
        self._began = 0.0
        self.inode = 0
        self.missed = 0
        self.more = False
        self.notes: list[str] = []
        if position is None:
            self._offset = self._end() if self._open(0) else 0
        elif stream in position:
            self._go_on(position[stream])

    @property
    def began(self) -> float:
        """The time of the file's first record, 0 while it has none."""
        if not self._began and self._file is not None:
            self._began = self._file.began
        return self._began

    def inside_at(self, offset: int) -> bool:
        """Whether a line that was given out in part goes on at this offset."""
        return self._inside and offset == self._offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[Piece]:
        """The next lines; none when there are none now."""
        if self._file is None:
            if not self._open_oldest():
                return []
            # It was full before the first look at it; so may others have been, that are gone.
            self.more |= inode_of(self._folder, self._log) != self.inode
        while self._file is not None:
            try:
                pieces = self._read_file(self._file, final=False)
                if pieces:
                    return pieces
                if not self._file.packed and inode_of(self._folder, self._log) in (self.inode, None):
                    if not self._emptied():
                        return []
                    self._offset, self._inside = 0, False
                    continue
                # The file is finished: what came into it up to its end, and then on to the next one.
                pieces = self._read_file(self._file, final=True)
                if pieces:
                    return pieces
                beyond = max(0, self._offset - self._file.now())
            except (Unreadable, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                self.notes.append(f"{self._file.name} cannot be read, the rest of it is left out: {why}")
                beyond = 0
            if not self._advance(self._file, beyond):
                return []
        return []

    def _end(self) -> int:
        return 0 if self._file is None else self._file.now()

    def _emptied(self) -> bool:
        """Somebody cut the current file (`> out.log`). A rotation does so too, but leaves its mark or another inode."""
        if self._end() >= self._offset or cut_mark(os.listdir(self._folder), self._log) is not None:
            return False
        return inode_of(self._folder, self._log) == self.inode

    def _go_on(self, place: Place) -> None:
        """Where an earlier reader ended. What was there may be packed by now, or gone."""
        found = find(self._folder, self._log, place.inode, place.began)
        if found is not None and self._open(found.number):
            self._offset, self._inside = place.offset, place.inside
            return
        if self._open_oldest():
            self.more = True

    def _read_file(self, file: LogFile, *, final: bool) -> list[Piece]:
        size = file.now()
        if size - self._offset > LAG_MAX and not file.packed:
            self._skip(file, size - LAG_KEPT)
        while self._offset < size:
            data = file.read(min(_READ_MAX, size - self._offset), self._offset)
            if not data:
                return []
            at_end = final and self._offset + len(data) >= size
            pieces, used = self._split(data, at_end)
            self._offset += used
            if pieces or not used:
                return pieces
        return []

    def _split(self, data: bytes, at_end: bool) -> tuple[list[Piece], int]:
        """The lines in `data`, and how many of its bytes they took; an unfinished line stays for the next time."""
        pieces: list[Piece] = []
        begin = 0
        while (newline := data.find(b"\n", begin)) >= 0:
            if len(pieces) == LINES_MAX:
                return pieces, begin
            if self._inside:
                self._inside = False
            else:
                raw = data[begin:newline]
                line = decode(raw[:LINE_MAX], len(raw))
                pieces.append(Piece(self._offset + begin, *line, self._offset + newline + 1))
            begin = newline + 1
        rest = len(data) - begin
        if self._inside:
            return pieces, len(data)
        if rest and (at_end or rest > LINE_MAX):
            raw = data[begin:]
            text, encoded = decode(raw[:LINE_MAX], rest if at_end else LINE_MAX)
            if not at_end:
                text, encoded = f"{text} [cut]", None
            pieces.append(Piece(self._offset + begin, text, encoded, self._offset + len(data)))
            self._inside = not at_end
            begin = len(data)
        return pieces, begin

    def _skip(self, file: LogFile, to: int) -> None:
        """Go forward to the line after `to` and count the lines on the way."""
        while self._offset < to:
            data = file.read(min(1 << 20, to - self._offset), self._offset)
            if not data:
                return
            self.missed += data.count(b"\n")
            self._offset += len(data)
        # The middle of a line: what is left of it is missed like its beginning.
        self.missed += 0 if self._inside else 1
        self._inside = True

    def _advance(self, own: LogFile, beyond: int) -> bool:
        """On to the file that came after this one. Bytes beyond its end (so many) were moved there by the rotation."""
        for _ in range(_ATTEMPTS):
            at = self._place_of(own)
            if at is None:
                # Deleted by a later rotation: how many lines went with the files after it, nobody can tell. Where no
                # rotated files are kept at all, that is how every rotation looks.
                if rotated(os.listdir(self._folder), self._log):
                    self.more = True
                return self._open_oldest()
            if at < 1:
                return False
            file = open_number(self._folder, self._log, at - 1)
            # A rotation moves the oldest first: where ours has not moved, its neighbour had not either.
            if self._place_of(own) == at:
                if file is None:
                    return False
                self._take(file)
                self._offset = beyond
                return True
            if file is not None:
                file.close()
        return False  # it rotates faster than we look: the next look will do

    def _open_oldest(self) -> bool:
        numbers = rotated(os.listdir(self._folder), self._log)
        return self._open(numbers[0] if numbers else 0)

    def _open(self, number: int) -> bool:
        file = open_number(self._folder, self._log, number)
        if file is None:
            return False
        self._take(file)
        return True

    def _take(self, file: LogFile) -> None:
        self.close()
        self._file, self.inode = file, file.inode
        self._offset, self._inside, self._began = 0, False, 0.0

    def _place_of(self, own: LogFile) -> int | None:
        """The number of the file; None when it is gone: seen only by two equal looks, for in between a rotation may be
        moving everything.
        """
        before: list[tuple[str, int | None]] = []
        for _ in range(_ATTEMPTS):
            number = own.number_in(self._folder, self._log)
            if number is not None:
                return number
            now = [(name, inode_of(self._folder, name)) for name in sorted(os.listdir(self._folder))]
            if now == before:
                return None
            before = now
        return None
