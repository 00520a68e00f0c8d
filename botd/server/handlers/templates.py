"""templates.add, update, list, show, remove."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from botd.contract.errors import BotdError, not_found
from botd.contract.views import document, listing
from botd.core.fleet import Bot
from botd.core.templates import SHOWN
from botd.crash import crash_point
from botd.server import adding
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.state.templates import StoredRelease, StoredTemplate
from botd.system.clock import rfc3339

if TYPE_CHECKING:
    from botd.core.classify import Unit
    from botd.storage.releases import Release

NAMED = 5
"""Bots that a refusal names."""


def _bots_of(call: Call, name: str) -> list[Bot]:
    return sorted((bot for bot in call.services.fleet if bot.spec.template == name), key=lambda bot: bot.id)


async def add(call: Call) -> dict[str, Any]:
    """The same content again is no error: whoever was interrupted asks again."""
    name = call.params["name"]
    known = call.services.catalogue.find(name)
    added = await _made(call)
    if known is not None and known.release != added["hash"]:
        await _discard(call, added)
        raise BotdError(
            "conflict",
            f"template {name} exists already, with another content",
            hint=f"a new release of it: botctl template update {name} {call.params['path']}",
        )
    return await _record(call, added)


async def update(call: Call) -> dict[str, Any]:
    name = call.params["name"]
    if not call.params["create"]:
        call.services.catalogue.get(name)
    call.services.rolling.refuse_open(name)
    made = await _made(call)
    call.services.rolling.refuse_open(name)  # one may have begun meanwhile
    return await _record(call, made)


async def _made(call: Call) -> dict[str, Any]:
    def progress(told: dict[str, Any]) -> None:
        call.progress(told.get("bytes", 0), told.get("total_bytes") or 0, told)

    params = call.params
    return await adding.add(
        call.services.paths, params["name"], params["path"], params["manifest"], progress, dry=params["dry_run"]
    )


async def _discard(call: Call, added: dict[str, Any]) -> None:
    """A release that was made for nothing."""
    name, hash = call.params["name"], added["hash"]
    known = any(release.hash == hash for release in call.services.catalogue.releases(name))
    if added["new"] and not known and not call.params["dry_run"]:
        from botd.storage import releases

        await asyncio.to_thread(releases.remove, call.services.paths, name, hash)


async def _record(call: Call, added: dict[str, Any]) -> dict[str, Any]:
    """Put it in force, unless this is only a look; what is told of it."""
    services, params = call.services, call.params
    name, hash, wall = params["name"], added["hash"], services.clock.wall()
    manifest = {} if params["dry_run"] else (await asyncio.to_thread(_load, call, name, hash)).manifest
    before = services.catalogue.find(name)
    same = before is not None and before.release == hash
    if not same and not params["dry_run"]:
        crash_point("botd-template-made")
        stored = StoredRelease(name, hash, manifest, added["files"], added["bytes"], wall)
        hold = before is not None and params.get("hold", False)
        services.catalogue.put(stored, params["path"], hold=hold)
        crash_point("botd-template-recorded")
        former = "" if before is None else f", after {before.release[:SHOWN]}"
        words = "was added" if hold else f"is in force{former}"
        services.engine.note(None, "template", f"template {name}: release {hash[:SHOWN]} {words}")
    behind = [bot.id for bot in _bots_of(call, name) if bot.spec.release != hash]
    return document(
        name=name,
        release=hash,
        former=None if before is None else before.previous if same else before.release,
        action="keep" if same else "create" if before is None else "update",
        changed=not same and not params["dry_run"],
        new=added["new"],
        files=added["files"],
        bytes=added["bytes"],
        stored_bytes=added["stored_bytes"],
        notes=added["notes"],
        left_out=added["left_out"],
        bots_behind=len(behind),
    )


def list_(call: Call) -> dict[str, Any]:
    catalogue = call.services.catalogue
    bots, current = Counter[str](), Counter[str]()
    templates = catalogue.templates()
    for bot in call.services.fleet:
        name = bot.spec.template
        if name in templates:
            bots[name] += 1
            current[name] += bot.spec.release == templates[name].release
    releases: dict[str, list[StoredRelease]] = {}
    for release in catalogue.releases():
        releases.setdefault(release.template, []).append(release)
    return listing(
        [
            {
                **_head(template, releases.get(name, [])),
                "releases": len(releases.get(name, [])),
                "bots": bots[name],
                "bots_behind": bots[name] - current[name],
            }
            for name, template in templates.items()
        ]
    )


def _head(template: StoredTemplate, releases: list[StoredRelease]) -> dict[str, Any]:
    current = next((release for release in releases if release.hash == template.release), None)
    return {
        "name": template.name,
        "release": template.release,
        "former": template.previous,
        "source": template.source,
        "updated_at": rfc3339(template.updated_at),
        "files": None if current is None else current.files,
        "bytes": None if current is None else current.bytes,
    }


async def show(call: Call) -> dict[str, Any]:
    services, name = call.services, call.params["name"]
    template, stored = services.catalogue.get(name), services.catalogue.releases(name)
    hash = chosen(template, stored, call.params["release"])
    manifest = services.catalogue.facts(name, hash).manifest
    bots = _bots_of(call, name)
    of_release = Counter(bot.spec.release for bot in bots)
    release = await asyncio.to_thread(_load, call, name, hash)
    return document(
        **_head(template, stored),
        shown=hash,
        settings={key: value for key, value in manifest.items() if key not in ("schema", "files", "env")}
        | {"env": dict.fromkeys(manifest.get("env", {}), "***")},
        classes=manifest.get("files", {}),
        units=[_unit(unit) for unit in release.units],
        releases=[
            {
                "hash": one.hash,
                "added_at": rfc3339(one.added_at),
                "files": one.files,
                "bytes": one.bytes,
                "bots": of_release[one.hash],
                "in_force": one.hash == template.release,
            }
            for one in reversed(stored)
        ],
        bots=[{"id": bot.id, "phase": bot.state.phase, "release": bot.spec.release} for bot in bots],
    )


def chosen(template: StoredTemplate, stored: list[StoredRelease], prefix: str | None) -> str:
    """The full hash that a person means. BotdError: not_found, invalid where several begin so."""
    if prefix is None:
        return template.release
    found = [release.hash for release in stored if release.hash.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    hint = f"see: botctl template show {template.name}"
    if not found:
        raise not_found(f"template {template.name} has no release {prefix}", hint=hint)
    raise BotdError("invalid", f"{prefix} means {len(found)} releases of template {template.name}", hint=hint)


def _load(call: Call, name: str, hash: str) -> Release:
    from botd.storage import releases

    return releases.load(call.services.paths, name, hash)


def _unit(unit: Unit) -> dict[str, Any]:
    view = {"path": unit.path, "kind": unit.kind, "class": unit.cls, "why": unit.why}
    return {**view, "files": unit.files, "bytes": unit.bytes}


async def remove(call: Call) -> dict[str, Any]:
    """Forgotten first: whatever ends this call, what is left on the disk is garbage and not half a template."""
    services, name = call.services, call.params["name"]
    services.catalogue.get(name)
    services.rolling.refuse_open(name)
    bots = _bots_of(call, name)
    if bots:
        named = ", ".join(bot.id for bot in bots[:NAMED]) + (", ..." if len(bots) > NAMED else "")
        raise BotdError(
            "conflict",
            f"template {name} is used by {len(bots)} {'bot' if len(bots) == 1 else 'bots'}: {named}",
            hint=f"delete them first: botctl delete template:{name}",
        )
    if deleted := [item for item in services.trash.kept() if item.spec is not None and item.spec.template == name]:
        named = ", ".join(item.id for item in deleted[:NAMED]) + (", ..." if len(deleted) > NAMED else "")
        raise BotdError(
            "conflict",
            f"template {name} is needed to bring back {len(deleted)} deleted {'bot' if len(deleted) == 1 else 'bots'}: "
            f"{named}",
            hint=f"give them up first: botctl trash empty {' '.join(item.key for item in deleted[:NAMED])}",
        )
    services.catalogue.drop(name)
    crash_point("botd-template-forgotten")
    services.engine.note(None, "template", f"template {name} was removed")
    freed, problems = await asyncio.to_thread(_remove, call, name)
    return document(name=name, freed_bytes=freed, problems=problems)


def _remove(call: Call, name: str) -> tuple[int, list[str]]:
    from botd.storage import releases

    freed, problems = 0, []
    for hash in releases.list_releases(call.services.paths, name):
        done = releases.remove(call.services.paths, name, hash)
        freed += done.bytes
        problems += done.problems
    return freed, problems


def _alone(handler: Handler) -> Handler:
    """Nobody else makes or removes releases of that template meanwhile."""

    async def handle(call: Call) -> dict[str, Any]:
        async with call.services.catalogue.lock(call.params["name"]):
            result: dict[str, Any] = await handler(call)
            return result

    return handle


HANDLERS: dict[str, Handler] = {
    "templates.add": _alone(add),
    "templates.update": _alone(update),
    "templates.list": list_,
    "templates.show": show,
    "templates.remove": _alone(remove),
}
