"""Who writes: real files, real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from botd.core.bot import BotState, Spec
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import MIB
from botd.system import writing
from botd.telemetry import writers
from botd.telemetry.writers import Writers

WRITES = """
import os, subprocess, sys
def put(name, count):
    with open(name, "wb") as file:
        for _ in range(count):
            file.write(b"x" * (1 << 20))
put("own", 2)
if sys.argv[1] == "parent":
    subprocess.run([sys.executable, "-c", "open('child', 'wb').write(b'x' * (3 << 20))"])
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as path:
        yield path


@pytest.mark.parametrize(("kind", "least"), [("alone", 2 * MIB), ("parent", 5 * MIB)])
def test_a_process_has_written_what_it_and_its_children_wrote(folder, kind, least):
    command = [sys.executable, "-I", "-S", "-c", WRITES, kind]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"done\n"
        found = writing.written_bytes([process.pid, 2**22 + 1])
        assert least <= found < least + MIB
        process.stdin.close()
    assert writing.written_bytes([process.pid]) is None


def test_a_damaged_io_is_no_answer(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "io").write_text("wchar: many\nwrite_bytes: 1\n")
    assert writing.written_bytes([7], str(tmp_path)) is None
    (tmp_path / "7" / "io").write_text("rchar: 1\nwchar: 5\nwrite_bytes: 4096\n")
    assert writing.written_bytes([7], str(tmp_path)) == 4096


def test_room_on_a_disk(folder):
    assert writing.free_bytes(folder) > 0
    assert writing.free_bytes(f"{folder}/nowhere") is None


class Machine:
    """A disk and processes that do as they are told."""

    def __init__(self, monkeypatch):
        self.free, self.written, self.now, self.asked = 1000 * MIB, {}, 100.0, 0
        monkeypatch.setattr(writing, "free_bytes", lambda path: self.free)
        monkeypatch.setattr(writing, "written_bytes", self._ask)
        self.fleet = Fleet()
        self.writers = Writers(self.fleet, "/", lambda bot: [bot.state.pid])

    def _ask(self, pids):
        self.asked += 1
        return self.written[pids[0]]

    def add(self, bot_id, pid, written=0):
        spec = Spec(bot_id, ("run",), "/srv")
        self.fleet.add(Bot(spec, BotState(phase="running", generation=1, pid=pid), rules_of(spec), 0.0))
        self.written[pid] = written

    def scan(self):
        self.now += 1.0
        return asyncio.run(self.writers.scan(self.now, lambda: self.now))

    def stirred(self, passed=0.1, near=False):
        self.now += passed
        return self.writers.stirred(self.now, near=near)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_a_quiet_disk_asks_nobody(machine):
    machine.add("a/x", 7)
    assert machine.stirred()  # nothing is known yet
    machine.scan()
    asked = machine.asked
    assert not machine.stirred()
    machine.free -= writers.STIRRED - 1
    assert not machine.stirred()
    assert machine.stirred(near=True)
    machine.free -= 1
    assert machine.stirred()
    machine.free += 500 * MIB  # somebody made room, from there it counts anew
    assert not machine.stirred()
    machine.free -= writers.STIRRED
    assert machine.stirred()
    machine.scan()
    assert not machine.stirred()
    assert machine.stirred(writers.SCAN_S)
    assert machine.asked == asked + 1


def test_what_is_written_adds_up_until_it_was_measured(machine):
    machine.add("a/x", 7, 5 * MIB)
    machine.add("a/quiet", 8)
    assert machine.scan().by_user == {"a": {"a/x": 5 * MIB}}
    machine.written[7] += 3 * MIB
    assert machine.scan().by_user == {"a": {"a/x": 8 * MIB}}
    assert machine.writers.measured("a/x", 8 * MIB)
    assert machine.scan().by_user == {}
    assert not machine.writers.measured("a/x", 8 * MIB)  # it grew, and nobody saw it write
    assert not machine.writers.measured("a/unknown", MIB)


def test_who_writes_elsewhere_is_believed_less_and_less_but_never_nothing(machine):
    machine.add("a/x", 7)
    for _ in range(8):
        machine.written[7] += 16 * MIB
        [hint] = machine.scan().by_user["a"].values()
        machine.writers.measured("a/x", 0)
    assert hint == 16 * MIB // writers.DOUBT_MAX
    machine.written[7] += 16 * MIB
    machine.scan()
    machine.writers.measured("a/x", 16 * MIB)
    machine.written[7] += 16 * MIB
    assert machine.scan().by_user == {"a": {"a/x": 16 * MIB}}


def test_a_process_that_is_closed_to_us_may_have_written_all_of_it(machine):
    machine.add("a/x", 7)
    machine.scan()
    machine.written[7] = None
    machine.free -= 9 * MIB
    assert machine.scan().by_user == {"a": {"a/x": 9 * MIB}}
    machine.written[7] = MIB


def test_room_that_nobody_accounts_for(machine):
    machine.add("a/x", 7)
    assert not machine.scan().unexplained
    machine.free -= writers.UNEXPLAINED
    assert machine.scan().unexplained
    machine.free -= writers.UNEXPLAINED
    assert not machine.scan().unexplained  # not again so soon
    machine.now += writers.UNEXPLAINED_S
    machine.free -= writers.UNEXPLAINED
    machine.written[7] += writers.UNEXPLAINED
    assert not machine.scan().unexplained


def test_the_words_of_the_kernel_are_those_of_this_process():
    before = writing.written_bytes([os.getpid()])
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        Path(file.name).write_bytes(b"x" * MIB)
    assert writing.written_bytes([os.getpid()]) >= before + MIB
