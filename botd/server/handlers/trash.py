"""bots.undelete, trash.list, trash.empty: what was deleted, for as long as it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.core.bot import NewBot
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.verdicts import act, refused, report, verdict
from botd.state.trash import Discarded
from botd.system.clock import rfc3339


async def undelete(call: Call) -> dict[str, Any]:
    """Everything up to the wait for its start is one turn: nobody can take the id or empty the trash meanwhile."""
    services, params = call.services, call.params
    began = services.clock.boottime()
    item = _one(call, params["id"])
    as_id: str = params["as"] or item.id
    if as_id in services.fleet.bots:
        raise BotdError(
            "conflict",
            f"{as_id} exists already",
            hint=f"bring it back under another name: botctl undelete {item.key} --as USER/NAME",
        )
    if services.trash.occupied(item, as_id):
        raise BotdError(
            "conflict",
            f"folders of an earlier {as_id} are in the way",
            hint="see them with: botctl cleanup --dry-run",
        )
    new = _renewed(call, services.trash.new_bot(item, as_id, _port(call, item)))
    told = _told(item, new)
    former = "it" if as_id == item.id else item.id
    bot = services.engine.restore(
        new,
        item.created_at_wall,
        "; ".join([f"brought back; {former} was deleted {rfc3339(item.at_wall)}", *told]),
        services.trash.returning(item, as_id),
        lambda: services.trash.returned(item, as_id),
    )
    items = [verdict(bot.id, bot, ok=True, changed=True, result="undeleted", reason="; ".join(told))]
    if params["start"]:
        items = await act(call, "start", [bot], wait=params["wait"], timeout_s=params["timeout_s"])
        if items[0]["ok"]:
            items[0]["result"] = f"undeleted, {items[0]['result']}"
            items[0]["reason"] = items[0]["reason"] or "; ".join(told)
    return report(call, items, began)


def _renewed(call: Call, new: NewBot) -> NewBot:
    """With the paths of its release and of its id, which need not be the former one. BotdError(not_found)."""
    spec, catalogue = new.spec, call.services.catalogue
    if spec.template is None or spec.release is None or spec.own is None:
        return new
    facts = catalogue.facts(spec.template, spec.release)
    return replace(new, spec=catalogue.spec(spec.id, spec.own, facts, spec.secret_names))


def _port(call: Call, item: Discarded) -> int | None:
    """Its own where that is free: others may have written it down."""
    if item.spec is None or not item.spec.wants_port:
        return None
    taken = {bot.port for bot in call.services.fleet}
    return item.port if item.port is not None and item.port not in taken else call.services.choose_port(set())


def _told(item: Discarded, new: NewBot) -> list[str]:
    """What is not as it was."""
    assert item.spec is not None
    out = []
    if item.port is not None and new.port != item.port:
        out.append(f"its port is {new.port}, {item.port} is another bot's by now")
    if lost := set(item.spec.secret_names) - set(new.spec.secret_names):
        out.append(f"the values of its secrets {', '.join(sorted(lost))} are lost")
    return out


def _full(call: Call, name: str) -> str:
    return name if "/" in name or "+" in name else f"{call.caller.user}/{name}"


def _one(call: Call, name: str) -> Discarded:
    found = call.services.trash.find(_full(call, name))
    if not found:
        raise _nothing(call, name)
    if len(found) > 1:
        keys = ", ".join(f"{item.key} ({rfc3339(item.at_wall)})" for item in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise BotdError(
            "conflict",
            f"{found[0].id} was deleted {len(found)} times: {keys}{more}",
            hint=f"say which one, the newest being: botctl undelete {found[0].key}",
        )
    return found[0]


def _nothing(call: Call, name: str) -> BotdError:
    shown = _full(call, name)
    if not call.services.trash.kept():
        return BotdError("not_found", f"{shown} is not in the trash, which is empty")
    return BotdError("not_found", f"{shown} is not in the trash", hint="see what is there with: botctl trash list")


async def list_(call: Call) -> dict[str, Any]:
    items, _ = _chosen(call)
    sizes = await call.services.trash.measured(items)
    views = [_view(call, item, sizes[item.key]) for item in items]
    return listing(views, bytes=sum(sizes.values()))


def _chosen(call: Call) -> tuple[list[Discarded], list[str]]:
    """Every deletion that `ids` names, or all there are, of `user` alone where that is given; and the names that mean
    nothing.
    """
    trash, names, user = call.services.trash, call.params["ids"], call.params["user"]
    if names is None:
        return [item for item in trash.kept() if user in (None, item.user)], []
    found = {name: [it for it in trash.find(_full(call, name)) if user in (None, it.user)] for name in names}
    items = {item.key: item for of_name in found.values() for item in of_name}
    return sorted(items.values(), key=lambda item: (item.at_wall, item.key)), [n for n in names if not found[n]]


def _view(call: Call, item: Discarded, size: int) -> dict[str, Any]:
    spec = item.spec
    wire = {} if spec is None else spec.to_wire()
    user, _, name = item.id.partition("/")
    return {
        "key": item.key,
        "id": item.id,
        "user": user,
        "name": name,
        "deleted_at": rfc3339(item.at_wall),
        "kept_until": None if item.until_wall == float("inf") else rfc3339(item.until_wall),
        "created_at": rfc3339(item.created_at_wall),
        "bytes": size,
        "path": f"{call.services.paths.home}/trash/{item.key}",
        "restorable": spec is not None,
        "port": item.port,
        "template": None if spec is None else spec.template,
        "release": None if spec is None else spec.release,
        "command": wire.get("command"),
        "directory": wire.get("directory"),
        "env": dict.fromkeys(wire.get("env", {}), "***"),
        "labels": wire.get("labels", {}),
        "secrets": [] if spec is None else sorted(spec.secret_names),
    }


async def empty(call: Call) -> dict[str, Any]:
    began = call.services.clock.boottime()
    items, missing = _chosen(call)
    views = []
    if call.params["dry_run"]:
        sizes = await call.services.trash.measured(items)
        views = [_verdict(item, sizes[item.key], "would be removed", changed=False) for item in items]
    else:
        done = await call.services.trash.empty([item.key for item in items])
        for item in items:
            # Somebody may have brought it back, or emptied it as well, in the meantime.
            freed, problems = done.get(item.key, (0, []))
            word = "removed for good" if item.key in done else "no longer in the trash"
            views.append(_verdict(item, freed, word, changed=item.key in done, problems=problems))
    views += [refused(name, None, _nothing(call, name)) | {"key": None, "bytes": 0} for name in missing]
    return report(call, views, began, freed_bytes=sum(view["bytes"] for view in views))


def _verdict(
    item: Discarded, size: int, result: str, *, changed: bool, problems: list[str] | None = None
) -> dict[str, Any]:
    if problems:
        error = BotdError("unavailable", f"part of it is left: {'; '.join(problems[:3])}", hint="botctl cleanup")
        return refused(item.id, None, error) | {"key": item.key, "bytes": size}
    return verdict(item.id, None, ok=True, changed=changed, result=result) | {"key": item.key, "bytes": size}


HANDLERS: dict[str, Handler] = {"bots.undelete": undelete, "trash.list": list_, "trash.empty": empty}
