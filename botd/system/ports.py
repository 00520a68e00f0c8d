"""A stable loopback port for a bot: free on record and free on the machine."""

from __future__ import annotations

import socket
from collections.abc import Set

from botd.contract.errors import BotdError


def choose_port(first: int, last: int, taken: Set[int | None]) -> int:
    """The lowest port of [first, last] that no bot has and nobody listens on. Raises BotdError(limit)."""
    for port in range(first, last + 1):
        if port not in taken and _is_free(port):
            return port
    raise BotdError(
        "limit",
        f"no port is free between {first} and {last} (resourceManagement.portRange)",
        hint="widen the range and run: botctl config reload",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        # As a server would bind: a port that merely lingers in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
