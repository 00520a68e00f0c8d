"""One call on its way through the daemon: who asks, with which parameters, and how to tell progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from botd.access.peer import Caller
from botd.contract.errors import BotdError
from botd.contract.selector import ALL, check, describe
from botd.core.fleet import Bot
from botd.server.services import Services


class Channel(Protocol):
    """The caller's connection, as far as a handler needs it."""

    def notify(self, method: str, params: dict[str, Any]) -> bool:
        """Send, unless the reader is too slow: then False, and nothing was sent."""

    async def room(self) -> None:
        """Wait until a slow reader has caught up."""

    def on_close(self, hook: Callable[[], None]) -> int:
        """Call `hook` when the connection ends; the number identifies the subscription on this connection."""


@dataclass(frozen=True, slots=True)
class Call:
    id: object
    method: str
    params: dict[str, Any]
    caller: Caller
    channel: Channel
    services: Services

    def bots(self, *, every_by_default: bool = False) -> list[Bot]:
        """The bots that `select` means. None at all is `not_found`, unless everything was meant."""
        given = self.params.get("select")
        if given is None:
            if not every_by_default:
                raise BotdError("invalid", "select: is required", code=-32602)
            given = ALL
        selection = check(given)
        fleet = self.services.fleet
        found = [fleet.bots[bot_id] for bot_id in fleet.resolve(selection, self.caller.user)]
        if not found and not (selection.get("all") and every_by_default):
            raise nothing_matches(describe(selection), len(fleet))
        return found

    def missing(self) -> list[str]:
        """The ids that `select` names one by one and that no bot has: each gets a verdict of its own."""
        given = self.params.get("select")
        return [] if given is None else self.services.fleet.missing(check(given), self.caller.user)

    def progress(self, done: int, total: int, item: dict[str, Any]) -> None:
        if self.params.get("progress"):
            self.channel.notify("progress", {"call": self.id, "done": done, "total": total, "item": item})


def nothing_matches(what: str, in_all: int) -> BotdError:
    hint = "see them with: botctl list" if in_all else "make one with: botctl create USER/NAME -- COMMAND..."
    return BotdError("not_found", f"no bot matches {what}", hint=hint)
