"""Following the output of a bot: the lines that come after a position, across rotations.

The files are the buffer, so nothing piles up in memory for a slow reader: it reads on where it was. One that falls
further behind than `stream.LAG_MAX` is taken forward, and what it missed is counted.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import NamedTuple

from botd.contract.errors import BotdError
from botd.storage.logfiles import Stream
from botd.storage.logs import LogLine, Place, Position
from botd.storage.stream import StreamReader
from botd.storage.watch import FolderWatch

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FollowedLine(NamedTuple):
    """A line and the place behind it, from which a later `Follower` would go on."""

    line: LogLine
    next: Place


class Follower:
    """The lines of one bot that are yet to come. For one task of the event loop; call `close` in the end.

        follower = Follower("alice/shop", folder, tail.positions["alice/shop"])
        while (lines := await follower.read()) is not None:
            ...

    `position` comes from a `Tail` of the same streams (with `partial=False`, or the end of an unfinished line would
    come as a line of its own) or from a `FollowedLine`; None: from now on. `missed` counts the lines that were left out
    so far, and `more` says that there were others which nobody can count; `notes` says what could not be read. The
    reader may set them back.
    """

    def __init__(
        self, id: str, folder: str, position: Position | None = None, streams: tuple[Stream, ...] = ("stdout", "stderr")
    ) -> None:
        """BotdError(not_found) when the bot has no log folder yet (`folders.prepare` makes it)."""
        self.id = id
        self.missed = 0
        self.more = False
        self.notes: list[str] = []
        self._path = folder
        try:
            self._folder = os.open(folder, _FOLDER)
        except OSError as error:
            raise BotdError("not_found", f"{id} has no folder for its output: {error.strerror}") from None
        self._streams = [StreamReader(self._folder, stream, position) for stream in streams]
        self._watch = FolderWatch(self._folder)

    async def read(self) -> list[FollowedLine] | None:
        """Wait for lines and return them, in order within each stream; None when the folder has been removed.

        An empty list when there is nothing but something to tell (`missed`, `more`, `notes`).
        """
        # A flood must not keep everybody else from their turn.
        await asyncio.sleep(0)
        while True:
            self._watch.clear()
            lines = self._collect()
            if lines or self.missed or self.more or self.notes:
                return lines
            if self._is_gone():
                return None
            await self._watch.wait()

    def close(self) -> None:
        self._watch.close()
        for stream in self._streams:
            stream.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _is_gone(self) -> bool:
        """The folder was removed: the first step of that is to rename it."""
        try:
            st = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return True
        ours = os.fstat(self._folder)
        return (st.st_dev, st.st_ino) != (ours.st_dev, ours.st_ino)

    def _collect(self) -> list[FollowedLine]:
        found: list[FollowedLine] = []
        now = time.time()
        for stream in self._streams:
            for offset, text, raw, behind in stream.read():
                line = LogLine(self.id, stream.stream, now, text, stream.inode, offset, raw)
                found.append(FollowedLine(line, Place(stream.inode, behind, stream.began, stream.inside_at(behind))))
            self.missed += stream.missed
            self.more |= stream.more
            self.notes += [f"{self.id}: {note}" for note in stream.notes]
            stream.missed, stream.more, stream.notes = 0, False, []
        return found
