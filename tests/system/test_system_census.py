"""Whose is a process that is nobody's main process: on real processes, and on a /proc of our own making."""

import contextlib
import os
import subprocess
import sys

import pytest
from fleet_house import alive, until

from botd.system.census import Census
from botd.system.procfs import PAGE, resident
from botd.system.sampling import Sampler

# Leaves a child, a child with a session of its own, and a grandchild below that; says their pids.
FAMILY = """
import os, sys, time
def fork(then):
    pid = os.fork()
    if pid == 0:
        then()
        time.sleep(60)
    return pid
r, w = os.pipe()
def grown():
    os.setsid()
    os.write(w, b"%d" % fork(lambda: None))
block = bytearray(BYTES)
block[::4096] = b"x" * len(block[::4096])
first, second = fork(lambda: None), fork(grown)
print(os.getpid(), first, second, int(os.read(r, 20)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def family():
    found = []

    def start(size=1):
        script = FAMILY.replace("BYTES", str(size))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        found.append((process, list(map(int, process.stdout.readline().split()))))
        return found[-1][1]

    yield start
    for process, pids in found:
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.kill()
        process.communicate()


def test_children_are_found_by_session_and_descent_and_strangers_are_not(family):
    main, *others = family()
    neighbour, *_theirs = family()
    census = Census()
    found = census.take({main: "a/b"}, {})
    assert {kin.pid for kin in found["a/b"]} == set(others)
    both = census.take({main: "a/b", neighbour: "a/c"}, {})
    assert {kin.pid for kin in both["a/b"]} == set(others)
    # Looked at as strangers a moment ago; seen again after some rounds.
    for _ in range(12):
        both = census.take({main: "a/b", neighbour: "a/c"}, {})
    assert {kin.pid for kin in both["a/c"]} == set(_theirs)
    assert found["a/b"][0].stat.rss_pages > 0


def test_a_sample_is_of_all_processes_and_what_they_share_is_counted_once_where_it_matters(family):
    size = 48 << 20
    main, *_ = family(size)
    sampler = Sampler()
    try:
        assert sampler.add("a/b", main)
        sampler.sample(1.0)
        sample = sampler.get("a/b")
        assert (sample.processes, sample.threads) == (4, 4)
        assert sample.memory_bytes > 3 * size
        assert sampler.exact("a/b", 1 << 40) > 3 * size
        exact = sampler.exact("a/b", 2 * size)
        assert size <= exact < 2 * size
        sampler.sample(6.0)
        assert sampler.get("a/b").memory_bytes < 2 * size
    finally:
        sampler.close()


THREADS = """
import threading, sys
for _ in range(5):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_threads_are_no_processes_though_their_numbers_answer(family):
    """A number that is tried without a list may be a thread's: a Node program has six of them."""
    census = Census()
    census.take({}, {})  # from here on new numbers are tried one by one
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", THREADS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert len(os.listdir(f"/proc/{process.pid}/task")) == 6
        found = census.take({process.pid: "a/b"}, {})
        process.stdin.close()
    assert found == {}


def test_children_that_end_are_counted_no_more(family):
    size = 48 << 20
    main, *others = family(size)
    sampler = Sampler()
    try:
        sampler.add("a/b", main)
        sampler.sample(1.0)
        assert sampler.get("a/b").memory_bytes > 3 * size
        for pid in others:
            os.kill(pid, 9)
        until(lambda: not any(map(alive, others)), "an end of the children")
        # A zombie is still one of its processes, and holds nothing.
        sampler.sample(6.0)
        assert sampler.get("a/b").memory_bytes < 2 * size
    finally:
        sampler.close()


# --- a /proc of our own ---------------------------------------------------------------------------


class Proc:
    def __init__(self, folder):
        self.folder = folder

    def process(self, pid, parent=1, session=1, ticks=0, start=100, cgroup="/"):
        folder = self.folder / str(pid)
        folder.mkdir(exist_ok=True)
        fields = f"{pid} (a ) b) S {parent} {pid} {session} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 2 0 {start} 0 7 0"
        (folder / "stat").write_text(fields)
        (folder / "cgroup").write_text(f"12:pids:/x\n0::{cgroup}\n")

    def end(self, pid):
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def pids(found):
    return {bot: sorted(kin.pid for kin in kins) for bot, kins in found.items()}


