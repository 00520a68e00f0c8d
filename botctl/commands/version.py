"""version: of botctl and of the running botd."""

from __future__ import annotations

from botctl.options import Command
from botctl.render.documents import printed
from botd import __version__
from botd.contract import PROTOCOL
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.invocation import Invocation


def version(invocation: Invocation) -> int:
    own = {"botctl": __version__, "protocol": PROTOCOL}
    try:
        daemon = invocation.call("daemon.version", autostart=False)
    except BotdError:
        # Also the version of a machine without a running daemon can be asked for.
        daemon = {}
    told = {key: value for key, value in daemon.items() if key != "schema"}
    if not printed(invocation, {**own, "daemon": told or None}, key="botctl"):
        invocation.out.line(f"botctl {own['botctl']}")
        running = ", ".join(f"{key} {value}" for key, value in told.items())
        invocation.out.line(f"botd   {running or 'not running'}")
    return Exit.OK


COMMANDS = (Command("version", version, "Print the versions of botctl and of the running botd."),)
