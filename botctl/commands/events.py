"""events: what happened in the fleet, and what happens."""

from __future__ import annotations

from botctl import wire
from botctl.options import Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.events import event_line, subject_of
from botctl.selection import SELECTORS, look_at
from botd.contract.errors import invalid
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation


def events(invocation: Invocation, *, selectors: list[str], follow: bool, lines: int) -> int:
    params = {"select": look_at(selectors), "lines": lines}
    if not follow:
        result = invocation.call("events.list", params)
        if not printed(invocation, result, key="seq"):
            _show_all(invocation, items_of(result))
        return Exit.OK
    if invocation.output == "json":
        raise invalid("", "-f never ends, and json is one document", hint="use -o jsonl with -f")
    # An event may overtake the answer to the subscription; it is printed after the history.
    early: list[tuple[str, dict[str, Any]]] = []
    result = invocation.call("events.subscribe", params, on_notification=lambda *args: early.append(args))

    def show(event: dict[str, Any]) -> None:
        if invocation.for_people:
            invocation.out.line(event_line(invocation.out, event))
        elif invocation.output == "name":
            invocation.out.line(str(event.get("seq")))
        else:
            invocation.out.line(wire.encode(event))

    def notified(method: str, params: dict[str, Any]) -> None:
        if method == "events.event" and isinstance(params.get("event"), dict):
            show(params["event"])
            invocation.out.flush()
        elif method == "events.missed":
            invocation.warn(f"... {params.get('missed', 'some')} events were missed: too many to keep up with")

    for event in items_of(result):
        show(event)
    for method, early_params in early:
        notified(method, early_params)
    invocation.out.flush()
    invocation.client().follow(notified)
    return Exit.OK


def _show_all(invocation: Invocation, found: list[dict[str, Any]]) -> None:
    width = max((len(subject_of(event)) for event in found), default=0)
    for event in found:
        invocation.out.line(event_line(invocation.out, event, id_width=width))


COMMANDS = (
    Command(
        "events",
        events,
        "Show what happened to bots; -f keeps showing.",
        SELECTORS,
        Option("-f", "--follow", kind="flag", help="Keep showing new events until interrupted."),
        Option("-n", "--lines", kind="whole", default=50, low=0, high=10_000, metavar="N", help="The last N events."),
        examples=(
            ("botctl events -n 20", "the last twenty"),
            ("botctl events -f user:alice -o jsonl", "alice's as they happen, for a program"),
        ),
    ),
)
