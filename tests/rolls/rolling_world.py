"""A whole daemon without processes: the real engine, store and rolls over simulated lives, time and crashes.

A crash is kill -9, or a power cut, at one of the places that the code names: whatever was in memory is gone, and a new
daemon is made from the database file and from what the simulated keeper knows. All chance comes from one generator.
"""

import asyncio
import heapq
import itertools
import math
from dataclasses import dataclass, replace

from botd import engine as engine_module
from botd import rolling as rolling_module
from botd.contract.errors import BotdError
from botd.core import roll as rolls
from botd.core.bot import Exit, NewBot, Probe, Spec
from botd.core.effects import Acknowledge, Remove, Spawn, Terminate
from botd.core.events import (
    DeleteRequested,
    Exited,
    HealthReported,
    Rebooted,
    RestartRequested,
    Running,
    Spawned,
    SpawnRefused,
    StartRequested,
    StopRequested,
)
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import RestartPolicy, Settings
from botd.engine import Engine
from botd.rolling import Rolling
from botd.state import batch as batch_module
from botd.state import rolls as records
from botd.state import templates
from botd.state.store import Store

GOOD, OLD, BAD = "a" * 64, "b" * 64, "c" * 64
"""Releases: bots of BAD crash as soon as they run."""


class Crash(BaseException):
    """kill -9."""


class Loop:
    """As much of an event loop as the engine and the rolls use, over a clock that is set by hand."""

    def __init__(self, clock):
        self._clock, self._ready, self._later, self._order = clock, [], [], itertools.count()

    def call_soon(self, callback, *args):
        handle = Handle(callback, args)
        self._ready.append(handle)
        return handle

    def call_later(self, delay, callback, *args):
        handle = Handle(callback, args)
        # Here time stands still while something is done: what is later is later, however little.
        at = max(self._clock.now + delay, math.nextafter(self._clock.now, math.inf)) if delay > 0 else self._clock.now
        heapq.heappush(self._later, (at, next(self._order), handle))
        return handle

    def run(self):
        """Everything that is due."""
        turns = 0
        while self._ready or (self._later and self._later[0][0] <= self._clock.now):
            if not self._ready:
                self._ready.append(heapq.heappop(self._later)[2])
            turns += 1
            assert turns < 10_000, "the loop spins"
            handle = self._ready.pop(0)
            if not handle.cancelled:
                handle.callback(*handle.args)


@dataclass
class Handle:
    callback: object
    args: tuple
    cancelled: bool = False

    def cancel(self):
        self.cancelled = True


class Clock:
    now = 1000.0

    def boottime(self):
        return self.now

    def wall(self):
        return 1_700_000_000.0 + self.now


class Catalogue:
    """Releases that say nothing of their bots. Of `lost` ones nothing is known."""

    lost = ()

    def __init__(self, store):
        self._store = store

    def find(self, name):
        return templates.template(self._store, name)

    def get(self, name):
        found = self.find(name)
        if found is None:
            raise BotdError("not_found", f"there is no template {name!r}")
        return found

    def facts(self, name, release):
        if release in self.lost:
            raise BotdError("not_found", f"there is no release {release}")
        return release

    def moved(self, spec, facts):
        return replace(spec, release=facts)


@dataclass
class Life:
    """One process as the keeper knows it."""

    generation: int
    release: str
    phase: str = "gate"
    """gate, running, dead"""
    dying: bool = False
    told: bool = False


