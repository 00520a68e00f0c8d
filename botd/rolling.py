"""Rolls in the running daemon: what `core.roll` decides is recorded and done, and what the bots do is told to it.

A step and the specifications that it changes are one transaction; the new lives follow from the record (`_kick`), now
or after a crash. A change of a bot costs one look-up here, and nothing at all when its batch is not in motion.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from botd.catalogue import Catalogue
from botd.contract.errors import BotdError
from botd.core import gate as gates
from botd.core import roll as rolls
from botd.core.bot import BotState
from botd.core.events import RestartRequested
from botd.core.fleet import Bot
from botd.core.gate import Gate, Mark
from botd.core.roll import Decision, Options, PutInForce, Roll, short
from botd.core.words import spoken
from botd.crash import crash_point
from botd.engine import Clock, Engine
from botd.roll_steps import Steps
from botd.roll_view import view
from botd.state import rolls as records
from botd.state.store import Store

log = logging.getLogger("botd.rolling")

RETRY_S = 1.0
"""How soon to try again what the database could not record."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Motion:
    """An open roll: its state, the batch in motion, and who waits for news."""

    roll: Roll
    gate: Gate = field(default_factory=lambda: Gate({}))
    batches: dict[int, dict[str, Mark]] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)
    refused: set[str] = field(default_factory=set)
    """Bots that could not be moved; they are not tried again."""
    kicked: bool = False
    """The bots of the batch in motion were asked for new lives."""
    stuck: bool = False
    """The database takes nothing; the log says so."""
    news: list[tuple[str, str]] = field(default_factory=list)
    looking: asyncio.Handle | None = None
    timer: asyncio.TimerHandle | None = None
    tells: set[Tell] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Rolling:
    """All rolls that are open, at most one of a template.

    `choose_port`: as `Services.choose_port`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        catalogue: Catalogue,
        choose_port: Callable[[set[int]], int],
    ) -> None:
        self._engine = engine
        self._fleet = engine.fleet
        self._store = store
        self._clock = clock
        self._catalogue = catalogue
        self._steps = Steps(engine.fleet, clock, catalogue, choose_port)
        self._open: dict[str, _Motion] = {}
        self._of_bot: dict[str, _Motion] = {}
        """By bot: the roll whose batch in motion it is in."""
        self._closed = False
        engine.on_change.append(self._changed)
        engine.on_removed.append(lambda bot: self._see(bot.id, None))

    # --- from outside -----------------------------------------------------------------------------------

    def begin(self, template: str, target: str, options: Options, *, at_once: bool = False) -> dict[str, Any]:
        """Move every bot of `template` to the release `target`. `at_once`: new bots get it from now on, too.

        The roll as it travels. Raises BotdError: not_found, conflict (another one of it is open), unavailable.
        """
        self.refuse_open(template)
        stored = self._catalogue.get(template)
        self._catalogue.facts(template, target)
        fallback = stored.previous if stored.release == target else stored.release if at_once else None
        number = records.next_id(self._store)
        roll = Roll(number, template, target, fallback, options, self._clock.wall(), 0)
        motion = _Motion(roll)
        motion.waiting = self._waiting(motion)
        now, wall = self._clock.boottime(), self._clock.wall()
        decision = rolls.step(roll, rolls.Begun(len(motion.waiting)), now, wall)
        if at_once and decision.roll.open:
            decision = replace(decision, effects=(PutInForce(target), *decision.effects))
        self._open[template] = motion
        try:
            self._take(motion, decision)
        except BaseException:
            del self._open[template]
            raise
        self._look_soon(motion)
        return self._view(motion)

    def abort(self, template: str, why: str, *, keep_done: bool = False) -> dict[str, Any]:
        """Take the open roll of a template back. Raises BotdError: not_found, unavailable."""
        motion = self._open.get(template)
        if motion is None:
            hint = f"see what was: botctl template rolls {template}"
            raise BotdError("not_found", f"no roll of template {template!r} is open", hint=hint)
        event = rolls.AbortRequested(why, motion.gate.tally, keep_done)
        self._take(motion, rolls.step(motion.roll, event, self._clock.boottime(), self._clock.wall()))
        self._look_soon(motion)
        return self._view(motion)

    def refuse_open(self, template: str) -> None:
        """Raise BotdError(conflict) while a roll of this template is open."""
        motion = self._open.get(template)
        if motion is not None:
            roll = motion.roll
            raise BotdError(
                "conflict",
                f"a roll of template {template!r} to {short(roll.target)} is open: "
                f"{roll.phase}, batch {roll.number} of {roll.batches}",
                hint=f"wait for it, or take it back: botctl template abort {template}",
            )

    def needed(self) -> dict[tuple[str, str], str]:
        """(template, release) -> why it must stay, of all that an open roll may still have to give to a bot."""
        out = {}
        for name, motion in self._open.items():
            formers = {mark.former for marks in motion.batches.values() for mark in marks.values()}
            for release in {motion.roll.target, motion.roll.fallback or motion.roll.target, *formers}:
                out[name, release] = f"roll {motion.roll.id} is open"
        return out

    def views(self, template: str | None = None) -> list[dict[str, Any]]:
        """The rolls of one template or of all, newest first, as they travel."""
        out = []
        for roll in records.recent(self._store, template):
            motion = self._open.get(roll.template)
            ours = motion is not None and motion.roll.id == roll.id
            out.append(self._view(motion) if ours and motion else view(roll))
        return out

    async def follow(self, template: str, tell: Tell) -> None:
        """Wait for the end of the open roll of a template, if there is one, told on the way of all that happens."""
        motion = self._open.get(template)
        if motion is None:
            return
        motion.tells.add(tell)
        try:
            tell(self._view(motion))
            await motion.over.wait()
        finally:
            motion.tells.discard(tell)

    def resume(self) -> None:
        """Go on with what an earlier botd left."""
        now, wall = self._clock.boottime(), self._clock.wall()
        for stored in records.open_rolls(self._store):
            roll = rolls.step(stored.roll, rolls.Resumed(), now, wall).roll
            motion = self._open[roll.template] = _Motion(roll, batches=stored.batches)
            motion.waiting = self._waiting(motion)
            self._set_gate(motion, stored.batches.get(roll.number, {}))
            self._look_soon(motion)

    def close(self) -> None:
        """Decide nothing more: botd ends, and the next one goes on."""
        self._closed = True
        for motion in self._open.values():
            for handle in (motion.looking, motion.timer):
                if handle is not None:
                    handle.cancel()

    # --- what bots do -----------------------------------------------------------------------------------

    def _changed(self, bot: Bot, before: BotState) -> None:
        self._see(bot.id, bot)

    def _see(self, bot_id: str, bot: Bot | None) -> None:
        motion = self._of_bot.get(bot_id)
        if motion is None or self._closed:
            return
        verdict = motion.gate.look(bot_id, self._state(motion, bot_id, bot))
        if verdict is not None:
            if not verdict.ok:
                motion.news.append((bot_id, verdict.reason))
            self._look_soon(motion)

    @staticmethod
    def _state(motion: _Motion, bot_id: str, bot: Bot | None) -> BotState | None:
        """None when the bot is gone, or has a release that this roll did not give it."""
        if bot is None or bot.spec.template != motion.roll.template:
            return None
        returning = motion.roll.phase == "returning"
        ours = motion.gate.marks[bot_id].former if returning else motion.roll.target
        return bot.state if bot.spec.release == ours else None

    def _waiting(self, motion: _Motion) -> deque[str]:
        """Who has still to move: those that run first, because a stopped bot proves nothing."""
        roll = motion.roll
        # Whoever was moved and has another release again owes it to somebody's apply, and is moved once more.
        found = (
            bot
            for bot in self._fleet
            if bot.spec.template == roll.template and bot.spec.release != roll.target and bot.id not in motion.refused
        )
        order = {"up": 0, "ill": 1, "down": 2}
        return deque(bot.id for bot in sorted(found, key=lambda bot: (order[gates.mark("", bot.state).was], bot.id)))

    # --- deciding ---------------------------------------------------------------------------------------

    def _look_soon(self, motion: _Motion) -> None:
        if motion.looking is None and not self._closed:
            motion.looking = asyncio.get_running_loop().call_soon(self._look, motion)

    def _look(self, motion: _Motion) -> None:
        motion.looking = None
        if self._closed or not motion.roll.open:
            return
        try:
            if not motion.kicked:
                self._kick(motion)
            self._decide(motion)
            motion.stuck = False
        except BotdError as error:
            if not motion.stuck:
                log.error("roll %d of %s waits: %s", motion.roll.id, motion.roll.template, error)
            motion.stuck = True
            self._arm(motion, RETRY_S)

    def _decide(self, motion: _Motion) -> None:
        now, wall, gate = self._clock.boottime(), self._clock.wall(), motion.gate
        deadline = motion.roll.deadline
        if motion.roll.phase != "watching" and deadline is not None and deadline <= now and gate.open:
            reason = f"it does not run well {spoken(motion.roll.options.gate_timeout_s)} after it was moved"
            motion.news += ((bot_id, reason) for bot_id in gate.expire(reason))
        for bot_id, reason in motion.news:
            back = ", on the way back" if motion.roll.phase == "returning" else ""
            self._engine.note(bot_id, "roll", f"{self._words(motion)}{back}: failed: {reason}")
        motion.news.clear()
        if not gate.open and not motion.waiting and motion.roll.phase != "returning":
            motion.waiting = self._waiting(motion)  # whoever came meanwhile got the release that was in force
        decision = rolls.step(motion.roll, rolls.Looked(gate.tally, len(motion.waiting)), now, wall)
        if decision.roll is not motion.roll:
            self._take(motion, decision)
            self._look_soon(motion)
        for tell in tuple(motion.tells):
            tell(self._view(motion))
        if motion.roll.open and motion.roll.deadline is not None:
            self._arm(motion, motion.roll.deadline - now)

    def _arm(self, motion: _Motion, delay_s: float) -> None:
        if motion.timer is not None:
            motion.timer.cancel()
        if not self._closed:
            motion.timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._look_soon, motion)

    # --- doing ------------------------------------------------------------------------------------------

    def _take(self, motion: _Motion, decision: Decision) -> None:
        """Record a decision with all that it changes, then do it. Raises BotdError, and then nothing is changed."""
        step = self._steps.plan(decision, motion.waiting, motion.batches)
        crash_point("botd-roll-decided")
        self._engine.change(step.changes, along=lambda batch: self._steps.write(batch, step))
        crash_point("botd-roll-recorded")
        motion.roll = decision.roll
        for _ in range(step.taken):
            motion.waiting.popleft()
        if step.marks is not None:
            motion.batches[decision.roll.number] = step.marks
            self._set_gate(motion, step.marks)
            for bot_id, reason in step.refused.items():
                motion.refused.add(bot_id)
                motion.gate.refuse(bot_id, reason)
                motion.news.append((bot_id, reason))
        if not motion.roll.open:
            self._end(motion)

    def _set_gate(self, motion: _Motion, marks: dict[str, Mark]) -> None:
        for bot_id in motion.gate.marks:
            self._of_bot.pop(bot_id, None)
        motion.gate, motion.kicked = Gate(marks), False
        self._of_bot.update(dict.fromkeys(marks, motion))

    def _kick(self, motion: _Motion) -> None:
        """New lives for the bots of the batch that still have the old one, and a look at all of them."""
        found = [(bot_id, mark, self._fleet.get(bot_id)) for bot_id, mark in motion.gate.marks.items()]
        why = f"{self._words(motion)}: it gets another release"
        old = [
            bot_id
            for bot_id, mark, bot in found
            if bot is not None
            and self._state(motion, bot_id, bot) is not None
            and gates.needs_new_life(mark, bot.state)
        ]
        if old:
            self._engine.request([(bot_id, RestartRequested(why)) for bot_id in old])
        crash_point("botd-roll-kicked")
        motion.kicked = True
        for bot_id, _, _ in found:
            self._see(bot_id, self._fleet.get(bot_id))

    def _end(self, motion: _Motion) -> None:
        del self._open[motion.roll.template]
        for bot_id in motion.gate.marks:
            self._of_bot.pop(bot_id, None)
        if motion.timer is not None:
            motion.timer.cancel()
        motion.over.set()

    # --- words ------------------------------------------------------------------------------------------

    @staticmethod
    def _words(motion: _Motion) -> str:
        return f"roll {motion.roll.id}, batch {motion.roll.number} of {motion.roll.batches}"

    @staticmethod
    def _view(motion: _Motion) -> dict[str, Any]:
        roll, tally = motion.roll, motion.gate.tally
        out = view(roll)
        if roll.phase == "returning":
            out["moved"] = sum(len(marks) for number, marks in motion.batches.items() if number < roll.number)
        elif roll.open:
            out["moved"] += tally.bots - tally.open
            out["failed"] += tally.failures
            out["failures"] += [{"id": bot_id, "reason": reason} for bot_id, reason in tally.sample]
        return out
