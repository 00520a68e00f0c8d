"""fleet.diff, apply, export: a manifest against what is, touching only what differs."""

from __future__ import annotations

from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.contract.vocabulary import Exit
from botd.core import plan
from botd.core.bot import ChangedBot, NewBot
from botd.core.fleet import Bot
from botd.core.plan import Change, Have, Want
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.handlers.verbs import housed
from botd.server.specs import Given, Reader, check_directory, new_bot
from botd.server.verdicts import Verb, act, admissions, report, verdict

_ALIVE = ("starting", "running", "stopping", "backoff")


def _wanted(call: Call) -> dict[str, Given]:
    """The specifications of the call by id, checked once more and complete."""
    reader = Reader(call, call.params.get("expect", ()))
    out: dict[str, Given] = {}
    for i, wire in enumerate(call.params["bots"]):
        if wire["id"] in out:
            raise BotdError("invalid", f"bots[{i}].id: {wire['id']} stands there twice", code=-32602, exit=Exit.INVALID)
        out[wire["id"]] = reader.read(wire, f"bots[{i}]", exit=Exit.INVALID)
    return out


def _plan(call: Call, wanted: dict[str, Given]) -> list[Change]:
    fleet, store, source = call.services.fleet, call.services.store, call.params["source"]
    have: dict[str, Have] = {}
    for bot_id in {*wanted, *store.sources(source)}:
        bot = fleet.get(bot_id)
        if bot is not None:
            have[bot_id] = Have(bot.spec, bot.state.wanted, bot.source, bot.state.phase in _ALIVE)
    want = []
    for bot_id, given in wanted.items():
        known = bot_id in have and bool(have[bot_id].spec.secret_names or given.secrets)
        changed = known and not store.secrets_equal(bot_id, given.secrets)
        want.append(Want(given.spec, given.enabled, changed))
    return plan.plan(have, want, source, prune=call.params["prune"])


def _view(change: Change) -> dict[str, Any]:
    return {
        "id": change.id,
        "action": change.action,
        "fields": [{"field": one.field, "old": one.old, "new": one.new} for one in change.fields],
        "restarts": change.restarts,
    }


def _summary(changes: list[Change]) -> dict[str, int]:
    words = [change.action for change in changes]
    return {
        "create": words.count("create"),
        "change": sum(words.count(word) for word in ("change", "restart", "start", "stop")),
        "delete": words.count("delete"),
        "keep": words.count("keep"),
    }


def diff(call: Call) -> dict[str, Any]:
    changes = _plan(call, _wanted(call))
    return listing([_view(change) for change in changes], summary=_summary(changes))


async def apply(call: Call) -> dict[str, Any]:
    """Everything is checked before anything changes; then specifications, in one commit each; then lives."""
    services, params, source = call.services, call.params, call.params["source"]
    began = services.clock.boottime()
    await admissions(call, {bot["id"].partition("/")[0] for bot in params["bots"]})
    wanted = _wanted(call)
    changes = _plan(call, wanted)
    by_action: dict[str, list[Change]] = {}
    for change in changes:
        by_action.setdefault(change.action, []).append(change)
    for change in changes:
        if change.action in ("change", "restart", "start") and any(f.field == "directory" for f in change.fields):
            check_directory(call, wanted[change.id].spec)
    ports: set[int] = set()
    new = [new_bot(call, wanted[change.id], source, ports) for change in by_action.get("create", [])]
    out: dict[str, dict[str, Any]] = {}
    if leaving := _making_room(call, new, [change.id for change in by_action.get("delete", [])]):
        out = {
            item["id"]: item for item in await act(call, "delete", leaving, wait=True, timeout_s=params["timeout_s"])
        }
    services.engine.create(new)
    services.engine.change(
        [
            _changed(call, wanted[change.id], change, source, ports)
            for change in changes
            if change.fields and change.action not in ("create", "delete")
        ]
    )
    for verb, of in _verbs(changes).items():
        bots = [bot for change in of if change.id not in out and (bot := services.fleet.get(change.id)) is not None]
        for item in await act(call, verb, bots, wait=params["wait"], timeout_s=params["timeout_s"]):
            out[item["id"]] = item
    items = []
    for change in changes:
        item = out.get(change.id) or verdict(
            change.id,
            services.fleet.get(change.id),
            ok=True,
            changed=change.action != "keep",
            result={"create": "created", "change": "changed", "keep": "unchanged"}.get(change.action, change.action),
        )
        if change.action == "create" and item["ok"] and item["result"] != "created":
            item["result"] = f"created, {item['result']}"
        items.append({**item, **_view(change)})
    if params["wait"]:
        items = await housed(call, items)
    document = report(call, items, began)
    document["summary"] |= _summary(changes)
    return document


def _making_room(call: Call, new: list[NewBot], leaving: list[str]) -> list[Bot]:
    """The bots that have to be gone before these can come; none where there is room for both. Raises limit."""
    engine = call.services.engine
    try:
        engine.admit(new)
    except BotdError:
        engine.admit(new, leaving)
        return [engine.fleet.bots[bot_id] for bot_id in leaving]
    return []


def _verbs(changes: list[Change]) -> dict[Verb, list[Change]]:
    """Deletions and stops first: they make room for what starts."""
    out: dict[Verb, list[Change]] = {"delete": [], "stop": [], "restart": [], "start": []}
    for change in changes:
        if change.action in ("delete", "stop", "restart", "start"):
            out[change.action].append(change)
        elif change.action == "create" and change.wanted:
            out["start"].append(change)
    return {verb: of for verb, of in out.items() if of}


def _changed(call: Call, given: Given, change: Change, source: str, ports: set[int]) -> ChangedBot:
    bot = call.services.fleet.bots[change.id]
    spec = given.spec
    port = (bot.port or call.services.choose_port(ports)) if spec.wants_port else None
    names = ", ".join(one.field for one in change.fields)
    return ChangedBot(spec, given.secrets, port, source, f"changed by apply: {names}")


def export(call: Call) -> dict[str, Any]:
    items = []
    for bot in call.bots(every_by_default=True):
        spec = bot.spec
        own = spec.own
        wire = spec.to_wire() if own is None else {"id": bot.id, "template": spec.template, **own}
        wire["enabled"] = bot.state.wanted
        if bot.spec.secret_names:
            # Names and where apply would read them; the values stay here.
            wire["secrets"] = {name: {"file": f"secrets/{bot.id}/{name}"} for name in bot.spec.secret_names}
        items.append(wire)
    return listing(items)


HANDLERS: dict[str, Handler] = {"fleet.diff": diff, "fleet.apply": apply, "fleet.export": export}
