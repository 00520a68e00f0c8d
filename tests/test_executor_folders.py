"""A life of a bot with a template begins when its folder is ready; meanwhile anything may happen to the bot."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.bot import BotState, Spec
from botd.core.effects import Remove, Spawn, Terminate
from botd.core.events import SpawnFailed, SpawnRefused
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import Settings
from botd.executor import Executor
from botd.keeper.client import KeeperLost
from botd.storage import folders

BOT = "alice/shop"
SPEC = Spec(BOT, ("run",), "/srv", template="m", release="one")


class Keeper:
    held: dict = {}  # noqa: RUF012

    def __init__(self):
        self.said = []
        self.away = False

    def start(self, spec):
        if self.away:
            raise KeeperLost("there is no connection to the keeper")
        self.said.append(("start", spec["gen"]))

    def stop(self, bot_id, generation, *_):
        self.said.append(("stop", generation))

    def forget(self, *_):
        self.said.append(("forget",))


class Provisioner:
    """Folders are ready when a test says so."""

    def __init__(self):
        self.asked = []

    def bring(self, spec):
        self.asked.append((spec.release, asyncio.get_running_loop().create_future()))
        return self.asked[-1][1]

    def forget(self, bot_id):
        self.asked[-1][1].cancel()


class Recycler:
    """Nothing was deleted that could come back."""

    def settle(self, bot_id):
        pass

    def bury(self, bot_id):
        pass

    async def drain(self):
        pass


class Clock:
    def boottime(self):
        return 500.0


class House:
    def __init__(self, home):
        self.fleet, self.keeper, self.provisioner, self.events = Fleet(), Keeper(), Provisioner(), []
        paths = Paths(home)
        folders.prepare_home(paths)
        self.executor = Executor(
            fleet=self.fleet,
            store=None,
            keeper=self.keeper,
            paths=paths,
            clock=Clock(),
            environ={},
            settings=Settings,
            report=self.events.extend,
            provisioner=self.provisioner,
            recycler=Recycler(),
        )
        self.bot = Bot(SPEC, BotState(phase="starting", wanted=True, generation=7), rules_of(SPEC), 0.0)
        self.fleet.add(self.bot)
        self.executor.perform(self.bot, Spawn(7))

    def state(self, **changes):
        self.fleet.set_state(self.bot, replace(self.bot.state, **changes))

    async def ready(self, error=None):
        self.provisioner.asked[-1][1].set_result(error)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def play(tmp_path):
    """Run a test's coroutine with a house."""

    def run(test):
        async def main():
            await test(House(str(tmp_path / "home")))

        asyncio.run(main())

    return run


def test_the_keeper_is_told_when_the_folder_is_ready(play):
    async def story(house):
        house.executor.perform(house.bot, Spawn(7))  # said again after a gap
        assert len(house.provisioner.asked) == 1 and house.keeper.said == []
        await house.ready()
        assert house.keeper.said == [("start", 7)] and house.events == []

    play(story)


def test_a_start_that_is_taken_back_is_never_told(play):
    async def story(house):
        house.state(phase="stopping", then="stop")
        house.executor.perform(house.bot, Terminate(7, "SIGTERM", 1.0))
        assert house.keeper.said == []
        await house.ready()
        assert house.keeper.said == []
        [(bot_id, event)] = house.events
        assert bot_id == BOT and isinstance(event, SpawnFailed) and event.generation == 7

    play(story)


def test_once_it_is_told_a_stop_goes_to_the_keeper(play):
    async def story(house):
        await house.ready()
        house.state(phase="stopping")
        house.executor.perform(house.bot, Terminate(7, "SIGTERM", 1.0))
        assert house.keeper.said == [("start", 7), ("stop", 7)]

    play(story)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("unavailable", SpawnRefused(7, "why")),
        ("conflict", SpawnFailed(7, "why", permanent=True)),
        ("not_found", SpawnFailed(7, "why", permanent=True)),
        ("internal", SpawnFailed(7, "why", permanent=False)),
    ],
)
def test_what_stands_in_the_way_is_the_reason(play, kind, event):
    async def story(house):
        await house.ready(BotdError(kind, "why"))
        assert house.events == [(BOT, event)] and house.keeper.said == []

    play(story)


def test_another_release_meanwhile_is_brought_first(play):
    async def story(house):
        house.fleet.set_spec(house.bot, replace(SPEC, release="two"))
        await house.ready()
        assert house.keeper.said == []
        assert [release for release, _ in house.provisioner.asked] == ["one", "two"]
        await house.ready()
        assert house.keeper.said == [("start", 7)]

    play(story)


def test_a_bot_that_is_gone_is_not_started(play):
    async def story(house):
        house.fleet.remove(BOT)
        house.executor.perform(house.bot, Remove())
        for _ in range(3):
            await asyncio.sleep(0)
        await house.executor.drain()
        assert house.keeper.said == [("forget",)] and house.events == []

    play(story)


def test_a_keeper_that_is_away_is_asked_again_later(play):
    async def story(house):
        house.keeper.away = True
        await house.ready()
        assert house.keeper.said == [] and house.events == []
        house.keeper.away = False
        house.executor.perform(house.bot, Spawn(7))  # as a reconciliation says it
        await house.ready()
        assert house.keeper.said == [("start", 7)]

    play(story)
