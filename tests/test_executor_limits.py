"""Limits on their way to the keeper, and its words about ends that had to do with them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from botd.contract.paths import Paths
from botd.core.bot import BotState, Spec
from botd.core.effects import Remove, Spawn
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import MIB, Settings
from botd.executor import Executor
from botd.keeper.client import Held, KeeperLost
from botd.recycling import Recycler
from botd.storage import folders

BOT = "alice/shop"


class Keeper:
    def __init__(self):
        self.held = {}
        self.said = []
        self.away = False

    later = frozenset()

    def start(self, spec):
        self.said.append(("start", spec["id"], spec["gen"], spec["limits"]))

    def limits(self, bot_id, generation, limits):
        if self.away:
            raise KeeperLost("there is no connection to the keeper")
        self.said.append(("limits", bot_id, generation, limits))

    def stop(self, *_):
        raise AssertionError("nobody is to be stopped")

    def forget(self, *_):
        raise KeeperLost("there is no connection to the keeper")


class Clock:
    def boottime(self):
        return 500.0

    def wall(self):
        return 1_700_000_000.0


class House:
    def __init__(self, home):
        self.fleet, self.keeper, self.settings, self.events = Fleet(), Keeper(), Settings(), []
        paths = Paths(home)
        folders.prepare_home(paths)
        self.executor = Executor(
            fleet=self.fleet,
            store=None,
            keeper=self.keeper,
            paths=paths,
            clock=Clock(),
            environ={},
            settings=lambda: self.settings,
            report=self.events.extend,
            recycler=Recycler(store=lambda: None, paths=paths, settings=lambda: self.settings),
            provisioner=None,
        )

    def bot(self, bot_id=BOT, *, alive=True, **spec):
        what = Spec(bot_id, ("run",), "/srv", **spec)
        running = BotState(phase="running", wanted=True, generation=7, pid=4711, started_at=400.0)
        state = running if alive else BotState()
        bot = Bot(what, state, rules_of(what), 0.0)
        self.fleet.add(bot)
        if alive:
            self.keeper.held[bot_id, 7] = Held({"folders": {"memory": "/m", "pids": "/p"}}, {})
        return bot

    def exit(self, **more):
        message = {"op": "exited", "id": BOT, "gen": 7, "code": None, "signal": 9, "exact": True, **more}
        self.executor.heard([message])
        [(bot_id, event)] = self.events
        assert (bot_id, event.generation) == (BOT, 7)
        return event.exit


@pytest.fixture
def house(tmp_path):
    return House(str(tmp_path))


def limits(memory=512, pids=512, cpu=None, swap=0):
    return {"memory": memory * MIB, "swap": swap, "pids": pids, "cpu": cpu}


def test_each_start_carries_the_limits_of_the_moment(house):
    house.executor.perform(house.bot(alive=False), Spawn(1))
    house.executor.perform(house.bot("alice/own", alive=False, memory_bytes=64 * MIB, processes=9, cpu=0.5), Spawn(4))
    assert house.keeper.said == [
        ("start", BOT, 1, limits()),
        ("start", "alice/own", 4, limits(64, 9, 0.5)),
    ]


def test_a_changed_specification_limits_the_life_that_runs_and_nothing_else_does(house):
    bot = house.bot()
    house.executor.changed(bot, replace(bot.state, attempts=1))
    assert house.keeper.said == []
    house.fleet.set_spec(bot, replace(bot.spec, memory_bytes=100 * MIB))
    house.executor.changed(bot, bot.state)
    assert house.keeper.said == [("limits", BOT, 7, limits(100))]
    down = house.bot("alice/down", alive=False)
    house.executor.changed(down, down.state)
    assert len(house.keeper.said) == 1


def test_a_reload_limits_every_life(house):
    house.bot()
    house.bot("alice/own", memory_bytes=64 * MIB)
    house.bot("alice/down", alive=False)
    house.settings = replace(house.settings, limits=replace(house.settings.limits, max_cpu_per_bot=2.0))
    house.executor.limits_changed()
    assert house.keeper.said == [("limits", BOT, 7, limits(cpu=2.0)), ("limits", "alice/own", 7, limits(64, cpu=2.0))]


def test_a_keeper_that_is_away_is_not_asked_and_a_life_that_no_controller_holds_neither(house):
    bot = house.bot()
    house.keeper.away = True
    house.executor.limits_changed()
    house.executor.changed(bot, bot.state)
    house.keeper.away = False
    for facts in ({}, {"folders": None}, {"folders": {}}):
        house.keeper.held[BOT, 7] = Held(facts, {})
        house.executor.limits_changed()
    house.keeper.held.clear()
    house.executor.limits_changed()
    assert house.keeper.said == []


def test_after_a_gap_a_life_gets_the_limits_that_it_has_not(house):
    house.bot()
    state = {"id": BOT, "gen": 7, "live": True, "running": True, "pid": 4711}
    assert house.executor.reconcile([{**state, "limits": limits()}]) == []
    assert house.keeper.said == []
    assert house.executor.reconcile([{**state, "limits": limits(64)}]) == []
    assert house.executor.reconcile([state]) == []
    assert house.keeper.said == [("limits", BOT, 7, limits())] * 2


def test_an_end_by_the_kernel_is_told_with_peak_and_limit(house):
    house.bot(memory_bytes=64 * MIB)
    exit = house.exit(oom={"kills": 1, "peak_bytes": 64 * MIB, "limit_bytes": 64 * MIB})
    assert (exit.cause, exit.signal, exit.clean) == ("memory", 9, False)
    assert exit.words() == "killed by the kernel for memory: peak 64 MiB, limit 64 MiB (memory_mb)"


def test_who_is_killed_within_its_limit_is_told_that_it_was_the_machine(house):
    house.bot(memory_bytes=64 * MIB)
    exit = house.exit(oom={"kills": 1, "peak_bytes": 20 * MIB, "limit_bytes": None})
    assert exit.words() == (
        "killed by the kernel for memory because the machine had none left: peak 20 MiB, limit 64 MiB (memory_mb)"
    )


def test_an_end_by_the_kernel_of_a_bot_on_no_record_and_without_figures(house):
    exit = house.exit(oom={"kills": 2, "peak_bytes": None, "limit_bytes": None})
    assert exit.words() == "killed by the kernel for memory"


def test_refused_forks_are_counted_and_an_end_without_either_is_as_before(house):
    house.bot()
    exit = house.exit(code=1, signal=None, pids_refused=12)
    assert (exit.cause, exit.note, exit.forks_refused) == ("", "", 12)
    house.events.clear()
    exit = house.exit(code=3, signal=None, pids_refused=None, oom=None)
    assert exit.words() == "exited with code 3"
    assert (exit.cause, exit.forks_refused) == ("", 0)


def test_a_bot_that_is_removed_while_the_keeper_is_away_goes_to_the_trash_all_the_same(house, monkeypatch):
    bot, buried = house.bot(alive=False), []
    monkeypatch.setattr(house.executor, "_recycler", SimpleNamespace(bury=buried.append))
    monkeypatch.setattr(house.executor, "_provisioner", SimpleNamespace(forget=lambda bot_id: None))
    house.executor.perform(bot, Remove())
    assert buried == [BOT]
