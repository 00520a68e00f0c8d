"""Why a bot is in its phase, in one sentence, and what its owner could do. Pure."""

from __future__ import annotations

from botd.core import caps, quota
from botd.core.bot import BotState, Spec
from botd.core.settings import Limits
from botd.core.words import spoken


def verdict(spec: Spec, state: BotState, now: float) -> str:
    last = state.last_exit
    ended = f" Its last life: {last.words()}." if last is not None else ""
    match state.phase:
        case "running":
            age = spoken(now - state.started_at) if state.started_at is not None else "some time"
            if state.health == "unhealthy":
                return f"{spec.id} has run for {age} but its health checks fail: {state.health_note}."
            if state.attempts:
                row = _times(state.attempts, "restart")
                return f"{spec.id} has been running again for {age}, after {row} in a row.{ended}"
            return f"{spec.id} has been running for {age}."
        case "starting":
            return f"{spec.id} is starting (life {state.generation})."
        case "stopping":
            follows = {"stop": "", "restart": ", then starts again", "retry": ", then starts again", "delete": ""}
            return f"{spec.id} is stopping{follows[state.then]}: {state.reason}."
        case "backoff":
            wait = max(0.0, state.deadline.at - now) if state.deadline else 0.0
            return f"{spec.id} is down and will be tried again in {spoken(wait)}: {state.reason}."
        case "failed":
            return f"{spec.id} failed: {state.reason}."
        case "stopped":
            return f"{spec.id} is stopped{': ' + state.reason if state.reason else ''}.{ended}"


def advice(spec: Spec, state: BotState, limits: Limits, forks_refused: int = 0) -> list[str]:
    """What its owner could do. `forks_refused`: how often its current life was refused one more process."""
    out: list[str] = []
    if forks_refused:
        said = caps.forks_refused(spec, forks_refused, caps.caps_of(spec, limits).processes)
        out.append(f"{said}; raise it, or find what starts so many")
    if state.phase in ("failed", "backoff"):
        out.append(f"see its last words: botctl logs {spec.id} -n 50")
    if state.phase == "failed":
        if state.reason.startswith("cannot start"):
            out.append(f"mend its command or folder, then: botctl recover {spec.id}")
        else:
            out.append(f"when the cause is mended: botctl recover {spec.id}")
    if state.phase == "running" and state.health == "unhealthy":
        out.append(f"ask it yourself, or replace this life: botctl restart {spec.id}")
    if quota.is_stopped_for_it(state):
        out.append(f"make room first: botctl resources --user {spec.user} shows which bot keeps how much")
    if state.phase == "stopped" and not state.wanted and state.generation:
        out.append(f"to run it: botctl start {spec.id}")
    if state.last_exit is not None:
        if state.last_exit.cause == "memory":
            out.append("it outgrew its memory limit: raise memory_mb, or find what it keeps")
        elif state.last_exit.cause == "relief":
            out.append("the machine was short of memory and it grew: find what it keeps, or give the machine more")
        if state.last_exit.cause == "processes" or state.last_exit.forks_refused:
            key = caps.processes_key(spec)
            out.append(f"it reached its limit of processes: raise it ({key}), or find what starts so many")
    return out


def _times(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
