"""users.resources: what each user has and may have."""

from __future__ import annotations

from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.views import Views
from botd.storage import folders


def resources(call: Call) -> dict[str, Any]:
    services, only = call.services, call.params["user"]
    fleet, limits = services.fleet, services.settings.limits
    if only is not None and only not in fleet.of_user:
        raise BotdError("not_found", f"no user {only!r} has a bot", hint="see who has: botctl resources")
    users = [only] if only is not None else sorted(fleet.of_user)
    views = Views(services)
    items = [resources_of(views, call, user) for user in users]
    return listing(items, fleet={"bots": len(fleet), "bots_limit": limits.max_total_bots})


def resources_of(views: Views, call: Call, user: str) -> dict[str, Any]:
    services = call.services
    fleet, limits, paths = services.fleet, services.settings.limits, services.paths
    bots = [fleet.bots[bot_id] for bot_id in fleet.of_user.get(user, ())]
    samples = [sample for bot in bots if (sample := views.sample(bot)) is not None]
    logs = folders.usage(f"{paths.logs}/{user}")
    removed = services.logs_removed.get(user, (0, 0))
    return {
        "user": user,
        "bots": len(bots),
        "bots_limit": limits.max_bots_per_user,
        "running": sum(bot.state.phase == "running" for bot in bots),
        "memory_bytes": sum(sample.memory_bytes for sample in samples),
        "memory_limit_bytes": sum(views.caps(bot).memory_bytes for bot in bots),
        "cpu_percent": round(sum(sample.cpu_percent or 0.0 for sample in samples), 1),
        "log_bytes": logs,
        "log_limit_bytes": services.settings.output.max_bytes_per_user,
        "logs_removed": {"files": removed[0], "bytes": removed[1]},
        "storage_bytes": folders.usage(f"{paths.bots}/{user}") + logs,
        "storage_limit_bytes": limits.max_storage_per_user_bytes,
    }


HANDLERS: dict[str, Handler] = {"users.resources": resources}
