"""demo: the whole of it on twelve real bots, in a private fleet that leaves nothing behind."""

from __future__ import annotations

from botctl.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.invocation import Invocation


def run(invocation: Invocation, *, keep: bool = False, fast: bool = False, no_color: bool = False) -> int:
    """Exit 0 when everything that it claims was true, 1 when not, 128 + N when signal N ended it."""
    from botctl.demo.play import play

    return play(invocation.out, keep=keep, fast=fast, no_color=no_color)


COMMANDS = (
    Command(
        "demo",
        run,
        "Show what this does, on twelve real Messenger bots in a private fleet that leaves nothing behind.",
        Option("--keep", kind="flag", help="Keep the fleet at the end, to try things on it, until Ctrl-C."),
        Option("--fast", kind="flag", help="Make no pauses for reading."),
        Option("--no-color", kind="flag", help="Use no colours."),
        examples=(("botctl demo", "under a minute"), ("botctl demo --keep", "and then try it yourself")),
    ),
)
