"""The lines to come of the bots of one call: one task a bot, bots that begin to match are joined, one end for all."""

from __future__ import annotations

import asyncio
import logging
from struct import pack, unpack
from typing import Any

from botd.contract.errors import BotdError
from botd.server.call import Call
from botd.state.store import StoredEvent
from botd.storage import folders
from botd.storage.follow import FollowedLine, Follower
from botd.storage.grep import Filter
from botd.storage.logs import LogLine, Place, Position, Query
from botd.system.clock import rfc3339

log = logging.getLogger("botd.server")

FOLLOWED_MAX = 200
"""Bots that one call may follow: each costs descriptors and a watch."""


def view(line: LogLine) -> dict[str, Any]:
    """A line as it travels."""
    shown = {"id": line.id, "stream": line.stream, "at": rfc3339(line.at), "line": line.text}
    return shown if line.raw is None else shown | {"raw": line.raw}


def token(place: Place) -> str:
    """A place in the words of the contract, which clients give back and do not look into."""
    bits = unpack("<Q", pack("<d", place.began))[0]
    return f"{place.inode:x}.{place.offset:x}.{bits:x}{'+' if place.inside else ''}"


def place_of(text: str) -> Place:
    """The place that a token means; the schema has checked its form. BotdError(invalid) for figures out of range."""
    inode, offset, bits = (int(part, 16) for part in text.removesuffix("+").split("."))
    began = unpack("<d", pack("<Q", bits))[0] if bits < 1 << 64 else -1.0
    if offset >= 1 << 63 or not began >= 0:
        raise BotdError("invalid", f"resume: {text!r} is no position", code=-32602)
    return Place(inode, offset, began, text.endswith("+"))


class Following:
    """`begin` and then everything by itself, until the connection ends. `number` is the subscription."""

    def __init__(self, call: Call, query: Query, selection: dict[str, Any], *, resumable: bool) -> None:
        self._call = call
        self._query = query
        self._selection = selection
        self._resumable = resumable
        self._filter: Filter | None = None
        self._turn = asyncio.Lock()
        """A filter takes one batch at a time."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing: asyncio.Task[None] | None = None
        self._full = False
        self.number = 0

    async def begin(self, positions: dict[str, Position]) -> None:
        """Follow these bots, each from its position. BotdError(invalid) when `grep` is no expression."""
        call = self._call
        if self._query.grep is not None:
            self._filter = await Filter.start(self._query.grep)
        call.services.engine.on_event.append(self._happened)
        self.number = call.channel.on_close(self._end)
        for bot_id, position in positions.items():
            self._follow(bot_id, position)

    def _end(self) -> None:
        self._call.services.engine.on_event.remove(self._happened)
        for task in self._tasks.values():
            task.cancel()
        if self._filter is not None:
            self._closing = asyncio.get_running_loop().create_task(self._filter.close())

    def _happened(self, event: StoredEvent) -> None:
        """A bot that was made, or changed so that it matches, is joined. It stays when it matches no longer."""
        if event.id is None or event.id in self._tasks:
            return
        if not self._call.services.fleet.selects(self._selection, event.id, self._call.caller.user):
            return
        if len(self._tasks) < FOLLOWED_MAX:
            self._follow(event.id, {} if event.kind == "created" else None)
        elif not self._full:
            self._full = True
            text = f"more than {FOLLOWED_MAX} bots match, the others are not followed"
            self._tell("logs.note", id=event.id, text=text)

    def _follow(self, bot_id: str, position: Position | None) -> None:
        task = asyncio.get_running_loop().create_task(self._stream(bot_id, position))
        self._tasks[bot_id] = task
        task.add_done_callback(lambda _: self._done(bot_id, task))

    def _done(self, bot_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(bot_id) is task:  # a new bot of that id may be followed by now
            del self._tasks[bot_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s is followed no more", bot_id, exc_info=error)

    def _tell(self, method: str, **params: Any) -> bool:
        return self._call.channel.notify(method, {"subscription": self.number, **params})

    async def _tell_surely(self, method: str, **params: Any) -> None:
        while not self._tell(method, **params):
            # The files are the buffer: a slow reader is waited for here, not fed from memory.
            await self._call.channel.room()

    async def _stream(self, bot_id: str, position: Position | None) -> None:
        follower = None
        try:
            follower = self._open(bot_id, position)
            while (entries := await follower.read()) is not None:
                for entry in await self._wanted(entries):
                    await self._tell_surely("logs.line", **self._line(entry))
                for note in follower.notes:
                    await self._tell_surely("logs.note", id=bot_id, text=note)
                follower.notes = []
                if follower.missed or follower.more:
                    # Counted on while there is no room for it.
                    await self._tell_surely("logs.missed", id=bot_id, missed=follower.missed, more=follower.more)
                    follower.missed, follower.more = 0, False
            self._tasks.pop(bot_id, None)
            await self._tell_surely("logs.ended", id=bot_id, left=len(self._tasks))
        except BotdError as error:
            await self._tell_surely("logs.note", id=bot_id, text=error.message)
        finally:
            if follower is not None:
                follower.close()

    def _open(self, bot_id: str, position: Position | None) -> Follower:
        paths = self._call.services.paths
        try:
            return Follower(bot_id, paths.bot_logs(bot_id), position, self._query.streams)
        except BotdError as error:
            if error.kind != "not_found" or bot_id not in self._call.services.fleet.bots:
                raise
        # Somebody has removed it; the bot would make it again with its next start.
        folders.prepare(paths, bot_id)
        return Follower(bot_id, paths.bot_logs(bot_id), position, self._query.streams)

    async def _wanted(self, entries: list[FollowedLine]) -> list[FollowedLine]:
        if self._filter is None or not entries:
            return entries
        async with self._turn:
            kept = await self._filter.keep([entry.line for entry in entries])
        places = {id(entry.line): entry for entry in entries}
        return [places[id(line)] for line in kept]

    def _line(self, entry: FollowedLine) -> dict[str, Any]:
        return view(entry.line) | ({"next": token(entry.next)} if self._resumable else {})
