"""The daemon's keeper of logs: what it is told, what it looks at, what goes and what is said about it."""

import asyncio
import fcntl
import os
from dataclasses import replace

import pytest
from printing import lay_down

from botd import logkeep as module
from botd.contract.paths import resolve
from botd.core.bot import BotState, Spec
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import MIB, Output, Settings
from botd.logkeep import LogKeep
from botd.storage import logsizes
from botd.system.clock import Clock

LIMIT_S = 180  # the process that compresses takes what others leave of the processor


class House:
    """A fleet of names with log folders, and the keeper of its logs."""

    def __init__(self, home, **output):
        self.paths = resolve({"BOTD_HOME": str(home)}, os.geteuid())
        self.settings = Settings(output=Output(**output))
        self.fleet = Fleet()
        self.notes = []
        self.told = asyncio.Event()
        self.locks = True
        self.looked = []
        self.keep = LogKeep(
            fleet=self.fleet,
            clock=Clock(),
            paths=self.paths,
            settings=lambda: self.settings,
            note=self._note,
            locks=lambda: self.locks,
        )

    def _note(self, *note):
        self.notes.append(note)
        self.told.set()

    def bot(self, id, sizes, age=0):
        """A bot with files of so many MiB, the current one first."""
        spec = Spec(id, ("true",), "/")
        self.fleet.add(Bot(spec, BotState(since=0.0), rules_of(spec), 0.0))
        for number, mib in enumerate(sizes):
            suffix = f".{number}" if number else ""
            lay_down(self.folder(id), [(1.7e9 - age - number, os.urandom(mib * MIB))], suffix=suffix)
            os.utime(f"{self.folder(id)}/out.log{suffix}", (0, 1.7e9 - age - number))

    def folder(self, id):
        return self.paths.bot_logs(id)

    def logs(self, id):
        return sorted(name for name in os.listdir(self.folder(id)) if ".log" in name)

    def run(self, main):
        async def limited():
            async with asyncio.timeout(LIMIT_S):
                self.keep.start()
                try:
                    await main()
                finally:
                    await self.keep.close()

        asyncio.run(limited())

    async def until(self, condition):
        while not condition():
            assert not (await asyncio.sleep(0.01))


@pytest.fixture
def house(tmp_path, monkeypatch):
    def make(**output):
        made = House(tmp_path, **output)
        really = logsizes.look
        monkeypatch.setattr(module.logsizes, "look", lambda fd, id: made.looked.append(id) or really(fd, id))
        return made

    return make


def test_at_its_start_everything_is_compressed_that_was_not(house):
    ours = house()
    ours.bot("a/x", [1, 1, 1, 1])
    ours.bot("b/y", [0, 1, 1])
    ours.bot("b/silent", [])
    os.makedirs(ours.folder("b/silent"))

    async def main():
        await ours.until(lambda: "out.log.3.gz" in ours.logs("a/x") and "out.log.2" not in ours.logs("b/y"))

    ours.run(main)
    assert ours.logs("a/x") == ["out.log", "out.log.1", "out.log.2.gz", "out.log.3.gz"]
    assert ours.logs("b/y") == ["out.log", "out.log.1", "out.log.2.gz"]
    assert ours.notes == []


def test_a_budget_of_a_user_takes_the_oldest_and_says_so(house):
    ours = house(compress=False, max_bytes_per_user=5 * MIB)
    ours.bot("a/x", [1, 1, 1])
    ours.bot("a/y", [1, 1, 1, 1], age=100)
    ours.bot("b/z", [1, 1, 1, 1])

    async def main():
        await ours.until(lambda: ours.notes)

    ours.run(main)
    assert ours.logs("a/x") == ["out.log", "out.log.1", "out.log.2"]
    assert ours.logs("a/y") == ["out.log"]
    assert len(ours.logs("b/z")) == 4
    ((id, kind, text),) = ours.notes
    assert (id, kind) == ("a/y", "logs")
    assert text.startswith("removed the 3 oldest log files (3.0 MiB) of a/y: logs of a were 7.0 of 5 MiB")
    assert ours.keep.removed["a"].files == 3


