"""bots.create, start, stop, restart, delete, recover."""

from __future__ import annotations

import asyncio
from typing import Any

from botd.contract.errors import BotdError
from botd.core.quota import is_stopped_for_it
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.specs import Reader, new_bot
from botd.server.verdicts import Verb, act, admissions, refuse_missing, refused, report, verdict


def _verb(verb: Verb) -> Handler:
    async def handle(call: Call) -> dict[str, Any]:
        began = call.services.clock.boottime()
        params = call.params
        bots, missing = call.bots(), refuse_missing(call)
        items = [*await act(call, verb, bots, wait=params["wait"], timeout_s=params["timeout_s"]), *missing]
        return report(call, items, began)

    return handle


async def recover(call: Call) -> dict[str, Any]:
    """Without a selection: every bot that is down against its owner's wish, which may be none."""
    began = call.services.clock.boottime()
    bots, missing = call.bots(every_by_default=True), refuse_missing(call)
    if "select" not in call.params:
        bots = [bot for bot in bots if bot.state.phase in ("failed", "backoff") or is_stopped_for_it(bot.state)]
    items = await act(call, "recover", bots, wait=call.params["wait"], timeout_s=call.params["timeout_s"])
    return report(call, [*items, *missing], began)


async def create(call: Call) -> dict[str, Any]:
    """Answered when the bot's folder is there; with `start`, when it runs."""
    began = call.services.clock.boottime()
    given = Reader(call).read(call.params["spec"])
    bot_id = given.spec.id
    if bot_id in call.services.fleet.bots:
        hint = f"see it with: botctl status {bot_id}; change it with: botctl apply"
        raise BotdError("conflict", f"{bot_id} exists already", hint=hint)
    await admissions(call, {given.spec.user})
    [bot] = call.services.engine.create([new_bot(call, given, None, set())])
    items = [verdict(bot.id, bot, ok=True, changed=True, result="created")]
    if call.params["start"]:
        items = await act(call, "start", [bot], wait=call.params["wait"], timeout_s=call.params["timeout_s"])
        if items[0]["ok"]:
            items[0]["result"] = f"created, {items[0]['result']}"
    elif call.params["wait"]:
        items = await housed(call, items)
    return report(call, items, began)


async def housed(call: Call, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These verdicts once the folders of new bots are made, or with what stands in the way of one."""
    waiting = {
        item["id"]: made for item in items if (made := call.services.provisioner.pending(item["id"])) is not None
    }
    if waiting:
        # A bot that is deleted meanwhile is not waited for: its folder is never made.
        await asyncio.wait(waiting.values(), timeout=call.params["timeout_s"])
    out = []
    for item in items:
        made = waiting.get(item["id"])
        error = made.result() if made is not None and made.done() and not made.cancelled() else None
        bot = call.services.fleet.get(item["id"])
        out.append(item if error is None else item | refused(item["id"], bot, error))
    return out


HANDLERS: dict[str, Handler] = {
    "bots.create": create,
    "bots.start": _verb("start"),
    "bots.stop": _verb("stop"),
    "bots.restart": _verb("restart"),
    "bots.delete": _verb("delete"),
    "bots.recover": recover,
}
