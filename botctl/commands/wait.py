"""wait: until bots are as wanted."""

from __future__ import annotations

from botctl.commands.actions import GRACE_S, TIMEOUT
from botctl.options import Command, Option
from botctl.render.documents import items_of
from botctl.render.progress import Watch
from botctl.render.verdicts import settle
from botctl.selection import ALL, SELECTORS, choose, nothing_matches
from botd.contract.errors import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation

_CONDITIONS = ("running", "healthy", "stopped")


def wait(invocation: Invocation, *, selectors: list[str], all: bool, timeout: float, condition: str | None) -> int:
    if condition is None:
        raise invalid("", "wait for what?", hint="add --for running, --for healthy or --for stopped")
    select = choose(selectors, every=all)
    with Watch(invocation, f"waiting for {condition}") as watch:
        params: dict[str, Any] = {
            "select": select,
            "for": condition,
            "timeout_s": timeout,
            "progress": watch.wanted,
        }
        result = invocation.call(
            "bots.wait",
            params,
            timeout=timeout + GRACE_S,
            on_notification=watch.on_notification,
            on_silence=watch.on_silence if watch.wanted else None,
        )
    if not items_of(result) and not all:
        raise nothing_matches(select)
    return settle(invocation, result)


COMMANDS = (
    Command(
        "wait",
        wait,
        "Wait until bots are running, healthy or stopped; 124 when the time is over, 1 when it cannot be.",
        SELECTORS,
        ALL,
        Option("--for", name="condition", choices=_CONDITIONS, help="running, healthy or stopped."),
        TIMEOUT,
        examples=(("botctl wait alice/shop --for healthy --timeout 30", "in a deployment script"),),
    ),
)
