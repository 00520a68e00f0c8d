"""bots.bulk: one verb over many bots, a batch at a time, with an end when too much fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from botd.core import bulk
from botd.core.fleet import Bot
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.verdicts import act, refuse_missing, report, verdict


async def run(call: Call) -> dict[str, Any]:
    began = call.services.clock.boottime()
    params = call.params
    bots, missing = {bot.id: bot for bot in call.bots()}, refuse_missing(call)
    # Progress is told for the whole bulk, not once more for the one bot of each act.
    each = replace(call, params={**params, "progress": False})
    slots = asyncio.Semaphore(params["parallel"])
    out: dict[str, dict[str, Any]] = {}
    failures = 0

    def may_go_on() -> bool:
        return bulk.may_go_on(failures, max_failures=params["max_failures"], stop_on_error=params["on_error"] == "stop")

    async def one(bot: Bot) -> None:
        nonlocal failures
        async with slots:
            if not may_go_on():
                out[bot.id] = _skipped(call, bot.id, failures)
            else:
                [out[bot.id]] = await act(each, params["op"], [bot], wait=True, timeout_s=params["timeout_s"])
                failures += not out[bot.id]["ok"]
        call.progress(len(out), len(bots), out[bot.id])

    for batch in bulk.batches(list(bots), params["batch"]):
        await asyncio.gather(*(one(bots[bot_id]) for bot_id in batch))
    return report(call, [*(out[bot_id] for bot_id in bots), *missing], began)


def _skipped(call: Call, bot_id: str, failures: int) -> dict[str, Any]:
    reason = f"skipped: {failures} failed before it"
    item = verdict(bot_id, call.services.fleet.get(bot_id), ok=False, changed=False, result="skipped", reason=reason)
    item["error"] = {
        "kind": "conflict",
        "message": reason,
        "hint": "raise --max-failures, or mend and repeat",
        "exit": 1,
    }
    return item


HANDLERS: dict[str, Handler] = {"bots.bulk": run}
