"""A roll: the bots of a template go over to another release in batches, and back again when that goes wrong. Pure.

    moving       a batch has the new release; its bots are awaited at the gate until the deadline
    watching     they are through; the batch is watched until the deadline, then the next one moves
    returning    a batch has its former release again; its bots are awaited until the deadline
    finished     every bot has the new release, and it is the one in force
    taken-back   every bot that was moved has its former release again
    stopped      the batch in motion has; finished batches keep the new one, because somebody wanted it so

                  begin             through              time           no bot is left
        (nothing) ─────▶ moving ─────────────▶ watching ──────▶ moving ────────────────▶ finished
                            │                     │
                            │ more failures than may be, or aborted
                            ▼                     ▼
                         returning ──▶ returning, the batch before ──▶ taken-back | stopped

Rules that hold everywhere:

* One batch is in motion at most, forwards and backwards: the next one moves when this one is decided.
* Every step is recorded together with the specifications that it changes, in one transaction. What follows from it (new
  lives, the gate) follows from the record alone, so that whoever comes after a crash goes on from there.
* A deadline is a value in the state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from botd.core.gate import SAMPLE, Tally
from botd.core.words import spoken

Phase = Literal["moving", "watching", "returning", "finished", "taken-back", "stopped"]
PHASES: tuple[Phase, ...] = ("moving", "watching", "returning", "finished", "taken-back", "stopped")
OPEN: tuple[Phase, ...] = ("moving", "watching", "returning")


@dataclass(frozen=True, slots=True)
class Options:
    """`batch`: a number of bots ("20") or a share of all ("10%"). `canary`: how many go first, 0 for a whole batch."""

    batch: str = "10%"
    canary: int = 1
    max_failures: int = 0
    gate_timeout_s: float = 120.0
    pause_s: float = 0.0
    keep_done: bool = False


@dataclass(frozen=True, slots=True)
class Roll:
    """`number`: of the batch in motion, from 1 on. Deadlines are of CLOCK_BOOTTIME, `*_wall` since the epoch."""

    id: int
    template: str
    target: str
    """The release to which bots go."""
    fallback: str | None
    """The release to be in force when the roll is taken back; None: the one that is."""
    options: Options
    began_at_wall: float
    bots: int
    """How many are moved and to be moved, as far as is known."""
    phase: Phase = "moving"
    number: int = 0
    batches: int = 0
    moved: int = 0
    """Bots of finished batches."""
    failures: int = 0
    """Of batches that are decided; bots that failed keep the new release when that many may."""
    deadline: float | None = None
    failed: tuple[tuple[str, str], ...] = ()
    """The first of them, each with its reason."""
    reason: str = ""
    ended_at_wall: float | None = None

    @property
    def open(self) -> bool:
        return self.phase in OPEN


# --- events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """`waiting`: how many bots of the template have another release."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Looked:
    """How the batch in motion does. Told as often as anybody likes: it is the state that counts, not the news."""

    tally: Tally
    waiting: int


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """`tally`: how the batch in motion does."""

    why: str
    tally: Tally
    keep_done: bool = False


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another botd takes over. Nobody asked the bots how they are in between: they get their time anew."""


Event = Begun | Looked | AbortRequested | Resumed


# --- effects ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """The next `count` bots that wait get the target, as batch `number`."""

    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Return:
    """The bots of batch `number` that have the target get their former release back."""

    number: int


@dataclass(frozen=True, slots=True)
class PutInForce:
    """New bots of the template get this release."""

    release: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line of history."""

    text: str


Effect = Move | Return | PutInForce | Note


@dataclass(frozen=True, slots=True)
class Decision:
    roll: Roll
    effects: tuple[Effect, ...] = ()


class NotOpen(Exception):
    """The roll is over."""


def step(roll: Roll, event: Event, now: float, wall: float) -> Decision:
    """Decide. `now` is CLOCK_BOOTTIME, `wall` the time of day for people. Raises NotOpen."""
    if not roll.open:
        raise NotOpen(roll.phase)
    match event:
        case Begun(waiting):
            return _begin(roll, waiting, now, wall)
        case Looked(tally, waiting):
            return _look(roll, tally, waiting, now, wall)
        case AbortRequested():
            return _abort(roll, event, now, wall)
        case Resumed():
            return Decision(replace(roll, deadline=now + _time(roll)))