def test_what_was_rotated_is_looked_at_and_nothing_else(house):
    ours = house(compress=False, max_bytes_per_bot=3 * MIB)
    for i in range(20):
        ours.bot(f"a/b{i}", [1])

    async def main():
        await ours.until(lambda: len(ours.looked) == 20)
        for number in (4, 3, 2, 1):
            lay_down(ours.folder("a/b7"), [(1.7e9, os.urandom(MIB))], suffix=f".{number}")
        ours.keep.rotated("a/b7")
        await ours.until(lambda: ours.notes)

    ours.run(main)
    assert set(ours.looked[20:]) == {"a/b7"}
    assert ours.logs("a/b7") == ["out.log", "out.log.1"]
    assert "logs of a/b7 were 5.0 of 3 MiB (output.maxPerBot)" in ours.notes[0][2]


def test_a_flood_over_its_budget_has_a_line_of_history_a_minute(house, monkeypatch):
    ours = house(compress=False, max_bytes_per_bot=MIB)
    ours.bot("a/x", [0])

    def all_gone(number):
        return lambda: "a" in ours.keep.removed and ours.keep.removed["a"].files == number

    async def main():
        for number in range(1, 6):
            lay_down(ours.folder("a/x"), [(1.7e9, os.urandom(2 * MIB))], suffix=".1")
            ours.keep.rotated("a/x")
            await ours.until(all_gone(number))
            # What went is told at the end of the round; a round that goes on tells the first ones together.
            await ours.until(lambda: ours.notes)
        assert len(ours.notes) == 1
        monkeypatch.setattr(module, "TELL_S", 0.0)
        ours.keep.rotated("a/x")
        await ours.until(lambda: len(ours.notes) == 2)

    ours.run(main)
    assert "the oldest log file (2.0 MiB)" in ours.notes[0][2]
    assert "the 4 oldest log files (8.0 MiB)" in ours.notes[1][2]


def test_a_reload_measures_everything_anew(house):
    ours = house(compress=False)
    ours.bot("a/x", [1, 1, 1], age=5000)

    async def main():
        await ours.until(lambda: ours.looked)
        ours.settings = replace(ours.settings, output=replace(ours.settings.output, max_age_s=60.0))
        ours.keep.settings_changed()
        await ours.until(lambda: ours.notes)

    ours.run(main)
    assert ours.logs("a/x") == ["out.log"]
    assert "older than 1 min (output.maxAge)" in ours.notes[0][2]


def test_a_rotation_under_way_is_waited_for(house, monkeypatch):
    monkeypatch.setattr(module, "BUSY_S", 0.05)
    ours = house(compress=False, max_bytes_per_bot=MIB)
    ours.bot("a/x", [1, 1])
    held = os.open(ours.folder("a/x"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    async def main():
        await ours.until(lambda: len(ours.looked) > 2)
        assert ours.logs("a/x") == ["out.log", "out.log.1"]
        os.close(held)
        await ours.until(lambda: ours.notes)

    ours.run(main)
    assert ours.logs("a/x") == ["out.log"]


def test_under_the_hands_of_a_keeper_without_locks_nothing_is_touched(house, monkeypatch):
    ours = house(max_bytes_per_bot=MIB)
    ours.bot("a/x", [1, 1, 1, 1])
    ours.locks = False

    async def main():
        for _ in range(5):
            ours.keep.rotated("a/x")
            await asyncio.sleep(0)
        assert ours.looked == []
        ours.locks = True
        ours.keep.settings_changed()
        await ours.until(lambda: ours.notes)

    ours.run(main)
    assert ours.logs("a/x") == ["out.log"]


def test_a_deleted_bot_is_forgotten(house):
    ours = house(compress=False, max_bytes_per_user=5 * MIB)
    ours.bot("a/x", [1, 1])
    ours.bot("a/y", [1, 1])

    async def main():
        await ours.until(lambda: len(ours.looked) == 2)
        ours.fleet.remove("a/y")
        lay_down(ours.folder("a/x"), [(1.7e9, os.urandom(MIB))], suffix=".2")
        ours.keep.rotated("a/x")
        ours.keep.rotated("a/y")
        await ours.until(lambda: ours.looked[2:] == ["a/x", "a/x"])

    ours.run(main)
    assert len(ours.logs("a/x")) == 3
    assert ours.notes == []
