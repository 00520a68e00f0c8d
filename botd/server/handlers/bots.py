"""bots.list, status, health, explain, wait: looking."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.selector import check
from botd.contract.views import document, listing
from botd.core import explain as explanation
from botd.core import recovery
from botd.core.fleet import Bot
from botd.core.goals import Outcome
from botd.server.call import Call, nothing_matches
from botd.server.dispatch import Handler
from botd.server.verdicts import refuse_missing, report, settled
from botd.server.views import Views, check_fields, event_view, exit_view
from botd.state.store import StoredEvent


def list_(call: Call) -> dict[str, Any]:
    fields: list[str] | None = call.params["fields"]
    check_fields(fields)
    bots = call.bots(every_by_default=True)
    after: str | None = call.params["after"]
    rest = [bot for bot in bots if bot.id > after] if after is not None else bots
    page = rest[: call.params["limit"]]
    more = page[-1].id if len(page) < len(rest) else None
    return listing(Views(call.services).bots(page, fields), next=more, total=len(bots))


def status(call: Call) -> dict[str, Any]:
    return listing(Views(call.services).bots(call.bots()), missing=call.missing())


def health(call: Call) -> dict[str, Any]:
    views = Views(call.services)
    bots = call.bots(every_by_default=True)
    words = Counter(bot.health for bot in bots)
    good = words["healthy"] + words["recovered"]
    counted = len(bots) - words["stopped"]
    summary = {
        "total": len(bots),
        "healthy": good,
        "unhealthy": words["unhealthy"],
        "recovered": words["recovered"],
        "unknown": words["unknown"],
        "stopped": words["stopped"],
        # Of those that are to run: a stopped bot is neither well nor ill.
        "percentage": round(100.0 * good / counted, 1) if counted else 100.0,
    }
    return listing([_health_of(views, bot) for bot in bots], summary=summary)


def _health_of(views: Views, bot: Bot) -> dict[str, Any]:
    state = bot.state
    restarted = state.started_at if state.restarts and state.started_at is not None else None
    return {
        "id": bot.id,
        "phase": state.phase,
        "health": bot.health,
        "uptime_s": None if state.started_at is None else round(views.now - state.started_at, 3),
        "attempts": state.attempts,
        "restarts": state.restarts,
        "last_restart_at": views.at(restarted),
        "last_exit": exit_view(state.last_exit),
        "note": state.reason or ("" if state.health == "healthy" else state.health_note),
    }


def explain(call: Call) -> dict[str, Any]:
    bot = _one(call, call.params["id"])
    services = call.services
    views = Views(services)
    return document(
        id=bot.id,
        phase=bot.state.phase,
        verdict=explanation.verdict(bot.spec, bot.state, views.now),
        advice=explanation.advice(bot.spec, bot.state, services.settings.limits, services.monitor.forks_refused(bot)),
        events=[event_view(event) for event in _own_history(services.store.events([bot.id], None, 200))],
        bot=views.bot(bot),
        recovery=recovery.view(bot.state.recovery),
    )


def _own_history(events: list[StoredEvent]) -> list[StoredEvent]:
    """From its creation on: an id may have belonged to another bot before."""
    made = max((i for i, event in enumerate(events) if event.kind == "created"), default=0)
    return events[made:]


def _one(call: Call, bot_id: str) -> Bot:
    selection = check({"any": [{"id": bot_id}]})
    found = call.services.fleet.resolve(selection, call.caller.user)
    if not found:
        raise nothing_matches(bot_id, len(call.services.fleet))
    if len(found) > 1:
        raise BotdError("invalid", f"{bot_id} matches {len(found)} bots, one is needed", hint="give a full id")
    return call.services.fleet.bots[found[0]]


async def wait(call: Call) -> dict[str, Any]:
    began = call.services.clock.boottime()
    bots, missing = call.bots(), refuse_missing(call)
    out: dict[str, dict[str, Any]] = {}

    def tell(bot_id: str, outcome: Outcome) -> None:
        out[bot_id] = settled(call, bot_id, outcome, call.params["for"])
        out[bot_id]["changed"] = False
        call.progress(len(out), len(bots), out[bot_id])

    since = {bot.id: bot.state.generation for bot in bots}
    watch = call.services.engine.watch(call.params["for"], since, tell)
    await watch.wait(call.params["timeout_s"])
    return report(call, [*(out[bot.id] for bot in bots), *missing], began)


def top_of(bots: list[Bot], views: Views, key: str, count: int = 10) -> list[dict[str, Any]]:
    """The bots with the most of a sampled figure."""
    sampled = [(getattr(sample, key) or 0, bot.id) for bot in bots if (sample := views.sample(bot)) is not None]
    return [{"id": bot_id, key: value} for value, bot_id in heapq.nlargest(count, sampled)]


HANDLERS: dict[str, Handler] = {
    "bots.list": list_,
    "bots.status": status,
    "bots.health": health,
    "bots.explain": explain,
    "bots.wait": wait,
}
