"""Asking the program botd instead of a running one."""

from __future__ import annotations

import subprocess

from botctl import wire
from botctl.autostart import botd_command
from botd.contract.errors import BotdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE_S = 600.0


def repaired(check: bool) -> dict[str, Any]:
    """What `botd repair` reports; with `check` it only looks. Raises BotdError."""
    command = botd_command("repair", "--print", *(["--check"] if check else []))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        report = wire.decode(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise BotdError("internal", f"botd repair has not answered: {error}", hint="botd repair") from None
    if not isinstance(report, dict):
        raise BotdError("internal", "botd repair has not answered", hint="botd repair")
    if isinstance(report.get("error"), dict):
        raise BotdError.from_rpc(report["error"])
    return report
