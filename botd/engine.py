"""The engine: the only place that changes fleet state.

Events come in (from requests, the keeper, time, samples, probes), each is decided by one synchronous
pure call, what was decided is committed, and only then the effects leave. Deciding never awaits, so
no bot waits for another. Time enters as a deadline that stands in a bot's state: the loop sleeps
until the nearest one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from botd.backlog import Backlog, Decided
from botd.contract.errors import BotdError
from botd.core import admission
from botd.core.admission import Refusal
from botd.core.bot import BotState, ChangedBot, NewBot
from botd.core.effects import Effect, Note, Remove
from botd.core.events import OF_A_LIFE, DeadlinePassed, Event, Exited
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.goals import Goal
from botd.core.lifecycle import Context, IllegalEvent, step
from botd.core.settings import Settings
from botd.crash import crash_point
from botd.state.store import Batch, Store, StoredBot, StoredEvent, StoreError
from botd.waiting import Tell, Watch, Watches

log = logging.getLogger("botd.engine")

RETRY_STORE_S = 1.0
"""How often to try again to record what happened when the database could not."""


class Clock(Protocol):
    def boottime(self) -> float: ...
    def wall(self) -> float: ...


def refused(refusal: Refusal) -> BotdError:
    return BotdError(
        refusal.kind,
        refusal.reason,
        hint=refusal.remedy,
        details={"limit": refusal.limit, "value": refusal.value, "used": refusal.used},
    )


class Performer(Protocol):
    """Turns effects into system calls (botd.executor)."""

    def perform(self, bot: Bot, effect: Effect) -> None: ...
    def acknowledge(self, bot_id: str, generation: int) -> None: ...
    def prepare(self, bot: Bot) -> None: ...


def _only_pid(old: BotState, new: BotState) -> bool:
    """The keeper knows every pid and tells it again: not worth a write on the way of every start."""
    return old.pid != new.pid and old.phase == new.phase and replace(old, pid=new.pid) == new


class Engine:
    """`apply` is everything; the rest is time, waiting and telling."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        store: Store,
        clock: Clock,
        boot_id: str,
        chance: Callable[[], float],
        settings: Settings,
        may_start: Callable[[], Refusal | None],
        quota: Callable[[str], Refusal | None] = lambda user: None,
    ) -> None:
        """`may_start`: why no life may begin now; `quota`: why none of this user may."""
        self.fleet = fleet
        self.settings = settings
        self.illegal_events = 0
        self.performer: Performer | None = None
        self.forget: Callable[[Batch, Bot, float], None] = lambda batch, bot, wall: batch.delete_bot(bot.id)
        """How a deletion is recorded, in its transaction."""
        self.on_event: list[Callable[[StoredEvent], None]] = []
        self.on_change: list[Callable[[Bot, BotState], None]] = []
        self.on_removed: list[Callable[[Bot], None]] = []
        self._store = store
        self._clock = clock
        self._boot_id = boot_id
        self._chance = chance
        self._may_start = may_start
        self._quota = quota
        self._watches = Watches(fleet)
        self._backlog = Backlog()
        self._retrying = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    # --- events in ----------------------------------------------------------------------------------

    def request(self, events: Iterable[tuple[str, Event]]) -> None:
        """Events that somebody asked for: on disk when this returns. Raises BotdError, nothing changed then."""
        self._promise(list(events), record_wishes=True)

    def _promise(self, events: list[tuple[str, Event]], *, record_wishes: bool) -> None:
        self.record_backlog()
        decided = self._decide(events)
        try:
            recorded = self._commit(decided, durable=True, record_wishes=record_wishes)
        except BotdError:
            for bot_id, state in decided.before.items():
                self.fleet.set_state(self.fleet.bots[bot_id], state)
            raise
        self._leave(decided, recorded)

    def happened(self, events: Iterable[tuple[str, Event]]) -> None:
        """Events that nobody can take back. They are acted upon also while the database cannot record them."""
        crash_point("botd-event-received")
        decided = self._decide(list(events))
        if not self._backlog:
            try:
                recorded = self._commit(decided, durable=False)
            except BotdError as error:
                log.error("cannot record what happens; it is kept in memory and tried again every second: %s", error)
                self._retry_backlog()
            else:
                self._leave(decided, recorded)
                return
        self._put_off(decided)

    def suspend(self, events: Iterable[tuple[str, Event]]) -> None:
        """Events that end lives because botd ends: what the owners want stays as it is on record."""
        batch = list(events)
        try:
            self._promise(batch, record_wishes=False)
        except BotdError as error:
            # Whoever wants everything down gets it; the keeper's journal has the ends for the next botd.
            log.error("cannot record that everything is stopped: %s", error)
            decided = self._decide(batch)
            self._leave(decided.acted(), [])

    def _put_off(self, decided: Decided) -> None:
        """Act on it now, record it later.

        Safe without a record: a life begins only where the keeper's journal has not seen its number, and an end
        is acknowledged only when it is on record, so the next botd is told of everything that this one did.
        """
        self._backlog.add(decided, self.fleet, self._clock.wall())
        self._leave(decided.acted(), [])

    def _retry_backlog(self) -> None:
        if not self._retrying:
            self._retrying = True
            asyncio.get_running_loop().call_later(RETRY_STORE_S, self._retried)

    def _retried(self) -> None:
        self._retrying = False
        try:
            self.record_backlog()
        except BotdError:
            self._retry_backlog()

    def record_backlog(self) -> None:
        """Record what could not be recorded when it happened. Raises BotdError while it still cannot be."""
        backlog = self._backlog
        if not backlog:
            return
        recorded: list[StoredEvent] = []
        changed = [(bot_id, bot.state) for bot_id in backlog.changed if (bot := self.fleet.get(bot_id)) is not None]

        def write() -> None:
            recorded.clear()
            with self._store.batch(durable=bool(backlog.removed)) as batch:
                batch.save_states(changed, self._boot_id)
                for bot_id, state in changed:
                    if bot_id in backlog.wishes:
                        batch.set_wanted(bot_id, state.wanted)
                self._record_notes(batch, backlog.notes, backlog.removed, recorded, self._clock.wall())

        self._with_room(write)
        self._backlog = Backlog()
        log.info("the database takes writes again; %d events are recorded", backlog.events)
        self._leave(backlog.rest(self.fleet), recorded)

    @property
    def deferred(self) -> int:
        """Events that wait for the database."""
        return self._backlog.events

    def _with_room(self, write: Callable[[], None]) -> None:
        """On a full disk the database's own log may hold the space that is missing."""
        try:
            write()
        except StoreError as error:
            if not error.passes or not self._store.make_room():
                raise
            write()

    def _decide(self, events: list[tuple[str, Event]]) -> Decided:
        """The states in the fleet are the new ones afterwards; nothing is recorded or done yet."""
        out = Decided(len(events))
        now = self._clock.boottime()
        refusals: dict[str, str | None] = {}
        policy, probing = self.settings.restart, self.settings.monitoring.health_checks
        for bot_id, event in events:
            bot = self.fleet.get(bot_id)
            if bot is None:
                if isinstance(event, Exited):
                    out.strays.append((bot_id, event.generation))
                continue
            user = bot.spec.user
            if user not in refusals:
                refusal = self.admission(user)
                refusals[user] = None if refusal is None else refusal.reason
            try:
                context = Context(now, self._chance(), policy, bot.rules, refusals[user], probing)
                decision = step(bot.state, event, context)
            except IllegalEvent as error:
                self.illegal_events += 1
                log.warning("%s: %s", bot_id, error)
                continue
            if decision.state is not bot.state:
                out.before.setdefault(bot_id, bot.state)
                self.fleet.set_state(bot, decision.state)
            for effect in decision.effects:
                if isinstance(effect, Note):
                    # The end of a life and the beginning of the next may be one decision: the note is about the first.
                    life = event.generation if isinstance(event, OF_A_LIFE) else bot.state.generation
                    out.notes.append((bot, effect, life))
                elif isinstance(effect, Remove):
                    out.removed.append(bot)
                else:
                    out.effects.append((bot, effect))
        return out

    def _commit(self, decided: Decided, *, durable: bool, record_wishes: bool = True) -> list[StoredEvent]:
        """Record it: what is to be told of it. Raises BotdError, and then nothing is recorded."""
        before, removed = decided.before, decided.removed
        gone = {bot.id for bot in removed}
        changed = [
            (bot_id, self.fleet.bots[bot_id].state)
            for bot_id, old in before.items()
            if bot_id not in gone and not _only_pid(old, self.fleet.bots[bot_id].state)
        ]
        recorded: list[StoredEvent] = []
        if not (changed or decided.notes or removed):
            return recorded
        wall = self._clock.wall()
        notes = [(bot.id, wall, note, life) for bot, note, life in decided.notes]

        def write() -> None:
            recorded.clear()
            with self._store.batch(durable=durable or bool(removed)) as batch:
                batch.save_states(changed, self._boot_id)
                for bot_id, state in changed:
                    if record_wishes and state.wanted != before[bot_id].wanted:
                        batch.set_wanted(bot_id, state.wanted)
                self._record_notes(batch, notes, removed, recorded, wall)

        crash_point("botd-request-decided" if durable else "botd-event-decided")
        self._with_room(write)
        crash_point("botd-request-committed" if durable else "botd-event-committed")
        return recorded

    def _record_notes(
        self,
        batch: Batch,
        notes: Sequence[tuple[str, float, Note, int]],
        removed: Sequence[Bot],
        recorded: list[StoredEvent],
        wall: float,
    ) -> None:
        gone = {bot.id for bot in removed}
        for bot_id, at, note, life in notes:
            if bot_id not in gone:
                seq = batch.add_event(bot_id, at, note.kind, note.text, life)
                recorded.append(StoredEvent(seq, bot_id, at, note.kind, note.text, life))
        for bot in removed:
            self.forget(batch, bot, wall)
            text = f"{bot.id} was deleted"
            seq = batch.add_event(None, wall, "deleted", text)
            recorded.append(StoredEvent(seq, None, wall, "deleted", text, None))

    def _leave(self, decided: Decided, recorded: list[StoredEvent]) -> None:
        """Act, tell, and wake who waits."""
        performer = self.performer
        assert performer is not None, "the engine is used before it is wired"
        for bot, effect in decided.effects:
            performer.perform(bot, effect)
        for bot_id, generation in decided.strays:
            performer.acknowledge(bot_id, generation)
        for bot in decided.removed:
            self.fleet.remove(bot.id)
            performer.perform(bot, Remove())
            for forget in self.on_removed:
                forget(bot)
        self._tell(recorded)
        for bot_id, old in decided.before.items():
            bot_now = self.fleet.get(bot_id)
            if bot_now is not None:
                for changed in self.on_change:
                    changed(bot_now, old)
            self._watches.look(bot_id)
        self._arm()

    def note(self, bot_id: str | None, kind: str, text: str) -> None:
        """A line of history that comes with no change of state. Lost, with a log line, if it cannot be stored."""
        wall = self._clock.wall()
        bot = self.fleet.get(bot_id) if bot_id else None
        subject, generation = (bot.id, bot.state.generation) if bot else (None, None)
        try:
            with self._store.batch() as batch:
                seq = batch.add_event(subject, wall, kind, text, generation)
        except BotdError as error:
            log.error("cannot record %r: %s", text, error)
            return
        self._tell([StoredEvent(seq, subject, wall, kind, text, generation)])

    # --- time ---------------------------------------------------------------------------------------

    def _arm(self) -> None:
        at = self.fleet.next_deadline()
        if at is None:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_at = at
        self._timer = loop.call_later(max(0.0, at - self._clock.boottime()), self._time_passes)

    def _time_passes(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        due = self.fleet.due(self._clock.boottime())
        if due:
            self.happened([(bot_id, DeadlinePassed(deadline)) for bot_id, deadline in due])
        self._arm()

    def watch(self, goal: Goal, since: dict[str, int], tell: Tell) -> Watch:
        """Call it before the request whose outcome is awaited; see `waiting.Watch`."""
        return self._watches.watch(goal, since, tell)

    # --- bots come and change -----------------------------------------------------------------------

    def admission(self, user: str) -> Refusal | None:
        """Why no bot of this user may start now, or None."""
        return self._may_start() or self._quota(user)

    def admit(self, new: Sequence[NewBot], leaving: Collection[str] = ()) -> None:
        """Nothing, when there is room for these bots once those of `leaving` are gone. Raises as `create` does."""
        adding: Counter[str] = Counter()
        for one in new:
            adding[one.spec.user] += 1
            if one.spec.id in self.fleet.bots:
                raise BotdError(
                    "conflict", f"{one.spec.id} exists already", hint=f"see it: botctl status {one.spec.id}"
                )
        going = Counter(self.fleet.bots[bot_id].spec.user for bot_id in leaving)
        for user, count in adding.items():
            of_user, in_all = self.fleet.count_of(user) - going[user], len(self.fleet) - going.total()
            refusal = admission.admit_bots(self.settings.limits, user, of_user, in_all, count, len(new))
            refusal = refusal or self._quota(user)
            if refusal is not None:
                raise refused(refusal)

    def create(self, new: Sequence[NewBot]) -> list[Bot]:
        """New bots, stopped, all of them or none: on disk when this returns.

        Raises BotdError: limit, naming the limit and its value; conflict; unavailable.
        """
        self.admit(new)
        wall = self._clock.wall()
        bots, recorded = self._insert(new, wall, "created", "created")
        crash_point("botd-create-committed")
        assert self.performer is not None
        for bot in bots:
            self.fleet.add(bot)
            self.performer.prepare(bot)
        crash_point("botd-create-prepared")
        self._tell(recorded)
        return bots

    def restore(
        self, one: NewBot, created_at_wall: float, text: str, also: Callable[[Batch], None], settle: Callable[[], None]
    ) -> Bot:
        """A bot that was deleted, stopped; on disk, with what `also` adds, before `settle` gives it its folders.

        Raises as `create` does, and what `settle` raises: the bot is there then.
        """
        self.admit([one])
        [bot], recorded = self._insert([one], created_at_wall, "undeleted", text, also)
        self.fleet.add(bot)
        self._tell(recorded)
        settle()
        assert self.performer is not None
        self.performer.prepare(bot)
        return bot

    def _insert(
        self,
        new: Sequence[NewBot],
        created_at_wall: float,
        kind: str,
        text: str,
        also: Callable[[Batch], None] = lambda batch: None,
    ) -> tuple[list[Bot], list[StoredEvent]]:
        wall, now = self._clock.wall(), self._clock.boottime()
        bots = [
            Bot(one.spec, BotState(since=now), rules_of(one.spec), created_at_wall, port=one.port, source=one.source)
            for one in new
        ]
        recorded: list[StoredEvent] = []

        def write() -> None:
            recorded.clear()
            with self._store.batch(durable=True) as batch:
                for one, bot in zip(new, bots, strict=True):
                    stored = StoredBot(bot.spec, bot.state, created_at_wall, bot.port, bot.source, self._boot_id)
                    batch.insert_bot(stored, one.secrets)
                    seq = batch.add_event(bot.id, wall, kind, text, 0)
                    recorded.append(StoredEvent(seq, bot.id, wall, kind, text, 0))
                also(batch)

        self._with_room(write)
        return bots, recorded

    def change(
        self, changes: Sequence[ChangedBot], along: Callable[[Batch], Sequence[StoredEvent]] | None = None
    ) -> None:
        """New specifications for existing bots: on disk when this returns. A running life goes on with the old one.

        `along` writes what belongs to the change into the same transaction, and returns the lines of history in it;
        it may be called twice.
        """
        wall = self._clock.wall()
        recorded: list[StoredEvent] = []

        def write() -> None:
            recorded.clear()
            with self._store.batch(durable=True) as batch:
                for one in changes:
                    bot = self.fleet.bots[one.spec.id]
                    batch.update_spec(one.spec, one.secrets)
                    if one.source != bot.source:
                        batch.set_source(bot.id, one.source)
                    if one.port != bot.port:
                        batch.set_port(bot.id, one.port)
                    generation = bot.state.generation
                    seq = batch.add_event(bot.id, wall, "changed", one.text, generation)
                    recorded.append(StoredEvent(seq, bot.id, wall, "changed", one.text, generation))
                if along is not None:
                    recorded.extend(along(batch))

        self._with_room(write)
        crash_point("botd-change-committed")
        for one in changes:
            bot = self.fleet.bots[one.spec.id]
            bot.source, bot.port = one.source, one.port
            self.fleet.set_spec(bot, one.spec)
            for changed in self.on_change:
                changed(bot, bot.state)
        self._tell(recorded)

    def _tell(self, recorded: Sequence[StoredEvent]) -> None:
        for event in recorded:
            for tell in self.on_event:
                tell(event)

    def start(self) -> None:
        """Begin to watch the time."""
        self._arm()
