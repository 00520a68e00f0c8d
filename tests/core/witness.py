"""An independent book of what happened to each bot, against which every decision of the core is held.

It knows nothing of handlers and tables: only of lives that were begun, of how they ended, and of who asked.
"""

from dataclasses import dataclass

import pytest

from botd.core.effects import Acknowledge, Remove, Spawn, Terminate
from botd.core.events import (
    Condemned,
    DeadlinePassed,
    DeleteRequested,
    Exited,
    HealthReported,
    Rebooted,
    RestartRequested,
    SpawnFailed,
    SpawnRefused,
    StartRequested,
    StopRequested,
)

REQUESTS = (StartRequested, StopRequested, RestartRequested, DeleteRequested)
ENDS = (Exited, SpawnFailed)


@dataclass
class Book:
    """What is to be counted of one bot."""

    down_since: float | None = None
    """An outage is open: a wanted life ended without anybody asking for it."""
    refused: bool = False
    """The keeper refused the last life of an outage: the next one is the same attempt."""
    restarts: int = 0
    recoveries: int = 0


class Witness:
    def __init__(self):
        self.books = {}
        self.begun = {}

    def new_bot(self, bot_id):
        self.books[bot_id] = Book()
        self.begun[bot_id] = 0

    def began(self, bot_id, generation):
        """The keeper was asked for this life (perhaps again, after the line broke)."""
        assert generation >= self.begun[bot_id], "a life with an older number"
        self.begun[bot_id] = generation

    def saw(self, bot_id, before, event, decision, context):
        if Remove() in decision.effects:
            assert (
                before.phase in ("stopped", "backoff", "failed") or isinstance(event, Rebooted) or _ended(before, event)
            )
            return  # nobody will look at its state again
        after, book = decision.state, self.books[bot_id]
        ended = _ended(before, event)
        self._out_of_date(before, event, decision, context)
        self._wishes(before, event, after, ended, context)
        self._lives(before, decision)
        self._shape(after, context)
        self._row(before, event, after, ended, context)
        if after.phase == "backoff" and ended:
            self._wait(after, context)
        self._outcomes(before, event, after, ended, book, context)
        self._book(book, before, event, decision, ended, context)
        assert after.restarts == book.restarts, f"{after.restarts} restarts counted, {book.restarts} seen"
        assert after.recovery.attempts == book.recoveries, f"{after.recovery.attempts} counted, {book.recoveries} seen"
        if after.phase != "stopping":
            assert after.outage_at == book.down_since, "the outage is not what was seen"

    @staticmethod
    def _out_of_date(before, event, decision, context):
        """What is no longer true changes nothing; an end is acknowledged however often it is told."""
        old_life = getattr(event, "generation", before.generation) != before.generation
        if isinstance(event, ENDS):
            assert Acknowledge(event.generation) in decision.effects, "the keeper will tell this end for ever"
        old_time = isinstance(event, DeadlinePassed) and (
            event.deadline != before.deadline or context.now < event.deadline.at
        )
        if old_life or old_time:
            assert decision.state == before
            assert decision.effects == ((Acknowledge(event.generation),) if isinstance(event, ENDS) else ())

    @staticmethod
    def _wishes(before, event, after, ended, context):
        """Its owner's last word is what holds, and nothing else changes what is wanted."""
        if isinstance(event, (StartRequested, RestartRequested)):
            assert after.wanted
        elif isinstance(event, (StopRequested, DeleteRequested)):
            assert not after.wanted
        elif before.wanted and not after.wanted:
            quota = isinstance(event, Condemned) and event.cause == "quota"
            mode, policy = context.rules.restart, context.policy
            finished = ended and isinstance(event, Exited) and event.exit.clean and before.phase != "stopping"
            assert quota or (finished and (mode != "always" or not policy.enabled)), "nobody wanted it to stop"
        else:
            assert after.wanted == before.wanted

    @staticmethod
    def _lives(before, decision):
        after = decision.state
        spawned = [effect.generation for effect in decision.effects if isinstance(effect, Spawn)]
        assert len(spawned) <= 1
        assert after.generation == before.generation + len(spawned), "a life without a number of its own"
        if spawned:
            assert spawned == [after.generation] and after.phase == "starting"
        for effect in decision.effects:
            if isinstance(effect, Terminate):
                assert effect.generation == after.generation and after.phase == "stopping"

    @staticmethod
    def _shape(state, context):
        """What every state looks like: a deadline where one is needed, a reason where one is owed."""
        kind = state.deadline.kind if state.deadline else None
        match state.phase:
            case "stopped":
                assert (state.wanted, kind, state.pid) == (False, None, None)
            case "starting":
                assert (state.wanted, kind) == (True, None)
            case "running":
                assert state.wanted and state.started_at is not None and kind in ("settle", "reset", None)
                believed = kind == "settle" or state.settled or context.rules.probed
                assert believed, "nobody will ever believe in it"
                assert kind is not None or state.attempts == 0, "its row of failures never ends"
            case "stopping":
                assert kind == "kill"
                assert state.wanted == (state.then in ("restart", "retry"))
            case "backoff":
                assert (state.wanted, kind, state.pid) == (True, "retry", None) and state.reason
            case "failed":
                assert (state.wanted, kind, state.pid) == (True, None, None) and state.reason
        if state.phase not in ("running", "stopping"):
            assert state.started_at is None and not state.settled and state.health == "unknown"
        if state.recovering:
            assert state.outage_at is not None and state.phase in ("starting", "running", "stopping", "backoff")

    @staticmethod
    def _row(before, event, after, ended, context):
        """Automatic restarts in a row: one more with each end, none forgotten, forgiven only for a reason."""
        ran_well = ended and isinstance(event, Exited) and event.exit.ran_s >= context.policy.reset_after_s
        again = ended and _by_itself(before) and after.phase in ("backoff", "starting")
        if again:
            assert after.attempts == (1 if ran_well else before.attempts + 1)
            assert after.attempts <= context.policy.max_attempts, "it should have been given up"
        elif after.attempts != before.attempts:
            assert after.attempts == 0
            reset = isinstance(event, DeadlinePassed) and event.deadline.kind == "reset"
            assert (
                reset
                or isinstance(event, (*REQUESTS, Rebooted))
                or (ended and not after.wanted)
                or (ended and before.then == "restart")
            ), "the row of failures was forgotten"
            if reset:
                assert context.now >= before.started_at + context.policy.reset_after_s
        if ended and after.phase == "failed" and isinstance(event, Exited) and context.policy.enabled:
            assert context.rules.restart == "never" or before.attempts >= context.policy.max_attempts or ran_well

    @staticmethod
    def _wait(after, context):
        policy = context.policy
        whole = policy.delay_s * (2 ** (after.attempts - 1) if policy.exponential else 1)
        whole = min(whole, policy.max_delay_s)
        wait = after.deadline.at - context.now
        assert 0.75 * whole - 1e-9 <= wait <= whole + 1e-9, f"waits {wait} s where {whole} s are due"

    @staticmethod
    def _outcomes(before, event, after, ended, book, context):
        """Each attempt to recover has at most one outcome, and it is the right one."""
        was, now = before.recovery, after.recovery
        won, lost = now.successes - was.successes, now.failures - was.failures
        assert (won, lost) in ((0, 0), (1, 0), (0, 1))
        assert now.successes + now.failures <= now.attempts
        if won:
            assert before.recovering and after.settled and not after.recovering
            by_probe = isinstance(event, HealthReported)
            assert by_probe == context.rules.probed, "time alone is no proof for a bot with a probe"
            took = (context.now if by_probe else before.started_at) - book.down_since
            assert now.total_s - was.total_s == pytest.approx(took)
            assert now.worst_s == pytest.approx(max(was.worst_s, took))
        if lost:
            assert ended and before.recovering and not before.settled
        if ended and before.recovering and _by_itself(before):
            assert lost, "an attempt that came to nothing was not counted"

    @staticmethod
    def _book(book, before, event, decision, ended, context):
        after = decision.state
        if isinstance(event, Rebooted) or not after.wanted or (ended and not _by_itself(before)):
            book.down_since, book.refused = None, False
        elif ended and book.down_since is None:
            book.down_since = context.now
        if after.recovery.successes > before.recovery.successes:
            book.down_since = None
        if any(isinstance(effect, Spawn) for effect in decision.effects):
            down = book.down_since is not None
            automatic = down and isinstance(event, (*ENDS, DeadlinePassed))
            recovery = automatic or (down and isinstance(event, StartRequested) and event.recover)
            book.restarts += automatic and not book.refused
            book.recoveries += recovery and not book.refused
            book.refused = False
            if not recovery:
                book.down_since = None
        elif isinstance(event, SpawnRefused) and before.phase == "starting" and event.generation == before.generation:
            book.refused = book.down_since is not None


def _ended(before, event):
    """Whether the current life is over with this event."""
    kinds = (*ENDS, SpawnRefused) if before.phase == "stopping" else ENDS
    alive = before.phase in ("starting", "running", "stopping")
    return isinstance(event, kinds) and alive and event.generation == before.generation


def _by_itself(before):
    return before.phase != "stopping" or before.then == "retry"
