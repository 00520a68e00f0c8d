"""A simulated world for the core: a machine, a keeper and a line to it that loses, delays and repeats.

The engine's part is played as the engine plays it: the state is committed before effects leave, effects
and messages of a lost connection are gone, and after a gap the keeper tells what it knows. Everything
random comes from one generator, so that a walk can be replayed from its seed.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from botd.core.bot import BotState, Exit, Probe, Spec
from botd.core.effects import Acknowledge, Note, Remove, Spawn, Terminate
from botd.core.events import (
    Adopted,
    Condemned,
    DeadlinePassed,
    DeleteRequested,
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
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.lifecycle import TABLE, Context, IllegalEvent, step
from botd.core.settings import RestartPolicy

from .witness import REQUESTS, Witness

WITH_LIFE = ("starting", "running", "stopping")


@dataclass
class Life:
    """One process as the keeper knows it. `final` is told again and again until it is acknowledged."""

    generation: int
    pid: int
    executed: bool = False
    dying: bool = False
    began: float = 0.0
    final: object = None

    @property
    def alive(self):
        return self.final is None


@dataclass
class Keeper:
    """Of one bot. `asks` are on their way to it, `told` on their way from it, both in order."""

    lives: dict = field(default_factory=dict)
    asks: deque = field(default_factory=deque)
    told: deque = field(default_factory=deque)
    once_told: list = field(default_factory=list)


class World:
    """`act` does one random thing, `calm` lets everything come to rest; both check after every event."""

    def __init__(self, rng, bots=3):
        self.rng = rng
        self.now = 1000.0
        self.policy = RestartPolicy(delay_s=0.5, max_delay_s=3.0, reset_after_s=20.0, max_attempts=4, settle_s=1.0)
        self.calm_down = False
        self.fleet = Fleet()
        self.keepers = {}
        self.witness = Witness()
        self.trace = deque(maxlen=40)
        self.pids = 100
        self.seen = set()
        self.old_deadlines = []
        for number in range(bots):
            self._add(f"alice/bot{number}")

    def _add(self, bot_id):
        spec = Spec(
            bot_id,
            ("bot",),
            "/",
            restart=self.rng.choice(("always", "always", "on-failure", "never")),
            stop_grace_s=self.rng.choice((0.0, 2.0)),
            probe=Probe("tcp", port=1) if self.rng.random() < 0.4 else None,
        )
        self.fleet.add(Bot(spec, BotState(since=self.now), rules_of(spec), 0.0))
        self.keepers.setdefault(bot_id, Keeper())
        self.witness.new_bot(bot_id)

    @staticmethod
    def everything():
        """Each (phase, event) that the table allows: what enough walks must have come to.

        But for Adopted, which takes somebody who puts an older database under a running fleet.
        """
        return {
            (phase, event.__name__)
            for (phase, event), handler in TABLE.items()
            if handler is not None and event is not Adopted
        }

    # --- the engine's part ------------------------------------------------------------------------

    def feed(self, bot_id, event, *, stale=False):
        """One decision, its effects and every check. `stale`: the event may be one that cannot be any more."""
        bot = self.fleet.get(bot_id)
        if bot is None:
            if isinstance(event, (Exited, SpawnFailed)):
                self.keepers[bot_id].asks.append(Acknowledge(event.generation))
            return
        before = bot.state
        refusal = "memory is short" if not self.calm_down and self.rng.random() < 0.1 else None
        context = Context(self.now, self.rng.random(), self.policy, bot.rules, refusal)
        self.trace.append(f"{self.now:9.3f} {bot_id} {before.phase:9} {event}")
        try:
            decision = step(before, event, context)
        except IllegalEvent:
            being_deleted = before.then == "delete" and isinstance(event, REQUESTS)
            assert stale or being_deleted, f"{event} is illegal while {before.phase}"
            return
        self.seen.add((before.phase, type(event).__name__))
        assert step(before, event, context) == decision, "the same question got another answer"
        self.fleet.set_state(bot, decision.state)
        self.trace.append(f"{'':9} -> {decision.state.phase} {[e for e in decision.effects if type(e) is not Note]}")
        if before.deadline is not None:
            self.old_deadlines.append((bot_id, before.deadline))
        self.witness.saw(bot_id, before, event, decision, context)
        for effect in decision.effects:
            self._perform(bot_id, effect)
        self.check()

    def _perform(self, bot_id, effect):
        if isinstance(effect, Remove):
            self.fleet.remove(bot_id)
            self.keepers[bot_id].once_told.clear()
        elif isinstance(effect, (Spawn, Terminate, Acknowledge)):
            self.keepers[bot_id].asks.append(effect)

    def check(self):
        for bot_id, keeper in self.keepers.items():
            alive = [life.generation for life in keeper.lives.values() if life.alive]
            assert len(alive) <= 1, f"{bot_id} has {len(alive)} lives at once: {alive}"
        counted = {phase: number for phase, number in self.fleet.phases.items() if number}
        really = {}
        for bot in self.fleet:
            really[bot.state.phase] = really.get(bot.state.phase, 0) + 1
        assert counted == really

    def check_deadlines(self):
        deadlines = [bot.state.deadline.at for bot in self.fleet if bot.state.deadline]
        assert self.fleet.next_deadline() == min(deadlines, default=None), "the fleet lost sight of a deadline"

    # --- the keeper's part ------------------------------------------------------------------------

    def keeper_hears(self, bot_id):
        keeper = self.keepers[bot_id]
        if not keeper.asks:
            return
        match keeper.asks.popleft():
            case Spawn(generation):
                self._spawn(bot_id, keeper, generation)
            case Terminate(generation, signal, grace_s):
                life = keeper.lives.get(generation)
                if life is not None and life.alive:
                    life.dying = True
                    if signal == "SIGKILL" or grace_s == 0.0:
                        self.end(keeper, life, None, 9)
            case Acknowledge(generation):
                if generation in keeper.lives and not keeper.lives[generation].alive:
                    del keeper.lives[generation]

    def _spawn(self, bot_id, keeper, generation):
        assert generation not in keeper.lives, f"{bot_id}: life {generation} was asked for twice"
        self.witness.began(bot_id, generation)
        chance = 1.0 if self.calm_down else self.rng.random()
        if chance < 0.1:
            keeper.told.append(SpawnRefused(generation, "its lock is held"))
        elif chance < 0.2:
            failed = SpawnFailed(generation, "exec", permanent=self.rng.random() < 0.3)
            keeper.lives[generation] = Life(generation, 0, final=failed)
            keeper.told.append(failed)
        else:
            self.pids += 1
            keeper.lives[generation] = Life(generation, self.pids, began=self.now)
            keeper.told.append(Spawned(generation, self.pids))
            self.check()

    def life_goes_on(self, bot_id):
        """The program is executed, or ends: of itself, or because it was asked to."""
        keeper = self.keepers[bot_id]
        for life in [life for life in keeper.lives.values() if life.alive]:
            if life.dying:
                self.end(keeper, life, *self.rng.choice(((0, None), (None, 15), (1, None))))
            elif not life.executed:
                life.executed = True
                keeper.told.append(Running(life.generation))
            elif not self.calm_down:
                self.end(keeper, life, *self.rng.choice(((0, None), (1, None), (3, None), (None, 11), (None, None))))

    def end(self, keeper, life, code, signal):
        life.final = Exited(life.generation, Exit(code, signal, at_wall=0.0, ran_s=self.now - life.began))
        keeper.told.append(life.final)

    def deliver(self, bot_id):
        keeper = self.keepers[bot_id]
        if keeper.told:
            message = keeper.told.popleft()
            keeper.once_told.append(message)
            self.feed(bot_id, message)

    def line_breaks(self, bot_id):
        """What was under way is lost, both ways; then both sides compare what they know (executor.reconcile)."""
        keeper, bot = self.keepers[bot_id], self.fleet.get(bot_id)
        keeper.asks.clear()
        keeper.told.clear()
        self.trace.append(f"{self.now:9.3f} {bot_id} the line breaks; the keeper has {list(keeper.lives.values())}")
        known = False
        for life in list(keeper.lives.values()):
            mine = bot is not None and bot.state.generation == life.generation
            known = known or mine
            if not life.alive:
                self.feed(bot_id, life.final)
            elif not mine or bot.state.phase not in WITH_LIFE:
                raise AssertionError(f"{bot_id}: life {life.generation} is nobody's")
            else:
                if bot.state.phase == "starting" or (bot.state.phase == "stopping" and bot.state.pid is None):
                    self.feed(bot_id, Spawned(life.generation, life.pid))
                    if life.executed:
                        self.feed(bot_id, Running(life.generation))
                if bot.state.phase == "stopping":
                    keeper.asks.append(Terminate(life.generation, "SIGTERM", 2.0))
        if bot is not None and not known and bot.state.phase in WITH_LIFE:
            generation = bot.state.generation
            assert bot.state.pid is None, f"{bot_id}: life {generation} has a pid and the keeper does not know it"
            if bot.state.phase == "starting":
                keeper.asks.append(Spawn(generation))
            else:
                self.feed(bot_id, Exited(generation, Exit(None, None, at_wall=0.0)))

    def reboot(self):
        """Every process is gone, the clock begins again, nothing is under way."""
        self.trace.append(f"{self.now:9.3f} reboot")
        self.now = self.rng.uniform(1.0, 5.0)
        for keeper in self.keepers.values():
            keeper.lives.clear()
            keeper.asks.clear()
            keeper.told.clear()
        for bot in list(self.fleet):
            self.feed(bot.id, Rebooted())

    # --- time -------------------------------------------------------------------------------------

    def time_passes(self, until):
        self.now = max(self.now, until)
        for bot_id, deadline in self.fleet.due(self.now):
            bot = self.fleet.get(bot_id)
            self.feed(bot_id, DeadlinePassed(deadline))
            if bot.state.deadline == deadline:
                raise AssertionError(f"{bot_id}: {deadline} passed and still stands")

    # --- chance -----------------------------------------------------------------------------------

    def act(self):
        self._act()
        self.check_deadlines()

    def _act(self):
        """Something that can happen to some bot now; what is under way is the likeliest to go on."""
        bot_id = self.rng.choice(list(self.keepers))
        keeper = self.keepers[bot_id]
        lives = [life for life in keeper.lives.values() if life.alive]
        due = self.fleet.next_deadline()
        can = {
            self._request: 2.0,
            self._report: 1.0,
            self._repeat: 0.7,
            self.line_breaks: 0.3,
            self._time_goes_on: 1.0,
            self._times_change: 0.1,
        }
        if keeper.asks:
            can[self.keeper_hears] = 5.0
        if keeper.told:
            can[self.deliver] = 5.0
        if lives:
            can[self.life_goes_on] = 4.0 if self._restless(lives[0]) else 1.0
        if due is not None:
            can[lambda bot_id: self.time_passes(due)] = 2.0
        (deed,) = self.rng.choices(list(can), list(can.values()))
        deed(bot_id)

    def _time_goes_on(self, bot_id):
        self.time_passes(self.now + self.rng.choice((0.01, 0.3, 1.0, 5.0)))

    def _times_change(self, bot_id):
        """For the whole machine: a reboot, or a new configuration."""
        if self.rng.random() < 0.3:
            self.reboot()
        else:
            self.policy = replace(
                self.policy,
                max_attempts=self.rng.choice((0, 1, 4, 10)),
                delay_s=self.rng.choice((0.0, 0.5, 2.0)),
                exponential=self.rng.random() < 0.8,
            )

    def _request(self, bot_id):
        if self.fleet.get(bot_id) is None:
            if not self.keepers[bot_id].lives and not self.keepers[bot_id].asks and not self.keepers[bot_id].told:
                self._add(bot_id)
            return
        wishes = [StartRequested()] * 4 + [StopRequested()] * 2 + [RestartRequested()] * 2
        wishes += [StartRequested(recover=True)] * 2 + [DeleteRequested()]
        self.feed(bot_id, self.rng.choice(wishes))

    def _report(self, bot_id):
        """A probe or a sample, of this life or of one before."""
        bot = self.fleet.get(bot_id)
        if bot is None or bot.state.generation == 0:
            return
        generation = bot.state.generation - (self.rng.random() < 0.2 and bot.state.generation > 1)
        if bot.rules.probed and self.rng.random() < 0.6:
            self.feed(bot_id, HealthReported(generation, self.rng.random() < 0.6))
        else:
            self.feed(bot_id, Condemned(generation, self.rng.choice(("memory", "unhealthy", "quota")), "it must end"))

    def _repeat(self, bot_id):
        """Something that was true once is said again."""
        keeper, bot = self.keepers[bot_id], self.fleet.get(bot_id)
        told_of_now = bot is not None and bot.state.phase in WITH_LIFE
        if keeper.once_told and self.rng.random() < 0.6:
            message = self.rng.choice(keeper.once_told[-8:])
            # The keeper never says of a living process that it ended, nor of a refused one that it lives.
            if not (told_of_now and message.generation == bot.state.generation and not isinstance(message, Spawned)):
                self.feed(bot_id, message, stale=True)
        elif self.old_deadlines:
            self.feed(*self._old_deadline())

    def _old_deadline(self):
        bot_id, deadline = self.rng.choice(self.old_deadlines[-8:])
        return bot_id, DeadlinePassed(deadline)

    # --- rest -------------------------------------------------------------------------------------

    def calm(self, rounds=200):
        """No more mischief: everything under way arrives, time passes, and it ends where it should."""
        self.calm_down = True
        for bot_id in self.keepers:
            self.line_breaks(bot_id)
        for _ in range(rounds):
            busy = False
            for bot_id, keeper in self.keepers.items():
                while keeper.asks or keeper.told or any(self._restless(life) for life in keeper.lives.values()):
                    busy = True
                    self.keeper_hears(bot_id)
                    self.life_goes_on(bot_id)
                    self.deliver(bot_id)
            for bot in list(self.fleet):
                if bot.rules.probed and bot.state.phase == "running" and bot.state.health != "healthy":
                    self.feed(bot.id, HealthReported(bot.state.generation, healthy=True))
            due = self.fleet.next_deadline()
            if due is None and not busy:
                break
            if due is not None:
                self.time_passes(due)
        self._at_rest()

    @staticmethod
    def _restless(life):
        return life.alive and (life.dying or not life.executed)

    def _at_rest(self):
        assert self.fleet.next_deadline() is None, "time still brings something about"
        for bot_id, keeper in self.keepers.items():
            bot = self.fleet.get(bot_id)
            lives = list(keeper.lives.values())
            if bot is None or bot.state.phase in ("stopped", "failed"):
                assert lives == [], f"{bot_id}: something of it is left: {lives}"
                continue
            state = bot.state
            assert state.phase == "running", f"{bot_id} rests while {state.phase}"
            assert [life.generation for life in lives] == [state.generation]
            assert lives[0].alive and lives[0].pid == state.pid
            assert (state.settled, state.recovering, state.outage_at, state.attempts) == (True, False, None, 0)
            assert state.health == "healthy"
