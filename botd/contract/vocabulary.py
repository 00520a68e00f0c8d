"""The words of the contract: phases, health, restart modes, error kinds, exit statuses.

Plain constants instead of enums: they are what travels, and importing `enum` costs a quick
command a quarter of its time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["stopped", "starting", "running", "stopping", "backoff", "failed"]
    Health = Literal["healthy", "unhealthy", "unknown", "recovered", "stopped"]
    RestartMode = Literal["always", "on-failure", "never"]
    Kind = Literal[
        "not_found",
        "denied",
        "limit",
        "quota",
        "rate_limited",
        "conflict",
        "invalid",
        "timeout",
        "unavailable",
        "internal",
    ]
    Who = Literal["admin", "user", "viewer", "anyone"]
else:
    # Modules that are not in such a hurry import these names plainly; at run time they are just words.
    Phase = Health = RestartMode = Kind = Who = str

PHASES: tuple[Phase, ...] = ("stopped", "starting", "running", "stopping", "backoff", "failed")
HEALTH: tuple[Health, ...] = ("healthy", "unhealthy", "unknown", "recovered", "stopped")
RESTART_MODES: tuple[RestartMode, ...] = ("always", "on-failure", "never")

# Signals that a bot may be asked to end with. SIGKILL is the daemon's own last word, not a request.
STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Exit:
    """The statuses that botctl ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    DENIED = 5
    REFUSED = 6
    UNREACHABLE = 7
    PARTIAL = 8
    INVALID = 9
    TIMEOUT = 124
    INTERRUPTED = 130


# kind -> (JSON-RPC error code, exit status of botctl unless the error says otherwise)
KINDS: dict[Kind, tuple[int, int]] = {
    "not_found": (-32001, Exit.NOT_FOUND),
    "denied": (-32002, Exit.DENIED),
    "limit": (-32003, Exit.REFUSED),
    "quota": (-32004, Exit.REFUSED),
    "rate_limited": (-32005, Exit.REFUSED),
    "conflict": (-32006, Exit.FAILED),
    "invalid": (-32007, Exit.USAGE),
    "timeout": (-32008, Exit.TIMEOUT),
    "unavailable": (-32009, Exit.UNREACHABLE),
    "internal": (-32010, Exit.FAILED),
}


class RpcCode:
    """The codes of the JSON-RPC 2.0 specification."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603


USER_RULE = "1 to 32 of a-z, 0-9, '.', '_', '-', the first a letter or a digit"
NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_', '-', the first a letter or a digit"

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | frozenset("._-")


def is_user(text: str) -> bool:
    """Whether `text` may name a user."""
    return 0 < len(text) <= 32 and text[0] in _FIRST and _REST.issuperset(text)


def is_name(text: str) -> bool:
    """Whether `text` may name a bot of some user."""
    return 0 < len(text) <= 63 and text[0] in _FIRST and _REST.issuperset(text)


def is_bot_id(text: str) -> bool:
    """Whether `text` is a full `user/name`."""
    user, slash, name = text.partition("/")
    return bool(slash) and is_user(user) and is_name(name)
