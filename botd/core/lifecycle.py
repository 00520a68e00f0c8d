"""The life of a bot, as one table: phase x event -> (state, effects).

    stopped    nobody wants it, nothing of it runs
    starting   a life is on its way: asked of the keeper, its program not executed yet
    running    the program was executed and has not ended
    stopping   a life is asked to end; `then` says what follows
    backoff    it is wanted, is down, and will be tried again at the deadline `retry`
    failed     it is wanted, is down, and the restart policy gave up; `reason` says why

                     start                    executed              its life ends
        stopped ──────────────▶ starting ──────────────▶ running ──────────────┐
           ▲                       ▲  ▲                     │                  │
           │ ended, then stop      │  └──── deadline ─── backoff ◀── again ────┤ restart policy
           │                       │ then restart           │                  │
        stopping ──────────────────┘ ◀── stop, restart ─────┘      failed ◀────┘ gives up

Rules that hold everywhere:

* At most one life at a time: a new generation begins only in a phase in which no life is left
  (stopped, backoff, failed, or the very step in which the keeper reported the end of the last).
* An event of a life carries its generation. One of an earlier life changes nothing. An end that is
  told twice is acknowledged twice and changes nothing the second time.
* A deadline is a value in the state. `DeadlinePassed` counts only while that value still stands.
* Every pair of phase and event is in the table. A pair that cannot happen raises `IllegalEvent`, and
  the caller's state is what it was.
* Every wanted bot is starting, running, stopping to start again, waiting with a deadline, or failed
  with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from botd.contract.vocabulary import PHASES, Phase, RestartMode
from botd.core import recovery, restart
from botd.core.bot import BotState, Deadline, Exit
from botd.core.effects import Acknowledge, Effect, Note, Remove, Spawn, Terminate
from botd.core.events import (
    EVENTS,
    OF_A_LIFE,
    Adopted,
    Condemned,
    DeadlinePassed,
    DeleteRequested,
    Event,
    Exited,
    HealthReported,
    Rebooted,
    RestartRequested,
    Running,
    Spawned,
    SpawnFailed,
    SpawnRefused,
    StartRequested,
    StopRequested,
)
from botd.core.settings import RestartPolicy
from botd.core.words import spoken

KILL_MARGIN_S = 5.0
"""How long after the grace a life may linger before it is asked for again (the keeper may be away)."""


WAITING = "waiting to start: "
"""How the reason of a bot begins whose start was refused and is tried again."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a specification the lifecycle needs."""

    restart: RestartMode = "always"
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    probed: bool = False
    """Health comes from a probe; without one, running long enough is healthy."""


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of one decision. `now` is CLOCK_BOOTTIME, `chance` in [0, 1)."""

    now: float
    chance: float
    policy: RestartPolicy
    rules: Rules
    refusal: str | None = None
    """Why no life may begin now (admission), or None."""
    probing: bool = True
    """Probes are asked at all (botRecovery.healthCheckEnabled)."""


@dataclass(frozen=True, slots=True)
class Decision:
    state: BotState
    effects: tuple[Effect, ...] = ()


class IllegalEvent(Exception):
    """This event cannot happen in this phase: somebody is mistaken, and nothing was changed."""


Handler = Callable[[BotState, Event, Context], Decision]


def step(state: BotState, event: Event, context: Context) -> Decision:
    """Decide. Raises IllegalEvent."""
    if isinstance(event, OF_A_LIFE) and event.generation != state.generation:
        if event.generation > state.generation:
            raise IllegalEvent(f"life {event.generation} was never begun; the last one is {state.generation}")
        if isinstance(event, (Exited, SpawnFailed)):
            return Decision(state, (Acknowledge(event.generation),))
        return Decision(state)
    if isinstance(event, DeadlinePassed) and (event.deadline != state.deadline or context.now < event.deadline.at):
        return Decision(state)
    handler = TABLE[state.phase, type(event)]
    if handler is None:
        raise IllegalEvent(f"{type(event).__name__} cannot happen while {state.phase}")
    return handler(state, event, context)


# --- beginning a life -----------------------------------------------------------------------------


def _spawn(state: BotState, c: Context, *, attempts: int, recovering: bool, reason: str, automatic: bool) -> Decision:
    # Still recovering without a life: the keeper refused the last one, and that attempt was counted.
    again = state.recovering
    counted = recovery.attempted(state.recovery) if recovering and not again else state.recovery
    generation = state.generation + 1
    after = replace(
        state,
        phase="starting",
        wanted=True,
        generation=generation,
        pid=None,
        since=c.now,
        started_at=None,
        settled=False,
        health="unknown",
        health_note="",
        attempts=attempts,
        restarts=state.restarts + (automatic and not again),
        recovering=recovering,
        then="stop",
        cause="",
        deadline=None,
        reason=reason,
        outage_at=state.outage_at if recovering else None,
        recovery=counted,
    )
    return Decision(after, (Spawn(generation),))


def _start(state: BotState, event: Event, c: Context) -> Decision:
    """By request, from a phase without a life: the row of failures is forgotten."""
    recovering = isinstance(event, StartRequested) and event.recover and state.wanted
    recovering = recovering and state.outage_at is not None
    return _spawn(state, c, attempts=0, recovering=recovering, reason="", automatic=False)


def _retry(state: BotState, event: Event, c: Context) -> Decision:
    if c.refusal is not None:
        reason = f"{WAITING}{c.refusal}"
        after = replace(state, deadline=Deadline("retry", c.now + restart.REFUSED_RETRY_S), reason=reason)
        # The words carry a figure that changes all the time; one line of history tells of the whole wait.
        return Decision(after, () if state.reason.startswith(WAITING) else (Note("refused", reason),))
    # A start that was put off (lock busy, reboot) begins no outage and is no recovery.
    recovering = state.outage_at is not None
    return _spawn(state, c, attempts=state.attempts, recovering=recovering, reason=state.reason, automatic=recovering)


# --- a life on its way ----------------------------------------------------------------------------


def _spawned(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, Spawned)
    return Decision(replace(state, pid=event.pid))


def _running(state: BotState, event: Event, c: Context) -> Decision:
    after = replace(
        state,
        phase="running",
        since=c.now,
        started_at=c.now,
        deadline=_settle_deadline(c),
        reason="",
    )
    return Decision(after, (Note("started", f"life {state.generation} started, pid {state.pid}"),))


def _settle_deadline(c: Context) -> Deadline:
    """On a tenth of a second: bots that started together settle in one decision instead of a thousand."""
    return Deadline("settle", math.ceil((c.now + c.policy.settle_s) * 10.0) / 10.0)


def _running_while_stopping(state: BotState, event: Event, c: Context) -> Decision:
    return Decision(replace(state, started_at=c.now))


def _spawn_failed(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, SpawnFailed)
    what = f"cannot start: {event.reason}"
    if event.permanent:
        decided = _fail(_down(state, c), what, c)
    else:
        decided = _by_policy(_down(state, c), what, False, 0.0, c)
    return Decision(decided.state, (Acknowledge(event.generation), *decided.effects))


def _spawn_refused(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, SpawnRefused)
    reason = f"{WAITING}{event.reason}"
    after = replace(
        state,
        phase="backoff",
        generation=max(state.generation, event.spent),
        pid=None,
        since=c.now,
        deadline=Deadline("retry", c.now + restart.REFUSED_RETRY_S),
        reason=reason,
    )
    return Decision(after, (Note("refused", reason),))


def _adopted(state: BotState, event: Event, c: Context) -> Decision:
    """An older database was restored under a running fleet: what runs is true, what is wanted stands on record."""
    assert isinstance(event, Adopted)
    if event.generation <= state.generation:
        raise IllegalEvent(f"life {event.generation} is not later than ours, {state.generation}")
    removing = state.phase == "stopping" and state.then == "delete"
    after = replace(
        state,
        phase="running",
        generation=event.generation,
        pid=event.pid,
        since=c.now,
        started_at=event.started_at,
        settled=False,
        health="unknown",
        health_note="",
        attempts=0,
        recovering=False,
        then="stop",
        cause="",
        deadline=_settle_deadline(c),
        reason="",
        outage_at=None,
    )
    note = Note("adopted", f"life {event.generation} was running already, pid {event.pid}")
    if state.wanted:
        return Decision(after, (note,))
    ending = replace(after, then="delete" if removing else "stop", cause="request", reason="it is not wanted")
    ended = _terminate(ending, c)
    return Decision(ended.state, (note, *ended.effects))


# --- a life that ends by itself -------------------------------------------------------------------


def _exited(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, Exited)
    after = replace(_down(state, c), last_exit=event.exit)
    ack = Acknowledge(event.generation)
    what = restart.words_of(event.exit)
    ran = f" after {spoken(event.exit.ran_s)}" if state.started_at is not None else ""
    decided = _by_policy(after, what, event.exit.clean, event.exit.ran_s, c)
    return Decision(decided.state, (ack, Note("exited", f"{what}{ran}"), *decided.effects))


def _down(state: BotState, c: Context) -> BotState:
    """Its life is over; whether that is an outage is remembered, and a recovery that was not one counted."""
    stats = recovery.failed(state.recovery) if state.recovering and not state.settled else state.recovery
    return replace(
        _without_life(state, c),
        recovering=False,
        outage_at=c.now if state.outage_at is None else state.outage_at,
        recovery=stats,
    )


def _without_life(state: BotState, c: Context) -> BotState:
    """What describes one life ends with it."""
    return replace(
        state,
        pid=None,
        since=c.now,
        started_at=None,
        settled=False,
        health="unknown",
        health_note="",
        deadline=None,
    )


def _by_policy(state: BotState, what: str, clean: bool, ran_s: float, c: Context) -> Decision:
    said = restart.verdict(
        c.policy,
        c.rules.restart,
        what,
        clean=clean,
        attempts=state.attempts,
        ran_s=ran_s,
        chance=c.chance,
    )
    match said:
        case restart.Again(delay_s, attempt, reason):
            after = replace(
                state,
                phase="backoff",
                attempts=attempt,
                deadline=Deadline("retry", c.now + delay_s),
                reason=reason,
            )
            if delay_s <= 0.0 and c.refusal is None:
                return _retry(after, DeadlinePassed(Deadline("retry", c.now)), c)
            return Decision(after, (Note("backoff", f"{reason} in {spoken(delay_s)}"),))
        case restart.GiveUp(reason):
            return _fail(state, reason, c)
        case restart.Finished(reason):
            after = replace(
                state, phase="stopped", wanted=False, attempts=0, deadline=None, reason=reason, outage_at=None
            )
            return Decision(after, (Note("stopped", reason),))


def _fail(state: BotState, reason: str, c: Context) -> Decision:
    after = replace(state, phase="failed", deadline=None, reason=reason)
    return Decision(after, (Note("failed", reason),))


def _told_again(state: BotState, event: Event, c: Context) -> Decision:
    """The keeper tells an end until it is acknowledged; this one is on record already."""
    assert isinstance(event, (Exited, SpawnFailed))
    return Decision(state, (Acknowledge(event.generation),))


# --- a life that is asked to end ------------------------------------------------------------------


def _terminate(state: BotState, c: Context, *, at_once: bool = False) -> Decision:
    grace = 0.0 if at_once else c.rules.stop_grace_s
    after = replace(
        state,
        phase="stopping",
        since=c.now,
        health="unknown",
        deadline=Deadline("kill", c.now + grace + KILL_MARGIN_S),
    )
    return Decision(after, (Terminate(state.generation, c.rules.stop_signal, grace),))


def _stop(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, StopRequested)
    return _terminate(replace(state, wanted=False, then="stop", cause="request", reason=event.why, attempts=0), c)


def _restart(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, RestartRequested)
    return _terminate(replace(state, wanted=True, then="restart", cause="request", reason=event.why, attempts=0), c)


def _delete(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, DeleteRequested)
    after = replace(state, wanted=False, then="delete", cause="request", reason="deleted by request", purge=event.purge)
    return _terminate(after, c)


def _condemn(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, Condemned)
    down = event.cause == "quota"
    begun = _terminate(
        replace(
            state,
            wanted=state.wanted and not down,
            then="stop" if down else "retry",
            cause=event.cause,
            reason=event.reason,
        ),
        c,
        at_once=event.at_once,
    )
    return Decision(begun.state, (Note("condemned", event.reason), *begun.effects))


def _stop_while_stopping(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, StopRequested)
    if state.then == "delete":
        return Decision(state)
    return Decision(replace(state, wanted=False, then="stop", reason=event.why, attempts=0))


def _start_while_stopping(state: BotState, event: Event, c: Context) -> Decision:
    if state.then == "delete":
        raise IllegalEvent("it is being deleted")
    return Decision(replace(state, wanted=True, then="restart", attempts=0))


def _delete_while_stopping(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, DeleteRequested)
    purge = event.purge or state.purge
    return Decision(replace(state, wanted=False, then="delete", reason="deleted by request", purge=purge))


def _kill(state: BotState, event: Event, c: Context) -> Decision:
    after = replace(state, deadline=Deadline("kill", c.now + KILL_MARGIN_S))
    return Decision(after, (Terminate(state.generation, "SIGKILL", 0.0),))


def _ended(state: BotState, event: Event, c: Context) -> Decision:
    """The life that was asked to end is over (or never began): do what was to follow."""
    effects: tuple[Effect, ...] = ()
    after = _without_life(state, c)
    what, ran_s = "ended", 0.0
    if isinstance(event, Exited):
        ended = replace(event.exit, cause=event.exit.cause or state.cause)
        after = replace(after, last_exit=ended)
        what, ran_s = restart.words_of(ended), ended.ran_s
        effects = (Acknowledge(event.generation), Note("exited", what))
    elif isinstance(event, SpawnFailed):
        effects = (Acknowledge(event.generation),)
    match state.then:
        case "stop" | "delete":
            after = replace(after, phase="stopped", wanted=False, recovering=False, cause="", outage_at=None)
            last: Effect = Remove() if state.then == "delete" else Note("stopped", state.reason)
            return Decision(after, (*effects, last))
        case "restart":
            begun = _spawn(replace(after, outage_at=None), c, attempts=0, recovering=False, reason="", automatic=False)
            return Decision(begun.state, (*effects, *begun.effects))
        case "retry":
            down = replace(_down(replace(after, settled=state.settled), c), cause="")
            decided = _by_policy(down, state.reason, False, ran_s, c)
            return Decision(decided.state, (*effects, *decided.effects))


# --- without a life -------------------------------------------------------------------------------


def _unwant(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, StopRequested)
    after = replace(
        state,
        phase="stopped",
        wanted=False,
        since=c.now if state.phase != "stopped" else state.since,
        attempts=0,
        recovering=False,
        deadline=None,
        reason=event.why if state.phase != "stopped" else state.reason,
        outage_at=None,
    )
    return Decision(after, (Note("stopped", event.why),) if state.phase != "stopped" else ())


def _remove(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, DeleteRequested)
    return Decision(replace(state, phase="stopped", wanted=False, deadline=None, purge=event.purge), (Remove(),))


# --- while it runs --------------------------------------------------------------------------------


def _time_passed(state: BotState, event: Event, c: Context) -> Decision:
    """`settle`: this life is believed. `reset`: it ran well, the row of failures is over."""
    assert isinstance(event, DeadlinePassed)
    if event.deadline.kind == "reset":
        return Decision(replace(state, attempts=0, deadline=None))
    if c.rules.probed and c.probing:
        # It runs; whether it is well is for its probe to say.
        return Decision(replace(state, deadline=_reset_deadline(state, c)))
    return _settle(replace(state, health="healthy"), c, by_probe=False)


def _settle(state: BotState, c: Context, *, by_probe: bool) -> Decision:
    """From now on this life is believed, and an outage is over."""
    assert state.started_at is not None
    effects: tuple[Effect, ...] = ()
    stats = state.recovery
    if state.recovering and state.outage_at is not None:
        took = max(0.0, (c.now if by_probe else state.started_at) - state.outage_at)
        stats = recovery.succeeded(stats, took)
        effects = (Note("recovered", f"recovered {spoken(took)} after it went down"),)
    after = replace(
        state,
        settled=True,
        recovering=False,
        outage_at=None,
        recovery=stats,
        deadline=_reset_deadline(state, c),
    )
    return Decision(after, effects)


def _reset_deadline(state: BotState, c: Context) -> Deadline | None:
    if state.attempts == 0 or state.started_at is None:
        return None
    return Deadline("reset", max(c.now, state.started_at + c.policy.reset_after_s))


def _health(state: BotState, event: Event, c: Context) -> Decision:
    assert isinstance(event, HealthReported)
    word: Literal["healthy", "unhealthy"] = "healthy" if event.healthy else "unhealthy"
    note = Note(word, event.note or word)
    after = replace(state, health=word, health_note=event.note)
    if not event.healthy or (state.settled and not state.recovering):
        return Decision(after, (note,) if state.health != word else ())
    settled = _settle(after, c, by_probe=True)
    return Decision(settled.state, (note, *settled.effects))


# --- a new boot -----------------------------------------------------------------------------------


def _rebooted(state: BotState, event: Event, c: Context) -> Decision:
    """Nothing of the old boot runs. What was wanted begins anew, failures and waits forgotten."""
    lost = state.phase in ("starting", "running", "stopping")
    removing = state.phase == "stopping" and state.then == "delete"
    last = state.last_exit
    if lost:
        last = Exit(None, None, last.at_wall if last else 0.0, cause="reboot")
    clean = replace(
        _without_life(state, c),
        phase="stopped",
        attempts=0,
        recovering=False,
        then="stop",
        cause="",
        last_exit=last,
        outage_at=None,
    )
    if removing:
        return Decision(clean, (Remove(),))
    notes: tuple[Effect, ...] = (Note("exited", "lost at a reboot of the machine"),) if lost else ()
    if not state.wanted:
        return Decision(clean, notes)
    waiting = replace(clean, phase="backoff", deadline=Deadline("retry", c.now), reason="starting after a reboot")
    return Decision(waiting, notes)


# --- what changes nothing -------------------------------------------------------------------------


def _same(state: BotState, event: Event, c: Context) -> Decision:
    """Already so, or too late to matter."""
    return Decision(state)


def _want(state: BotState, event: Event, c: Context) -> Decision:
    return Decision(state if state.wanted else replace(state, wanted=True))


# Every pair, written down. None: cannot happen.
_ROWS: dict[type, tuple[Handler | None, ...]] = {
    #                  stopped       starting        running        stopping                 backoff       failed
    StartRequested:   (_start,       _want,          _want,         _start_while_stopping,   _start,       _start),
    StopRequested:    (_unwant,      _stop,          _stop,         _stop_while_stopping,    _unwant,      _unwant),
    RestartRequested: (_start,       _restart,       _restart,      _start_while_stopping,   _start,       _start),
    DeleteRequested:  (_remove,      _delete,        _delete,       _delete_while_stopping,  _remove,      _remove),
    Spawned:          (None,         _spawned,       None,          _spawned,                None,         None),
    Running:          (None,         _running,       None,          _running_while_stopping, None,         None),
    SpawnFailed:      (_told_again,  _spawn_failed,  None,          _ended,                  _told_again,  _told_again),
    SpawnRefused:     (None,         _spawn_refused, None,          _ended,                  None,         None),
    Adopted:          (_adopted,     _adopted,       _adopted,      _adopted,                _adopted,     _adopted),
    Exited:           (_told_again,  _exited,        _exited,       _ended,                  _told_again,  _told_again),
    DeadlinePassed:   (None,         None,           _time_passed,  _kill,                   _retry,       None),
    Condemned:        (_same,        _same,          _condemn,      _same,                   _same,        _same),
    HealthReported:   (_same,        _same,          _health,       _same,                   _same,        _same),
    Rebooted:         (_rebooted,    _rebooted,      _rebooted,     _rebooted,               _rebooted,    _rebooted),
}  # fmt: skip

TABLE: dict[tuple[Phase, type], Handler | None] = {
    (phase, event): handler for event in EVENTS for phase, handler in zip(PHASES, _ROWS[event], strict=True)
}
