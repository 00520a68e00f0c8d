"""When is a verb done for a bot? Pure: what was asked and what is -> not yet, or an outcome with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from botd.contract.vocabulary import Exit as Status
from botd.contract.vocabulary import Kind
from botd.core import health
from botd.core.bot import BotState

Goal = Literal["up", "stopped", "gone", "running", "healthy"]
"""up: runs and is believed to (what start waits for); running, healthy, stopped: as in `botctl wait`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    word: str
    reason: str = ""
    kind: Kind = "unavailable"
    exit: int = Status.FAILED


def judge(goal: Goal, state: BotState | None, since: int) -> Outcome | None:
    """None: not yet. `state` None: the bot is gone. `since`: the last life before the request.

    A failure is told as early as it is certain: `up` fails at the first crash instead of waiting
    through the backoff, because whoever started it wants to see that crash now.
    """
    if state is None:
        return Outcome(True, "deleted") if goal == "gone" else Outcome(False, "gone", "it was deleted", "not_found")
    match goal:
        case "up":
            return _up(state, since)
        case "gone":
            return None
        case "stopped":
            if state.phase == "stopped":
                return Outcome(True, "stopped")
            return _failed(state) if state.phase == "failed" else None
        case "running":
            if state.phase == "running":
                return Outcome(True, "running")
            return _failed(state) if state.phase == "failed" else None
        case "healthy":
            if health.shown(state) in ("healthy", "recovered"):
                return Outcome(True, "healthy")
            return _failed(state) if state.phase == "failed" else None


def _up(state: BotState, since: int) -> Outcome | None:
    if state.phase == "running" and state.settled:
        return Outcome(True, "running")
    if state.phase == "failed":
        return _failed(state)
    if state.phase == "backoff" and state.generation > since and state.outage_at is not None:
        return Outcome(False, "crashed", state.reason)
    if state.phase == "stopped" and state.generation > since:
        ended_well = state.last_exit is not None and state.last_exit.clean
        return Outcome(ended_well, "finished" if ended_well else "stopped", state.reason)
    return None


def _failed(state: BotState) -> Outcome:
    return Outcome(False, "failed", state.reason)


def timed_out(goal: Goal, state: BotState | None, timeout_s: float) -> Outcome:
    phase = "gone" if state is None else state.phase
    reason = f": {state.reason}" if state is not None and state.reason else ""
    wanted = {"up": "running", "gone": "deleted"}.get(goal, goal)
    return Outcome(
        False, "timed out", f"not {wanted} after {timeout_s:g} s, it is {phase}{reason}", "timeout", Status.TIMEOUT
    )
