"""What travels: the shapes of results, as dictionaries with documented keys.

Keys are only ever added. Times are RFC 3339 UTC, sizes `*_bytes`, durations `*_s` (seconds).
"""

from __future__ import annotations

from botd.contract import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypedDict

    from botd.contract.vocabulary import Health, Kind, Phase, RestartMode

    class ExitView(TypedDict):
        """How a life of a bot ended. code and signal are both null when the status is unknown."""

        code: int | None
        signal: str | None
        reason: str
        words: str  # the same as a sentence: what, by whom, the peak and the limit
        at: str
        ran_s: float

    class BotView(TypedDict):
        id: str
        user: str
        name: str
        phase: Phase
        health: Health
        desired: str  # "running" or "stopped": what its owner wants
        pid: int | None
        started_at: str | None
        uptime_s: float | None
        restarts: int  # automatic ones since it was created
        attempts: int  # automatic ones in a row since it last ran well
        generation: int  # the number of its current or last life
        template: str | None
        release: str | None
        memory_bytes: int | None
        memory_limit_bytes: int | None
        cpu_percent: float | None
        cpu_limit: float | None
        processes: int | None  # with their threads
        processes_limit: int | None
        limits_by: dict[str, str]  # memory, swap, processes, cpu -> enforced, watched or none
        last_exit: ExitView | None
        next_retry_at: str | None
        reason: str
        labels: dict[str, str]
        port: int | None
        restart: RestartMode
        command: list[str]
        directory: str
        env: dict[str, str]  # every value is "***"
        created_at: str
        log_bytes: int | None
        storage_bytes: int | None  # its folder and its logs when they were measured last, without what it links to

    class ErrorView(TypedDict):
        kind: Kind
        message: str
        hint: str
        exit: int

    class Verdict(TypedDict):
        """The outcome for one bot of a verb that changes something."""

        id: str
        ok: bool
        changed: bool  # false: it was so already
        result: str  # started, already running, stopped, would start, failed, skipped, ...
        phase: Phase | None  # null: the bot is gone
        pid: int | None
        reason: str
        error: ErrorView | None

    class EventView(TypedDict):
        """One line of a bot's history or of the event stream."""

        seq: int
        at: str
        id: str | None  # null: about the daemon
        kind: str
        text: str
        generation: int | None


def listing(items: Sequence[Any], **more: Any) -> dict[str, Any]:
    """A versioned list document."""
    return {"schema": SCHEMA, "items": list(items), **more}


def document(**keys: Any) -> dict[str, Any]:
    """A versioned document that is no list."""
    return {"schema": SCHEMA, **keys}


# What `botctl list` asks for: the table's columns and nothing that costs more.
LIST_FIELDS = (
    "id",
    "phase",
    "health",
    "pid",
    "uptime_s",
    "restarts",
    "memory_bytes",
    "cpu_percent",
    "reason",
)