def batch_size(options: Options, bots: int) -> int:
    """How many bots of so many make a batch; at least one."""
    if options.batch.endswith("%"):
        return max(1, bots * int(options.batch[:-1]) // 100)
    return max(1, int(options.batch))


def short(release: str) -> str:
    return release[:12]


def _time(roll: Roll) -> float:
    return roll.options.pause_s if roll.phase == "watching" else roll.options.gate_timeout_s


def _begin(roll: Roll, waiting: int, now: float, wall: float) -> Decision:
    if waiting == 0:
        return _finish(roll, wall)
    begun = _move(roll, waiting, now)
    bots = f"{waiting:,} bot{'s' * (waiting != 1)}"
    batches = f"{begun.roll.batches:,} batch{'es' * (begun.roll.batches != 1)}"
    return Decision(begun.roll, (*_said(roll, f"begins: {bots} in {batches}"), *begun.effects))


def _move(roll: Roll, waiting: int, now: float) -> Decision:
    bots = roll.moved + waiting
    size = batch_size(roll.options, max(bots, roll.bots))
    count = min(waiting, roll.options.canary or size) if roll.number == 0 else min(waiting, size)
    number = roll.number + 1
    after = replace(
        roll,
        phase="moving",
        number=number,
        batches=number + -(-(waiting - count) // size),
        bots=bots,
        deadline=now + roll.options.gate_timeout_s,
    )
    return Decision(after, (Move(number, count),))


def _look(roll: Roll, tally: Tally, waiting: int, now: float, wall: float) -> Decision:
    assert roll.deadline is not None
    if roll.phase == "returning":
        return Decision(roll) if tally.open else _returned(roll, now, wall)
    if roll.failures + tally.failures > roll.options.max_failures:
        return _take_back(_counted(roll, tally), _why(roll, tally), now, wall)
    if tally.open:
        if roll.phase == "watching" and now >= roll.deadline:
            # Another botd took over meanwhile: to it, some bots have still to show that they run well.
            return Decision(replace(roll, phase="moving", deadline=now + roll.options.gate_timeout_s))
        return Decision(roll)
    if roll.phase == "moving" and roll.options.pause_s > 0 and waiting:
        after = replace(roll, phase="watching", deadline=now + roll.options.pause_s)
        text = f"batch {roll.number} of {roll.batches} is through and watched for {spoken(roll.options.pause_s)}"
        return Decision(after, _said(roll, text))
    if roll.phase == "watching" and now < roll.deadline:
        return Decision(roll)
    done = replace(_counted(roll, tally), moved=roll.moved + tally.bots)
    said = _said(roll, f"batch {roll.number} of {roll.batches} is through")
    onwards = _move(done, waiting, now) if waiting else _finish(done, wall)
    return Decision(onwards.roll, (*said, *onwards.effects))


def _counted(roll: Roll, tally: Tally) -> Roll:
    failed = (*roll.failed, *tally.sample)[:SAMPLE]
    return replace(roll, failures=roll.failures + tally.failures, failed=failed)


def _why(roll: Roll, tally: Tally) -> str:
    failures = roll.failures + tally.failures
    bot_id, reason = tally.sample[0]
    what = f"{bot_id} failed" if failures == 1 else f"{failures:,} bots failed, the first of this batch {bot_id}"
    allowed = f" ({roll.options.max_failures:,} may fail)" if roll.options.max_failures else ""
    return f"batch {roll.number} of {roll.batches}: {what}{allowed}: {reason}"


def _finish(roll: Roll, wall: float) -> Decision:
    after = replace(roll, phase="finished", deadline=None, ended_at_wall=wall)
    failed = f", {roll.failures:,} of them failing" if roll.failures else ""
    text = f"finished: {roll.moved:,} bot{'s' * (roll.moved != 1)} moved{failed}"
    return Decision(after, (PutInForce(roll.target), *_said(roll, text)))


def _abort(roll: Roll, event: AbortRequested, now: float, wall: float) -> Decision:
    if roll.phase == "returning":
        return Decision(roll)
    keep = event.keep_done or roll.options.keep_done
    aborted = replace(_counted(roll, event.tally), options=replace(roll.options, keep_done=keep))
    if not keep or roll.phase == "moving":
        return _take_back(aborted, event.why, now, wall)
    # A batch that is through and only watched is as good as finished: nothing has to return.
    done = replace(aborted, reason=event.why, number=roll.number + 1, moved=roll.moved + event.tally.bots)
    closed = _close(done, wall)
    return Decision(closed.roll, (*_fall_back(roll), *closed.effects))


def _take_back(roll: Roll, why: str, now: float, wall: float) -> Decision:
    after = replace(roll, phase="returning", reason=why, deadline=now + roll.options.gate_timeout_s)
    return Decision(after, (*_fall_back(roll), *_said(roll, f"is taken back: {why}"), Return(roll.number)))


def _fall_back(roll: Roll) -> tuple[Effect, ...]:
    return () if roll.fallback is None else (PutInForce(roll.fallback),)


def _returned(roll: Roll, now: float, wall: float) -> Decision:
    if roll.number == 1 or roll.options.keep_done:
        return _close(roll, wall)
    number = roll.number - 1
    return Decision(replace(roll, number=number, deadline=now + roll.options.gate_timeout_s), (Return(number),))


def _close(roll: Roll, wall: float) -> Decision:
    kept = roll.number - 1
    after = replace(
        roll,
        phase="stopped" if kept else "taken-back",
        moved=roll.moved if kept else 0,
        deadline=None,
        ended_at_wall=wall,
    )
    text = "was taken back" if not kept else f"was stopped: batches 1 to {kept} keep {short(roll.target)}"
    return Decision(after, _said(roll, text))


def _said(roll: Roll, text: str) -> tuple[Effect, ...]:
    return (Note(f"roll {roll.id} of {roll.template} to {short(roll.target)} {text}"),)
