"""What goes into the database and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from botd.core.bot import BotState, Spec


@dataclass(frozen=True, slots=True)
class StoredBot:
    """One bot as it is on record. `boot_id` is the boot that the state was observed in ("" if never)."""

    spec: Spec
    state: BotState
    created_at_wall: float
    port: int | None = None
    source: str | None = None
    """The manifest that brought it, or None."""
    boot_id: str = ""


class NewEvent(NamedTuple):
    """A line of history to be written. `id` None: about the daemon. `at_wall` in seconds since the epoch."""

    id: str | None
    at_wall: float
    kind: str
    text: str
    generation: int | None = None


class StoredEvent(NamedTuple):
    """A line of history; `seq` grows, and is never used twice."""

    seq: int
    id: str | None
    at_wall: float
    kind: str
    text: str
    generation: int | None


class StoredRequest(NamedTuple):
    """A mutating call that carried a request id. `answer` is None until it was finished."""

    at_wall: float
    answer: str | None


class Sizes(NamedTuple):
    """Bytes on disk."""

    database_bytes: int
    wal_bytes: int


class Pruned(NamedTuple):
    """How many rows `prune` removed."""

    events: int
    requests: int
