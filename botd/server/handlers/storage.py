"""system.storage: what is used by what, what sharing saves, who has most, what a clean-up would free."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from botd.contract.views import document
from botd.core import quota
from botd.core.quota import Big
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.services import Services
from botd.server.views import Views
from botd.storage import usage as measuring
from botd.storage.measure import Survey

TOP = 10


async def storage(call: Call) -> dict[str, Any]:
    """Bots as their figures are kept, the rest is looked at now; with `verify` the bots are, too."""
    services = call.services
    verified = await _verify(services) if call.params["verify"] else None
    home = services.paths.home
    rest = {name: await asyncio.to_thread(measuring.folder, home, name) for name in ("templates", "trash", "run")}
    database = await asyncio.to_thread(measuring.files, home, "botd.db")
    figures = {bot.id: figure for bot in services.fleet if (figure := services.usage.of_bot(bot.id)) is not None}
    used = {
        "private_bytes": sum(figure.usage.private for figure in figures.values()),
        "log_bytes": sum(figure.usage.logs for figure in figures.values()),
        "release_bytes": rest["templates"].bytes,
        "trash_bytes": rest["trash"].bytes,
        "database_bytes": database,
        "run_bytes": rest["run"].bytes,
    }
    disk = services.machine.disk(home)
    at = min((figure.at for figure in figures.values()), default=None)
    return document(
        home=home,
        used=used,
        used_bytes=sum(used.values()),
        disk={"total_bytes": disk.total_bytes, "free_bytes": disk.free_bytes},
        sharing=_sharing(services, rest["templates"]),
        quota=_quota(services),
        users=[_user(services, user) for user in _top_users(services)],
        bots=[{"id": big.id, "bytes": big.bytes} for big in services.usage.biggest(services.fleet.bots, TOP)],
        cleanup=await _cleanup(services),
        measured={
            "bots": len(figures),
            "missing": len(services.fleet) - len(figures),
            "in_part": sorted(id for id, figure in figures.items() if not figure.complete)[:TOP],
            "oldest_at": Views(services).at(at),
        },
        verified=verified,
    )


async def _verify(services: Services) -> dict[str, Any]:
    differences = [(id, before, found) for id, before, found in await services.usage.verify()]
    differences.sort(key=lambda one: -abs(one[2].total - one[1].total))
    return {
        "bots": len(services.fleet),
        "different": len(differences),
        "bytes": sum(found.total - before.total for _, before, found in differences),
        "items": [
            {"id": id, "kept_bytes": before.total, "found_bytes": found.total}
            for id, before, found in differences[:TOP]
        ],
    }


def _sharing(services: Services, releases: Survey) -> dict[str, Any]:
    """Of the bots with a template: what they would take if each had its own copy of everything."""
    shared = {bot.id: release for bot in services.fleet if (release := services.shared(bot)) is not None}
    private = {id: 0 if (figure := services.usage.of_bot(id)) is None else figure.usage.private for id in shared}
    saved = quota.savings(private, shared, releases.bytes)
    return {
        "bots": len(shared),
        "copies_bytes": saved.copies,
        "used_bytes": saved.used,
        "saved_percent": round(max(0.0, saved.percent), 1) if shared else None,
    }


def _quota(services: Services) -> dict[str, Any]:
    limit = quota.quota_of(services.settings.limits)
    levels = Counter(services.usage.level(user) for user in services.fleet.of_user)
    return {"soft_bytes": limit.soft, "hard_bytes": limit.hard, "near": levels["near"], "over": levels["over"]}


def _top_users(services: Services) -> list[str]:
    return sorted(services.fleet.of_user, key=lambda user: (-services.usage.of_user(user), user))[:TOP]


def _user(services: Services, user: str) -> dict[str, Any]:
    big: list[Big] = services.usage.biggest(services.fleet.of_user.get(user, ()), 1)
    return {
        "user": user,
        "bytes": services.usage.of_user(user),
        "limit_bytes": quota.quota_of(services.settings.limits).hard,
        "level": services.usage.level(user),
        "bots": services.fleet.count_of(user),
        "biggest": big[0].id if big else None,
    }


async def _cleanup(services: Services) -> dict[str, Any]:
    """What `system.cleanup` would free now."""
    items = await services.sweeper.look()
    by_kind: Counter[str] = Counter()
    for item in items:
        if item.remove:
            by_kind[item.kind] += item.bytes
    return {
        "bytes": by_kind.total(),
        "items": sum(item.remove for item in items),
        "by_kind": dict(by_kind.most_common()),
    }


HANDLERS: dict[str, Handler] = {"system.storage": storage}
