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


# Most kinds are shorter; a longer one moves its line a little, which following cannot foresee.
_KIND_WIDTH = 9


def subject_of(event: dict[str, Any]) -> str:
    """The bot that it is about, or botd."""
    return str(event.get("id") or "botd")


def event_style(kind: object) -> str:
    return next((style for part, style in _STYLES if part in str(kind)), "")


def event_line(out: Terminal, event: dict[str, Any], *, id_width: int = 0) -> str:
    """`2026-11-22 17:09:17  alice/shop  exited   exited with code 1 after 7 ms`."""
    style = event_style(event.get("kind"))
    who = clean(subject_of(event)).ljust(id_width)
    when = out.paint(local(event.get("at")), DIM)
    kind = out.paint(clean(str(event.get("kind"))).ljust(_KIND_WIDTH), *([style] if style else []))
    return f"{when}  {out.paint(who, BOLD)}  {kind}  {clean(str(event.get('text', '')))}"
