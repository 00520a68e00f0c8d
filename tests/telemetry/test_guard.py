"""Who is ended for what the samples say: limits that nobody but botd keeps, and the machine's shortage of memory."""

from dataclasses import replace

import pytest

from botd.core.bot import BotState, Spec
from botd.core.events import Condemned
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.relief import PATIENCE_S
from botd.core.settings import MIB, Limits
from botd.telemetry.guard import Guard

LIMITS = Limits(memory_threshold_percent=80.0)


class Figures:
    """What a sampler would say of one bot."""

    def __init__(self, memory, threads, growth=0.0, exact=None):
        self.memory_bytes = memory * MIB
        self.threads = threads
        self.shared_bytes = 0
        self._growth = growth * MIB
        self.exact = self.memory_bytes if exact is None else exact * MIB

    def growth(self):
        return self._growth


class Sampler(dict):
    def __init__(self):
        super().__init__()
        self.stirred = set()

    def exact(self, bot_id, _limit):
        return self[bot_id].exact


class World:
    def __init__(self):
        self.fleet = Fleet()
        self.sampler = Sampler()
        self.percent = 50.0
        self.enforced = {}
        self.told = []
        self.now = 1000.0
        self.guard = Guard(
            self.fleet, self.sampler, lambda bot: self.enforced.get(bot.id, {}), lambda: self.percent, self.told.append
        )

    def bot(self, bot_id, memory=20, threads=1, growth=0.0, exact=None, **spec):
        what = Spec(bot_id, ("run",), "/srv", **spec)
        state = BotState(phase="running", wanted=True, generation=3, pid=1, started_at=0.0)
        self.fleet.add(Bot(what, state, rules_of(what), 0.0))
        self.sampler[bot_id] = Figures(memory, threads, growth, exact)
        self.sampler.stirred.add(bot_id)

    def check(self, limits=LIMITS):
        found = self.guard.check(limits, self.now)
        for bot_id, event in found:
            assert isinstance(event, Condemned) and event.generation == 3
            bot = self.fleet.bots[bot_id]
            self.fleet.set_state(bot, replace(bot.state, phase="stopping", cause=event.cause))
        return {bot_id: event.cause for bot_id, event in found}


@pytest.fixture
def world():
    return World()


def test_what_is_within_its_limits_is_left_alone(world):
    world.bot("a/a", memory=512, threads=512)
    world.bot("a/b", memory=64, memory_bytes=64 * MIB, processes=1)
    assert world.check() == {}


def test_each_watched_limit_has_its_cause(world):
    world.bot("a/memory", memory=513)
    world.bot("a/own", memory=65, memory_bytes=64 * MIB)
    world.bot("a/generous", memory=600, memory_bytes=1024 * MIB)
    world.bot("a/forks", threads=513)
    world.bot("a/few", threads=5, processes=4)
    assert world.check() == {"a/memory": "memory", "a/own": "memory", "a/forks": "processes", "a/few": "processes"}


def test_what_the_kernel_enforces_is_not_watched_as_well(world):
    world.bot("a/memory", memory=513)
    world.bot("a/forks", threads=513)
    world.bot("a/half", memory=513, threads=513)
    world.enforced = {"a/memory": {"memory": "/x"}, "a/forks": {"pids": "/x"}, "a/half": {"pids": "/x", "cpu": "/x"}}
    assert world.check() == {"a/half": "memory"}


def test_shared_pages_are_looked_at_closely_before_anybody_goes(world):
    world.bot("a/forked", memory=900, exact=200)
    assert world.check() == {}


def test_who_has_not_stirred_is_looked_at_again_only_when_the_limits_are_others(world):
    world.bot("a/a", memory=400, threads=40)
    assert world.check() == {}
    assert world.sampler.stirred == set()
    assert world.check(replace(LIMITS, max_processes_per_bot=39)) == {"a/a": "processes"}


def test_who_is_only_starting_is_looked_at_when_it_runs(world):
    world.bot("a/a", memory=600)
    bot = world.fleet.bots["a/a"]
    world.fleet.set_state(bot, replace(bot.state, phase="starting"))
    assert world.check() == {}
    world.fleet.set_state(bot, replace(bot.state, phase="running"))
    assert world.check() == {"a/a": "memory"}


def test_without_a_limit_of_processes_none_are_too_many(world):
    world.bot("a/forks", threads=100_000)
    assert world.check(replace(LIMITS, max_processes_per_bot=None)) == {}


def test_in_a_shortage_one_goes_at_a_time_and_only_while_it_lasts(world):
    world.bot("a/large", memory=500)
    world.bot("a/leaks", memory=100, growth=30)
    world.bot("b/leaks", memory=100, growth=20)
    assert world.check() == {}
    world.percent = 85.0
    assert world.check() == {}
    [told] = world.told
    assert told.startswith("the machine's memory is at 85 % (memoryThreshold 80): starts are refused")
    world.now += PATIENCE_S
    assert world.check() == {"a/leaks": "relief"}
    world.now += 60
    assert world.check() == {}, "the first one has not gone yet"
    world.fleet.set_state(world.fleet.bots["a/leaks"], BotState(phase="backoff", wanted=True, generation=3))
    assert world.check() == {"b/leaks": "relief"}
    world.now += 60
    world.percent = 60.0
    assert world.check() == {}
    assert world.told[-1].endswith("the shortage is over")


def test_who_is_ended_for_its_own_limit_is_relief_enough_for_now(world):
    world.bot("a/leaks", memory=100, growth=30)
    world.bot("a/over", memory=600)
    world.percent = 95.0
    world.check()
    world.now += PATIENCE_S
    assert world.check() == {}, "a/over is on its way out since the first look"
