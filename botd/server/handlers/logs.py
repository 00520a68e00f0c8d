"""bots.logs: what bots have printed, and with `follow` what they print."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.server.call import Call, Channel
from botd.server.dispatch import Handler
from botd.storage import logs as files
from botd.storage.follow import Follower
from botd.storage.grep import Filter
from botd.storage.logs import LogLine, Query
from botd.system.clock import rfc3339

log = logging.getLogger("botd.server")

FOLLOWED_MAX = 200
"""Bots that one call may follow: each costs descriptors and a watch."""


def _view(line: LogLine) -> dict[str, Any]:
    return {"id": line.id, "stream": line.stream, "at": rfc3339(line.at), "line": line.text}


async def logs(call: Call) -> dict[str, Any]:
    params, services = call.params, call.services
    bots = call.bots()
    folders = {bot.id: services.paths.bot_logs(bot.id) for bot in bots}
    follow: bool = params["follow"]
    if follow and len(bots) > FOLLOWED_MAX:
        text = f"{len(bots)} bots match, at most {FOLLOWED_MAX} can be followed at once"
        raise BotdError("limit", text, hint="name fewer bots")
    query = Query(
        lines=params["lines"],
        since=params["since"],
        until=params["until"],
        grep=params["grep"],
        stream=params["stream"],
        partial=not follow,
    )
    tail = await asyncio.to_thread(files.read, folders, query)
    number = await _follow(call, folders, query, tail.positions) if follow else None
    return listing([_view(line) for line in tail.lines], truncated=tail.truncated, subscription=number)


class _Shared:
    """One process that searches, for all the streams of a call: it takes one batch at a time."""

    def __init__(self, process: Filter) -> None:
        self.filter = process
        self._turn = asyncio.Lock()

    async def keep(self, lines: list[LogLine]) -> list[LogLine]:
        async with self._turn:
            return await self.filter.keep(lines)


async def _follow(call: Call, folders: dict[str, str], query: Query, positions: dict[str, files.Position]) -> int:
    """One task a bot, ended with the connection."""
    chosen = _Shared(await Filter.start(query.grep)) if query.grep is not None else None
    tasks: set[asyncio.Task[None]] = set()

    def end() -> None:
        for task in tasks:
            task.cancel()

    number = call.channel.on_close(end)
    for bot_id, folder in folders.items():
        follower = Follower(bot_id, folder, positions.get(bot_id), query.streams)
        task = asyncio.get_running_loop().create_task(_stream(call.channel, number, follower, chosen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if chosen is not None:
        waiter = asyncio.get_running_loop().create_task(_close_after(chosen, tuple(tasks)))
        tasks.add(waiter)
    return number


async def _stream(channel: Channel, number: int, follower: Follower, chosen: _Shared | None) -> None:
    try:
        while (lines := await follower.read()) is not None:
            if chosen is not None:
                lines = await chosen.keep(lines)
            for line in lines:
                while not channel.notify("logs.line", {"subscription": number, **_view(line)}):
                    # The files are the buffer: a slow reader is waited for here, not fed from memory.
                    await channel.room()
            if follower.missed and channel.notify("logs.missed", {"subscription": number, "missed": follower.missed}):
                follower.missed = 0
    except BotdError as error:
        channel.notify("logs.missed", {"subscription": number, "missed": 0, "reason": error.message})
    finally:
        follower.close()


async def _close_after(chosen: _Shared, tasks: tuple[asyncio.Task[None], ...]) -> None:
    try:
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await chosen.filter.close()


HANDLERS: dict[str, Handler] = {"bots.logs": logs}
