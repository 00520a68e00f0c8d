"""bots.create, start, stop, restart, delete, recover."""

from __future__ import annotations

from typing import Any

from botd.contract.errors import BotdError
from botd.contract.manifest import DEFAULTS, check_spec
from botd.core.bot import NewBot, Spec
from botd.core.fleet import Bot
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.verdicts import Verb, act, refuse_missing, report, verdict


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
        bots = [bot for bot in bots if bot.state.phase in ("failed", "backoff")]
    items = await act(call, "recover", bots, wait=call.params["wait"], timeout_s=call.params["timeout_s"])
    return report(call, [*items, *missing], began)


async def create(call: Call) -> dict[str, Any]:
    began = call.services.clock.boottime()
    wire = {**DEFAULTS, **call.params["spec"]}
    wire.setdefault("directory", call.services.paths.bot_data(wire["id"]))
    check_spec(wire)
    bot = add_bot(call, wire, source=None)
    items = [verdict(bot.id, bot, ok=True, changed=True, result="created")]
    if call.params["start"]:
        items = await act(call, "start", [bot], wait=call.params["wait"], timeout_s=call.params["timeout_s"])
        if items[0]["ok"]:
            items[0]["result"] = f"created, {items[0]['result']}"
    return report(call, items, began)


def add_bot(call: Call, wire: dict[str, Any], source: str | None) -> Bot:
    """A checked specification becomes a bot, stopped. Raises BotdError: conflict, limit, not_found, invalid."""
    services = call.services
    bot_id: str = wire["id"]
    if bot_id in services.fleet.bots:
        hint = f"see it with: botctl status {bot_id}; change it with: botctl apply"
        raise BotdError("conflict", f"{bot_id} exists already", hint=hint)
    return services.engine.create([new_bot(call, wire, source, set())])[0]


def new_bot(call: Call, wire: dict[str, Any], source: str | None, ports: set[int]) -> NewBot:
    """`ports` are those that this call has given out already; a port of this bot joins them."""
    if wire.get("template") is not None:
        raise no_template(wire["template"])
    check_directory(call, wire)
    port = call.services.choose_port(ports) if wire["port"] else None
    return NewBot(Spec.from_wire(wire), wire.get("secrets", {}), port, source)


def check_directory(call: Call, wire: dict[str, Any]) -> None:
    """Refuse a working folder that no life could begin in. The bot's own data folder is made with its first life."""
    if wire["directory"] != call.services.paths.bot_data(wire["id"]):
        call.services.check_startable(wire["directory"])


def no_template(name: str) -> BotdError:
    return BotdError(
        "not_found",
        f"there is no template {name!r}",
        hint="this version runs plain programs: give the bot a command and a directory",
    )


HANDLERS: dict[str, Handler] = {
    "bots.create": create,
    "bots.start": _verb("start"),
    "bots.stop": _verb("stop"),
    "bots.restart": _verb("restart"),
    "bots.delete": _verb("delete"),
    "bots.recover": recover,
}
