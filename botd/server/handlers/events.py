"""events.list and events.subscribe."""

from __future__ import annotations

import asyncio
from typing import Any

from botd.contract.selector import check
from botd.contract.views import listing
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.server.views import event_view
from botd.state.store import StoredEvent


def _ids(call: Call) -> list[str] | None:
    if call.params.get("select") is None or call.params["select"].get("all"):
        return None
    return [bot.id for bot in call.bots()]


def list_(call: Call) -> dict[str, Any]:
    events = call.services.store.events(_ids(call), call.params["after"], call.params["lines"])
    return listing([event_view(event) for event in events], subscription=None)


def subscribe(call: Call) -> dict[str, Any]:
    """Events from now on. The selection holds at each event, so that bots made later are seen as well."""
    given = call.params.get("select")
    selection = check(given) if given is not None else {"all": True}
    services = call.services
    missed = 0
    number = 0
    catching_up: asyncio.Task[None] | None = None

    def tell(event: StoredEvent) -> None:
        nonlocal missed, catching_up
        if not wanted(event):
            return
        if missed or not call.channel.notify("events.event", {"subscription": number, "event": event_view(event)}):
            missed += 1
            if catching_up is None:
                catching_up = asyncio.get_running_loop().create_task(catch_up())

    async def catch_up() -> None:
        """As soon as the reader has taken what it was sent: how many it has not been sent."""
        nonlocal missed, catching_up
        await call.channel.room()
        if call.channel.notify("events.missed", {"subscription": number, "missed": missed}):
            missed = 0
        catching_up = None

    def wanted(event: StoredEvent) -> bool:
        if selection.get("all"):
            return True
        return event.id is not None and services.fleet.selects(selection, event.id, call.caller.user)

    def end() -> None:
        services.engine.on_event.remove(tell)
        if catching_up is not None:
            catching_up.cancel()

    services.engine.on_event.append(tell)
    number = call.channel.on_close(end)
    lines = call.params["lines"]
    past = services.store.events(_ids(call), None, lines) if lines else []
    return listing([event_view(event) for event in past], subscription=number)


HANDLERS: dict[str, Handler] = {"events.list": list_, "events.subscribe": subscribe}