def test_orphans_in_a_cgroup_are_known_by_it_and_a_bot_cannot_hang_them_on_another(proc):
    proc.process(10, session=10)
    proc.process(20, session=20)
    proc.process(11, session=11, cgroup="/botd-1/alice+shop+7/botd-1/bob+quiz+2")
    proc.process(12, session=12, cgroup="/elsewhere")
    proc.process(13, session=13, cgroup="/botd-2/alice+shop+7")  # of another fleet
    census = Census(str(proc.folder))
    mains = {10: "alice/shop", 20: "bob/quiz"}
    groups = {"botd-1/alice+shop+7": "alice/shop", "botd-1/bob+quiz+2": "bob/quiz"}
    assert pids(census.take(mains, groups)) == {"alice/shop": [11]}
    assert pids(Census(str(proc.folder)).take(mains, {})) == {}


def test_once_known_a_process_stays_known_when_its_parent_is_gone(proc):
    proc.process(10, session=10)
    proc.process(11, parent=10, session=11)
    proc.process(12, parent=11, session=12)
    census = Census(str(proc.folder))
    assert pids(census.take({10: "a/b"}, {})) == {"a/b": [11, 12]}
    proc.end(11)
    proc.process(12, parent=1, session=12)
    assert pids(census.take({10: "a/b"}, {})) == {"a/b": [12]}


def test_a_number_that_was_given_to_a_stranger_is_a_stranger(proc):
    proc.process(10, session=10)
    proc.process(11, parent=10, session=10, ticks=500)
    census = Census(str(proc.folder))
    census.take({10: "a/b"}, {})
    proc.process(11, parent=1, session=99, start=7777)
    assert census.take({10: "a/b"}, {}) == {}


def test_processor_time_is_told_as_what_came_new(proc):
    proc.process(10, session=10)
    proc.process(11, parent=10, session=10, ticks=500)
    census = Census(str(proc.folder))
    assert census.take({10: "a/b"}, {})["a/b"][0].new_ticks == 500
    proc.process(11, parent=10, session=10, ticks=620)
    assert census.take({10: "a/b"}, {})["a/b"][0].new_ticks == 120


def test_few_new_numbers_are_tried_without_a_list_of_all(proc, monkeypatch):
    def given_out(last):
        (proc.folder / "loadavg").write_text(f"0.10 0.20 0.30 2/300 {last}\n")

    proc.process(10, session=10)
    proc.process(50)
    given_out(60)
    census = Census(str(proc.folder))
    assert census.take({10: "a/b"}, {}) == {}
    with monkeypatch.context() as closed:
        closed.setattr(os, "listdir", lambda _: pytest.fail("listed"))
        proc.process(61, parent=10, session=10)
        given_out(63)
        assert pids(census.take({10: "a/b"}, {})) == {"a/b": [61]}
        assert pids(census.take({10: "a/b"}, {})) == {"a/b": [61]}
    # Round the circle, or a great many at once: everything is listed.
    proc.process(7, parent=10, session=10)
    given_out(8)
    assert pids(census.take({10: "a/b"}, {})) == {"a/b": [7, 61]}
    proc.process(5000, parent=10, session=10)
    given_out(6000)
    assert pids(census.take({10: "a/b"}, {})) == {"a/b": [7, 61, 5000]}


def test_children_seen_before_their_bot_was_known_are_found_with_it(proc):
    (proc.folder / "loadavg").write_text("0.10 0.20 0.30 2/300 60\n")
    census = Census(str(proc.folder))
    proc.process(10, session=10)
    proc.process(40, session=40)
    proc.process(41, parent=40, session=40)
    assert census.take({10: "a/b"}, {}) == {}
    census.born(40)
    assert pids(census.take({10: "a/b", 40: "a/c"}, {})) == {"a/c": [41]}


def test_a_ring_of_parents_and_damaged_files_lead_nowhere(proc):
    proc.process(10, session=10)
    proc.process(21, parent=22, session=5)
    proc.process(22, parent=21, session=5)
    proc.process(23)
    (proc.folder / "23" / "stat").write_text("nonsense")
    (proc.folder / "24").mkdir()
    assert Census(str(proc.folder)).take({10: "a/b"}, {"g": "a/b"}) == {}


def test_what_a_process_holds():
    mine = resident(os.getpid())
    assert PAGE < mine < 1 << 40
    assert resident(1 << 22) == 0
