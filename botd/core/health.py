"""Probe results -> a verdict. Pure: when to ask, what counts, when a bot is called unhealthy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from botd.contract.vocabulary import Health
from botd.core.bot import BotState, Probe


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What is known of one life's probes. `verdict` None: nothing is known yet."""

    generation: int
    began_at: float
    due_at: float
    failures: int = 0
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: a timeout is a failure like any other, never a sign of readiness."""

    healthy: bool
    note: str


# Within the start grace a bot that is not ready yet is asked again soon, so that readiness is seen early.
STARTUP_INTERVAL_S = 0.5


DEFAULT_INTERVAL_S = 30.0


def interval(probe: Probe) -> float:
    """Seconds between two probes of a bot that is up."""
    return DEFAULT_INTERVAL_S if probe.interval_s is None else probe.interval_s


def first(probe: Probe, generation: int, now: float, chance: float) -> ProbeState:
    """`chance` spreads the probes of bots that started together."""
    return ProbeState(generation, now, now + min(STARTUP_INTERVAL_S, interval(probe)) * chance)


def judge(
    probe: Probe, state: ProbeState, outcome: Outcome, now: float, chance: float
) -> tuple[ProbeState, bool | None]:
    """The next state and the verdict when it changed: True healthy, False unhealthy, None no news."""
    if outcome.healthy:
        after = replace(state, failures=0, verdict=True, due_at=_next(probe, now, chance))
        return after, None if state.verdict is True else True
    in_grace = state.verdict is None and now - state.began_at < probe.start_grace_s
    if in_grace:
        soon = min(STARTUP_INTERVAL_S, interval(probe))
        return replace(state, due_at=now + soon * (0.8 + 0.2 * chance)), None
    failures = state.failures + 1
    verdict = False if failures >= probe.failures else state.verdict
    after = replace(state, failures=failures, verdict=verdict, due_at=_next(probe, now, chance))
    return after, False if verdict is False and state.verdict is not False else None


def _next(probe: Probe, now: float, chance: float) -> float:
    # Up to a tenth early, so that a thousand probes of one interval drift apart.
    return now + interval(probe) * (1.0 - 0.1 * chance)


def shown(state: BotState) -> Health:
    """The word of the contract for a bot's health."""
    match state.phase:
        case "stopped" | "stopping":
            return "stopped" if not state.wanted else "unknown"
        case "failed" | "backoff":
            return "unhealthy"
        case "starting":
            return "unknown"
    if state.health == "healthy" and state.attempts > 0:
        return "recovered"
    return state.health
