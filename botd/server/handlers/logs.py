"""bots.logs: what bots have printed, and with `follow` what they print."""

from __future__ import annotations

import asyncio
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.storage import logs as files
from botd.storage.logs import LogLine, Query
from botd.system.clock import rfc3339

FOLLOWED_MAX = 200
"""Bots that one call may follow: each costs descriptors and a watch."""


def _view(line: LogLine) -> dict[str, Any]:
    return {"id": line.id, "stream": line.stream, "at": rfc3339(line.at), "line": line.text}


async def logs(call: Call) -> dict[str, Any]:
    params, services = call.params, call.services
    bots = call.bots()
    folders = {bot.id: services.paths.bot_logs(bot.id) for bot in bots}
    if params["follow"] and len(bots) > FOLLOWED_MAX:
        raise BotdError(
            "limit", f"{len(bots)} bots match, at most {FOLLOWED_MAX} can be followed at once", hint="name fewer bots"
        )
    query = Query(
        lines=params["lines"],
        since=params["since"],
        until=params["until"],
        grep=params["grep"],
        stream=params["stream"],
        partial=not params["follow"],
    )
    tail = await asyncio.to_thread(files.read, folders, query)
    return listing([_view(line) for line in tail.lines], truncated=tail.truncated, subscription=None)


HANDLERS: dict[str, Handler] = {"bots.logs": logs}
