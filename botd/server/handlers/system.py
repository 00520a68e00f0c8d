"""system.status, performance, cleanup."""

from __future__ import annotations

from collections import Counter
from typing import Any

from botd.contract.views import document, listing
from botd.core import recovery
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.handlers.bots import top_of
from botd.server.handlers.users import resources_of
from botd.server.views import Views
from botd.storage import cleanup as cleaning
from botd.system.clock import rfc3339


def status(call: Call) -> dict[str, Any]:
    services = call.services
    fleet, machine, limits = services.fleet, services.machine, services.settings.limits
    memory, disk = machine.memory(), machine.disk(services.paths.home)
    words = Counter(bot.health for bot in fleet)
    wanted = sum(bot.state.wanted for bot in fleet)
    good = sum(bot.state.wanted and bot.health in ("healthy", "recovered") for bot in fleet)
    own = machine.process()
    keeper = services.keeper()
    keeper_usage = machine.process(keeper["pid"]) if keeper["pid"] else None
    return document(
        machine={
            "cpu_count": machine.cpu_count(),
            "load": list(machine.load()),
            "memory_total_bytes": memory.total_bytes,
            "memory_used_bytes": memory.used_bytes,
            "memory_percent": round(memory.percent, 1),
            "memory_threshold_percent": limits.memory_threshold_percent,
            "disk_total_bytes": disk.total_bytes,
            "disk_free_bytes": disk.free_bytes,
            "uptime_s": round(machine.uptime_s(), 1),
            "pressure": machine.pressure(),
        },
        fleet={
            "total": len(fleet),
            "by_phase": {phase: count for phase, count in fleet.phases.items() if count},
            "by_health": dict(words),
            "users": len(fleet.of_user),
            "limit": limits.max_total_bots,
            "limit_per_user": limits.max_bots_per_user,
            "percent_healthy": round(100.0 * good / wanted, 1) if wanted else 100.0,
        },
        daemon={
            "version": services.version,
            "uptime_s": round(services.clock.boottime() - services.started_at, 1),
            "memory_bytes": own.memory_bytes if own else None,
            "cpu_s": own.cpu_s if own else None,
        },
        keeper={
            **keeper,
            "memory_bytes": keeper_usage.memory_bytes if keeper_usage else None,
            "cpu_s": keeper_usage.cpu_s if keeper_usage else None,
        },
        mechanisms=services.mechanisms(),
        config={"source": services.config.source, "loaded_at": rfc3339(services.config.loaded_at_wall)},
        warnings=services.warnings(),
        recovery=recovery.view(recovery.total(bot.state.recovery for bot in fleet)),
    )


def performance(call: Call) -> dict[str, Any]:
    services = call.services
    views, bots = Views(services), list(services.fleet)
    samples = [sample for bot in bots if (sample := views.sample(bot)) is not None]
    return document(
        recovery=recovery.view(recovery.total(bot.state.recovery for bot in bots)),
        starts=services.latencies.starts.view(),
        restarts=services.latencies.recoveries.view(),
        requests=services.latencies.requests(),
        memory={
            "bots_bytes": sum(sample.memory_bytes for sample in samples),
            "machine_percent": round(services.machine.memory_percent(), 1),
        },
        cpu={"bots_percent": round(sum(sample.cpu_percent or 0.0 for sample in samples), 1)},
        top_memory=top_of(bots, views, "memory_bytes"),
        top_cpu=top_of(bots, views, "cpu_percent"),
        users=[resources_of(views, call, user) for user in sorted(services.fleet.of_user)],
    )


def _strays(call: Call) -> list[dict[str, Any]]:
    """Processes without a record: what is left of bots whose database was lost."""
    return [
        {
            "path": f"process {stray.pid}",
            "pid": stray.pid,
            "id": stray.id,
            "kind": "stray",
            "bytes": 0,
            "reason": "it runs and no record knows its bot",
            "action": "would remove",
            "data": True,
        }
        for stray in call.services.executor.strays
        if stray.id not in call.services.fleet.bots
    ]


async def cleanup(call: Call) -> dict[str, Any]:
    """A dry run is exactly the plan; otherwise everything is looked at again in the moment of its removal."""
    services, dry = call.services, call.params["dry_run"]
    items = await services.sweeper.look()
    strays = _strays(call)
    if dry:
        shown = [cleaning.view(item) | {"action": "would remove" if item.remove else "kept"} for item in items]
    else:
        shown = await services.sweeper.apply(items, asked=True)
        freed = sum(item["bytes"] for item in shown if item["action"] == "removed")
        count = sum(item["action"] == "removed" for item in shown)
        ended = {stray.pid for stray in services.executor.end_strays()}
        strays = [item | {"action": "removed"} for item in strays if item["pid"] in ended]
        count += len(strays)
        if count:
            services.engine.note(None, "cleanup", f"removed {count} things, {freed} bytes")
    freed = sum(item["bytes"] for item in shown if item["action"] in ("removed", "would remove"))
    shown += strays
    return listing(shown, freed_bytes=freed, dry_run=dry, bots=len(services.fleet))


HANDLERS: dict[str, Handler] = {
    "system.status": status,
    "system.performance": performance,
    "system.cleanup": cleanup,
}