class World:
    def __init__(self, path, rng, monkeypatch, bots=7):
        self.path, self.rng, self.clock = path, rng, Clock()
        self.lives = {}
        self.crash_in = None
        self.crashes = self.reboots = 0
        self.errors = 0
        self.ever = {}
        self.judged = set()
        self.put_back = set()
        """Bots whose release somebody else changed."""
        self.moved = set()
        self.before = {}
        self.moved_at = 0.0
        self.through = set()
        for module in (engine_module, rolling_module, batch_module):
            monkeypatch.setattr(module, "crash_point", self._point)
        monkeypatch.setattr(Store, "watch", lambda store: None)
        self.transitions = set()
        self._step = rolls.step
        monkeypatch.setattr(rolls, "step", self._stepped)
        self._boot()
        with self.store.batch(durable=True) as batch:
            templates.put(batch, templates.StoredTemplate("echo", OLD, None, None, 0.0))
        for number in range(bots):
            self.create(f"alice/b{number}", start=rng.random() < 0.8)

    @property
    def boot(self):
        return f"boot{self.reboots}"

    # --- the daemon -------------------------------------------------------------------------------------

    def _boot(self):
        self.loop = Loop(self.clock)
        asyncio._set_running_loop(self.loop)
        self.store = Store.open(self.path, self.boot)
        self.fleet = Fleet()
        self.engine = Engine(
            fleet=self.fleet,
            store=self.store,
            clock=self.clock,
            boot_id=self.boot,
            chance=self.rng.random,
            settings=replace(Settings(), restart=RestartPolicy(1.0, 4.0, 30.0, 3, settle_s=1.0)),
            may_start=lambda: None,
        )
        self.engine.performer = self
        self.engine.on_change.append(lambda bot, before: self._watch(bot.id))
        self.engine.on_removed.append(lambda bot: self.through.add(bot.id))
        self.rolling = Rolling(
            engine=self.engine,
            store=self.store,
            clock=self.clock,
            catalogue=Catalogue(self.store),
            choose_port=lambda chosen: 20000,
        )
        self._engine_change, self.engine.change = self.engine.change, self._record
        rebooted = []
        for stored in self.store.load():
            spec = stored.spec
            self.fleet.add(Bot(spec, stored.state, rules_of(spec), stored.created_at_wall, stored.port, stored.source))
            if stored.boot_id not in ("", self.boot):
                rebooted.append(spec.id)
            self._watch(spec.id)  # the news of what was committed last died with the one before
        for life in (one for lives in self.lives.values() for one in lives.values()):
            life.told = False
        self.engine.happened([(bot_id, Rebooted()) for bot_id in rebooted])
        self._reconcile()
        self.engine.start()
        self.rolling.resume()

    def _reconcile(self):
        """What the keeper knows, told to a daemon that has just come; lives that it never heard of were not begun."""
        for bot in list(self.fleet):
            state, lives = bot.state, self.lives.get(bot.id, {})
            life = lives.get(state.generation)
            if state.phase in ("starting", "running", "stopping"):
                if life is None:
                    assert state.phase != "running"
                    self.engine.happened([(bot.id, SpawnRefused(state.generation, "it was lost on the way"))])
                else:
                    self._report(bot.id, life)

    def _point(self, name):
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                raise Crash(name)

    def _stepped(self, roll, event, *clocks):
        decision = self._step(roll, event, *clocks)
        if decision.effects:
            self.transitions.add((roll.phase if roll.number else "", decision.roll.phase))
        return decision

    def guarded(self, act):
        """Do it; after a crash come up again. Whether it was done."""
        try:
            act()
            self.loop.run()
        except Crash:
            self.crashes += 1
            # The file as kill -9 leaves it: what was not committed is not there.
            self.store._connection.close()
            if self.rng.random() < 0.2:
                self.reboots += 1
                self.lives.clear()
            # Another crash on the way up is a crash as well.
            self.guarded(self._boot)
            return False
        self.check()
        return True

    # --- the performer's part ---------------------------------------------------------------------------

    def prepare(self, bot):
        pass

    def acknowledge(self, bot_id, generation):
        self.lives.get(bot_id, {}).pop(generation, None)

    def perform(self, bot, effect):
        lives = self.lives.setdefault(bot.id, {})
        match effect:
            case Spawn(generation):
                assert all(life.phase == "dead" for life in lives.values()), f"{bot.id} is started twice"
                if generation not in lives:
                    lives[generation] = Life(generation, bot.spec.release)
            case Terminate(generation):
                if generation in lives:
                    lives[generation].dying = True
            case Acknowledge(generation):
                lives.pop(generation, None)
            case Remove():
                self.lives.pop(bot.id, None)

    def _report(self, bot_id, life):
        bot = self.fleet.get(bot_id)
        if bot is None or life.generation != bot.state.generation:
            return
        events = []
        if bot.state.phase in ("starting", "stopping") and life.phase != "gate" and not life.told:
            events += [Spawned(life.generation, 77), Running(life.generation)]
        life.told = True
        if life.phase == "dead":
            events.append(Exited(life.generation, Exit(1, None, self.clock.wall(), 0.1)))
        if events:
            self.engine.happened([(bot_id, event) for event in events])

    def step_life(self, bot_id, life):
        bot = self.fleet.get(bot_id)
        if life.phase == "gate" and life.dying:
            life.phase = "dead"
        elif life.phase == "gate":
            life.phase, life.told = "running", False
        elif life.phase == "running" and (life.dying or (life.release == BAD and self.rng.random() < 0.7)):
            life.phase = "dead"
        elif life.phase == "running" and bot is not None and bot.spec.probe and bot.state.generation == life.generation:
            well = life.release != BAD
            self.engine.happened([(bot_id, HealthReported(life.generation, well))])
            return
        self._report(bot_id, life)

    # --- what people do ---------------------------------------------------------------------------------

    def create(self, bot_id, start=True):
        release = templates.templates(self.store)["echo"].release
        probe = Probe("tcp", port=1) if self.rng.random() < 0.4 else None
        spec = Spec(bot_id, ("bot",), "/", template="echo", release=release, probe=probe)
        self.ever[bot_id] = True
        self.engine.create([NewBot(spec, {}, None, None)])
        if start:
            self.engine.request([(bot_id, StartRequested())])

    def act(self):
        roll = self.rng.random()
        if roll < 0.05:
            self.crash_in = self.rng.randrange(1, 12)
        if roll < 0.12:
            self.guarded(self._somebody)
        elif roll < 0.45:
            self.guarded(lambda: self.pass_time(self.rng.choice((0.1, 0.5, 2.0, 8.0))))
        else:
            self.guarded(self._something_lives)

    def _something_lives(self):
        alive = [(bot_id, life) for bot_id, lives in self.lives.items() for life in list(lives.values())]
        if alive:
            self.step_life(*self.rng.choice(alive))

    def _somebody(self):
        bot_id = self.rng.choice(sorted(self.fleet.bots)) if self.fleet.bots else None
        what = self.rng.choice(("start", "stop", "restart", "delete", "create", "abort", "begin"))
        if what == "create":
            self.create(f"alice/c{len(self.ever)}", start=self.rng.random() < 0.8)
        elif what == "abort":
            self._tried(lambda: self.rolling.abort("echo", "somebody wanted so", keep_done=self.rng.random() < 0.3))
        elif what == "begin":
            self._tried(lambda: self.begin(self.rng.choice((GOOD, OLD, BAD))))
        elif bot_id is not None:
            event = {"start": StartRequested, "stop": StopRequested, "restart": RestartRequested}.get(what)
            event = event or (DeleteRequested if self.rng.random() < 0.3 else StopRequested)
            if not (self.fleet.bots[bot_id].state.then == "delete" and event is not DeleteRequested):
                self.engine.request([(bot_id, event())])

    def begin(self, target, **options):
        options = {
            "batch": self.rng.choice(("2", "34%", "100%")),
            "canary": self.rng.choice((0, 1)),
            "max_failures": self.rng.choice((0, 0, 2)),
            "gate_timeout_s": 20.0,
            "pause_s": self.rng.choice((0.0, 3.0)),
            "keep_done": self.rng.random() < 0.2,
            **options,
        }
        return self.rolling.begin("echo", target, rolling_module.Options(**options))

    def _tried(self, act):
        try:
            act()
        except BotdError as error:
            assert error.kind in ("conflict", "not_found"), error
            self.errors += 1

    def pass_time(self, seconds):
        self.clock.now += seconds

    # --- what must hold ---------------------------------------------------------------------------------

    def check(self):
        """At every moment: memory is what the file says, and one batch is in motion at most."""
        on_record = {bot.spec.id: bot.spec for bot in self.store.load()}
        assert on_record == {bot.id: bot.spec for bot in self.fleet}, "what was recorded is not what is"
        stored = records.open_rolls(self.store)
        assert len(stored) <= 1
        assert [one.roll.id for one in stored] == [motion.roll.id for motion in self.rolling._open.values()]
        for roll in records.recent(self.store, "echo"):
            if not roll.open and roll.id not in self.judged:
                self.judged.add(roll.id)
                self._judge(roll)
        for one in stored:
            motion = self.rolling._open["echo"]
            assert replace(one.roll, deadline=None) == replace(motion.roll, deadline=None)
            assert one.batches == motion.batches
            self._one_batch_in_motion(motion)

    def _one_batch_in_motion(self, motion):
        """Whoever has the target, or had it, belongs to a batch that moved; batches that come have not been touched."""
        roll = motion.roll
        for number, marks in motion.batches.items():
            for bot_id, mark in marks.items():
                bot = self.fleet.get(bot_id)
                if bot is None or bot_id in self.put_back:
                    continue
                back = roll.phase == "returning" and number >= roll.number
                assert bot.spec.release == (mark.former if back else roll.target), (roll, bot_id)
        assert max(motion.batches, default=0) >= roll.number
        if roll.phase in ("moving", "watching"):
            assert max(motion.batches, default=0) == roll.number

    def _judge(self, roll):
        """A roll has just ended: is everything where it says?"""
        have = {bot.spec.release for bot in self.fleet}
        if roll.phase == "finished":
            assert have <= {roll.target}
            assert templates.templates(self.store)["echo"].release == roll.target
        elif roll.phase == "taken-back":
            mine = {bot_id for bot_id, number in self.moved if number == roll.id}
            left = {bot.id for bot in self.fleet if bot.id in mine and bot.spec.release == roll.target}
            assert not left, f"{left} still have the release that was taken back"
        else:
            assert roll.options.keep_done

    def _record(self, changes, along):
        """Stands before the engine's own `change`: the batch in motion must be decided before another one moves."""
        moving = [one.spec.id for one in changes if "batch" in one.text]
        back = [one.spec.id for one in changes if "taken back" in one.text]
        [(roll, batch)] = [(motion.roll, motion.gate.marks) for motion in self.rolling._open.values()]
        number = roll.id
        if roll.number and (moving or (back and roll.phase == "returning")) and self.clock.now < self.moved_at + 20.0:
            waited_for = (set(batch) & self.fleet.bots.keys()) - self.through
            assert not waited_for, f"{roll.phase}: {waited_for} of the batch in motion were not through"
        try:
            self._engine_change(changes, along)
        finally:
            if changes and self._committed(changes[0].spec):
                self.moved |= {(bot_id, number) for bot_id in moving}
                self.moved_at = self.clock.now
                self.before = {one.spec.id: self.fleet.bots[one.spec.id].state.generation for one in changes}
                self.through = {bot_id for bot_id in self.before if not self.fleet.bots[bot_id].state.wanted}

    def _committed(self, spec):
        """A crash may have come before or after the commit."""
        if self.store._connection.in_transaction:
            return False
        [(text,)] = self.store.rows("SELECT spec FROM desired WHERE id = ?", (spec.id,))
        return f'"release":"{spec.release}"' in text

    def _watch(self, bot_id):
        """Whether a bot that was moved is well on its new release, or certainly not; or nobody's business any more."""
        state = self.fleet.bots[bot_id].state
        anew = state.generation > self.before.get(bot_id, 0)
        ill = state.phase in ("failed", "backoff") or state.then == "retry" or state.health == "unhealthy"
        if not state.wanted or (anew and (ill or (state.phase == "running" and state.settled))):
            self.through.add(bot_id)

    def calm(self):
        """Nobody does anything more and nothing dies: the open roll ends, and what runs is what is on record."""
        self.crash_in = None
        for _ in range(4000):
            if not self.rolling._open and self._rested():
                break
            self.go_on()
        assert not self.rolling._open, "the roll never ended"
        for bot_id, lives in self.lives.items():
            bot = self.fleet.get(bot_id)
            for life in lives.values():
                if life.phase == "running" and bot.state.generation == life.generation:
                    assert life.release == bot.spec.release, f"{bot_id} runs another release than the one on record"

    def go_on(self):
        """Every life does what it does next, and half a second passes."""
        for bot_id, lives in list(self.lives.items()):
            for life in list(lives.values()):
                self.guarded(lambda bot_id=bot_id, life=life: self.step_life(bot_id, life))
        self.guarded(lambda: self.pass_time(0.5))

    def _rested(self):
        return all(bot.state.phase in ("running", "stopped", "failed") for bot in self.fleet)

    def releases(self):
        return {bot.id: bot.spec.release for bot in self.fleet}

    def rolls(self):
        return records.recent(self.store, "echo")

    def last(self):
        return records.recent(self.store, "echo")[0]

    def close(self):
        asyncio._set_running_loop(None)
        self.store.close()
