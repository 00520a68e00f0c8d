"""bots.logs: what bots have printed, and with `follow` what they print."""

from __future__ import annotations

import asyncio
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.selector import check
from botd.contract.views import listing
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.following import FOLLOWED_MAX, Following, place_of, token, view
from botd.storage import logs as files
from botd.storage.logs import Place, Position, Query
from botd.system import descriptors

FOLLOWER_FDS = 4
"""The folder, a watch on it, and the file of each stream."""


async def logs(call: Call) -> dict[str, Any]:
    """With `resume`: for the bots named there nothing that was, but all that came after their positions."""
    params, services = call.params, call.services
    bots = call.bots()
    follow: bool = params["follow"]
    if follow and len(bots) > FOLLOWED_MAX:
        text = f"{len(bots)} bots match, at most {FOLLOWED_MAX} can be followed at once"
        raise BotdError("limit", text, hint="name fewer bots")
    if follow:
        descriptors.need(FOLLOWER_FDS * len(bots))
    query = Query(
        lines=params["lines"],
        since=params["since"],
        until=params["until"],
        grep=params["grep"],
        stream=params["stream"],
        partial=not follow,
    )
    resumed = _resumed(params["resume"]) if follow and params["resume"] is not None else None
    # Whoever is not named in `resume` came while nobody was listening: everything of it is new.
    known = {} if resumed is None else {bot.id: resumed.get(bot.id, {}) for bot in bots}
    folders = {bot.id: services.paths.bot_logs(bot.id) for bot in bots if bot.id not in known}
    tail = await asyncio.to_thread(files.read, folders, query)
    positions = {**tail.positions, **known}
    number = None
    if follow:
        following = Following(call, query, check(params["select"]), resumable=params["resumable"])
        await following.begin(positions)
        number = following.number
    answer = listing(
        [view(line) for line in tail.lines], truncated=tail.truncated, notes=tail.notes, subscription=number
    )
    if params["resumable"]:
        answer["positions"] = {id: _tokens(position) for id, position in positions.items()}
    return answer


def _resumed(given: dict[str, dict[str, str]]) -> dict[str, Position]:
    out: dict[str, Position] = {}
    for bot_id, streams in given.items():
        out[bot_id] = position = {}
        for stream, text in streams.items():
            place = place_of(text)
            if stream == "stdout":
                position["stdout"] = place
            else:
                position["stderr"] = place
    return out


def _tokens(position: dict[Any, Place]) -> dict[str, str]:
    return {stream: token(place) for stream, place in position.items()}


HANDLERS: dict[str, Handler] = {"bots.logs": logs}
