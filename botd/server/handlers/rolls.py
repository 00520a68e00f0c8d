"""templates.roll, rollback, rolls, abort: the bots of a template on their way to another release."""

from __future__ import annotations

from typing import Any

from botd.contract.errors import BotdError
from botd.contract.views import document, listing
from botd.core.roll import Options
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.handlers.templates import chosen


def _options(call: Call) -> Options:
    return Options(**{key: call.params[key] for key in Options.__slots__})


def roll(call: Call) -> dict[str, Any]:
    """Begun and on disk when this answers; whoever wants to see its end asks for the rolls and waits."""
    services, name = call.services, call.params["name"]
    template = services.catalogue.get(name)
    target = chosen(template, services.catalogue.releases(name), call.params["to"])
    return document(**services.rolling.begin(name, target, _options(call)))


def rollback(call: Call) -> dict[str, Any]:
    """New bots get the former release from now on, whatever comes of the roll: somebody distrusts the other one."""
    services, name = call.services, call.params["name"]
    template = services.catalogue.get(name)
    if template.previous is None:
        raise BotdError(
            "conflict",
            f"template {name} has no former release to go back to",
            hint=f"see its releases: botctl template show {name}",
        )
    return document(**services.rolling.begin(name, template.previous, _options(call), at_once=True))


async def rolls(call: Call) -> dict[str, Any]:
    services, name = call.services, call.params["name"]
    if name is not None:
        services.catalogue.get(name)
        if call.params["wait"]:
            await services.rolling.follow(name, lambda view: call.progress(view["moved"], view["bots"], view))
    return listing(services.rolling.views(name))


def abort(call: Call) -> dict[str, Any]:
    services, name = call.services, call.params["name"]
    services.catalogue.get(name)
    why = f"aborted by {call.caller.user}"
    return document(**services.rolling.abort(name, why, keep_done=call.params["keep_done"]))


HANDLERS: dict[str, Handler] = {
    "templates.roll": roll,
    "templates.rollback": rollback,
    "templates.rolls": rolls,
    "templates.abort": abort,
}
