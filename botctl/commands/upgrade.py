"""daemon upgrade: botd and the keeper by the code that is installed now, under a running fleet."""

from __future__ import annotations

import os
import time

from botctl.client import connect
from botctl.options import Command, Option
from botctl.render.documents import printed
from botctl.render.panel import part
from botctl.render.terminal import GREEN
from botctl.render.units import duration, plural
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation

# The checks before anything is changed take their time on a busy machine.
BEFORE_S = 120.0
# After the new botd's own time: a fall back to the former one and its start.
GRACE_S = 30.0
_AGAIN_S = 0.05


def upgrade(invocation: Invocation, *, python: str | None, timeout: float) -> int:
    program = None if python is None else os.path.abspath(python)
    params = {"python": program, "timeout_s": timeout}
    begun = invocation.call("daemon.upgrade", params, timeout=BEFORE_S)
    status = _outcome(invocation, str(begun.get("id")), timeout + GRACE_S)
    result = part(status, "upgrade")
    if result.get("state") != "done":
        raise BotdError(
            "conflict",
            f"the upgrade to {begun.get('to')} failed, botd {status.get('version')} goes on: {result.get('reason')}",
            hint="botctl daemon logs",
            exit=Exit.FAILED,
        )
    shown = {key: value for key, value in result.items() if value is not None}
    if not printed(invocation, {**begun, **shown, "pid": status.get("pid")}, key="pid") and not invocation.quiet:
        _show(invocation, begun, status)
    return Exit.OK


def _outcome(invocation: Invocation, upgrade_id: str, patience: float) -> dict[str, Any]:
    """daemon.status of whoever serves when the upgrade has ended, one way or the other."""
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        try:
            client = connect(invocation.paths, autostart=False)
            try:
                status = client.call("daemon.status", {}, timeout=left)
            finally:
                client.close()
        except BotdError as error:
            if error.kind not in ("unavailable", "timeout"):
                raise
        else:
            found = part(status, "upgrade")
            if found.get("id") == upgrade_id and found.get("state") in ("done", "failed"):
                return dict(status)
        time.sleep(_AGAIN_S)
    raise BotdError(
        "timeout", f"no botd has served within {patience:g} s of the upgrade; bots run on", hint="botctl daemon logs"
    )


def _show(invocation: Invocation, begun: dict[str, Any], status: dict[str, Any]) -> None:
    out, result, keeper = invocation.out, part(status, "upgrade"), part(status, "keeper")
    out.line(
        f"{out.paint(out.pick('✔', '+'), GREEN)} botd {result.get('from')} {out.pick('→', '->')} {result.get('to')}"
        f" (pid {status.get('pid')}, keeper {part(begun, 'keeper').get('release')}, pid {keeper.get('pid')})"
    )
    absent, untouched, bots = result.get("absent_s"), result.get("untouched"), result.get("bots")
    running = bots if isinstance(bots, int) else 0
    out.line(f"  {untouched} of {plural(running, 'running bot')} untouched; botd was away for {duration(absent)}")


COMMANDS = (
    Command(
        "daemon upgrade",
        upgrade,
        "Replace botd and the keeper by the code that is installed now. No bot is touched.",
        Option("--python", metavar="PATH", help="An interpreter or a virtual environment that has the new botd."),
        Option(
            "--timeout",
            kind="number",
            default=10.0,
            low=1,
            high=86400,
            metavar="S",
            help="How long the new botd may take to serve before the former one comes back, in seconds.",
        ),
        examples=(
            ("botctl daemon upgrade", "after pip install --upgrade"),
            ("botctl daemon upgrade --python /opt/botd-next", "to the botd of another virtual environment"),
        ),
        changes=True,
    ),
)
