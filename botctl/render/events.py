"""Lines of the event stream and of a bot's history."""

from __future__ import annotations

from botctl.render.terminal import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Terminal, clean
from botctl.render.units import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Parts of an event's kind that tell how it should strike the eye, the first that is found counts.
_STYLES = (
    ("fail", RED),
    ("refus", RED),
    ("unhealthy", RED),
    ("gave", RED),
    ("exit", YELLOW),
    ("crash", YELLOW),
    ("backoff", YELLOW),
    ("retry", YELLOW),
    ("stop", DIM),
    ("healthy", GREEN),
    ("recover", GREEN),
    ("running", GREEN),
    ("spawned", GREEN),
    ("start", CYAN),
)


def event_style(kind: object) -> str:
    return next((style for part, style in _STYLES if part in str(kind)), "")


def event_line(out: Terminal, event: dict[str, Any]) -> str:
    """`2026-11-22 17:09:17  alice/shop  exited: exited with status 1`."""
    style = event_style(event.get("kind"))
    who = clean(str(event.get("id") or "botd"))
    when = out.paint(local(event.get("at")), DIM)
    kind = out.paint(clean(str(event.get("kind"))), *([style] if style else []))
    return f"{when}  {out.paint(who, BOLD)}  {kind}  {clean(str(event.get('text', '')))}"
