"""What we want done for one bot. The executor turns each into system calls; its outcome comes back as an event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spawn:
    generation: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask with `signal`, then kill the whole tree after `grace_s` seconds (0: at once)."""

    generation: int
    signal: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The exit of this life is on record: the keeper may forget it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Remove:
    """No life is left and its owner wants it gone."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the bot's history."""

    kind: str
    text: str


Effect = Spawn | Terminate | Acknowledge | Remove | Note
