"""users.resources: what each user has and may have."""

from __future__ import annotations

from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.core import quota
from botd.core.fleet import Bot
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.views import Views


async def resources(call: Call) -> dict[str, Any]:
    """Of one user, with the storage of each bot, measured now; of all users as it is kept."""
    services, only = call.services, call.params["user"]
    fleet, limits = services.fleet, services.settings.limits
    if only is not None and only not in fleet.of_user:
        raise BotdError("not_found", f"no user {only!r} has a bot", hint="see who has: botctl resources")
    if only is not None:
        await services.usage.refresh(fleet.of_user.get(only, ()))
    users = [only] if only is not None else sorted(fleet.of_user)
    views = Views(services)
    items = [resources_of(views, call, user) for user in users]
    if only is not None:
        items[0]["bots_storage"] = [storage_of(views, fleet.bots[id]) for id in sorted(fleet.of_user.get(only, ()))]
    return listing(items, fleet={"bots": len(fleet), "bots_limit": limits.max_total_bots})


def resources_of(views: Views, call: Call, user: str) -> dict[str, Any]:
    services = call.services
    fleet, limits, usage = services.fleet, services.settings.limits, services.usage
    bots = [fleet.bots[bot_id] for bot_id in fleet.of_user.get(user, ())]
    samples = [sample for bot in bots if (sample := views.sample(bot)) is not None]
    figures = [figure for bot in bots if (figure := usage.of_bot(bot.id)) is not None]
    limit = quota.quota_of(limits)
    removed = services.logs_removed.get(user, (0, 0))
    return {
        "user": user,
        "bots": len(bots),
        "bots_limit": limits.max_bots_per_user,
        "running": sum(bot.state.phase == "running" for bot in bots),
        "memory_bytes": sum(sample.memory_bytes for sample in samples),
        "memory_limit_bytes": sum(views.caps(bot).memory_bytes for bot in bots),
        "cpu_percent": round(sum(sample.cpu_percent or 0.0 for sample in samples), 1),
        "log_bytes": sum(figure.usage.logs for figure in figures),
        "log_limit_bytes": services.settings.output.max_bytes_per_user,
        "logs_removed": {"files": removed[0], "bytes": removed[1]},
        "storage_bytes": usage.of_user(user),
        "storage_limit_bytes": limit.hard,
        "storage_soft_limit_bytes": limit.soft,
        "storage_level": usage.level(user),
        "private_bytes": sum(figure.usage.private for figure in figures),
        "shared_bytes": sum(views.shared(bot) for bot in bots),
    }


def storage_of(views: Views, bot: Bot) -> dict[str, Any]:
    """What one bot takes on disk; nulls where it was not measured yet."""
    figure = views.figure(bot)
    return {
        "id": bot.id,
        "storage_bytes": None if figure is None else figure.usage.total,
        "private_bytes": None if figure is None else figure.usage.private,
        "log_bytes": None if figure is None else figure.usage.logs,
        "shared_bytes": views.shared(bot),
        "files": None if figure is None else figure.entries,
        "complete": None if figure is None else figure.complete,
        "measured_at": None if figure is None else views.at(figure.at),
    }


HANDLERS: dict[str, Handler] = {"users.resources": resources}
