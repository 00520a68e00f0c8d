"""Limits on real processes: who exceeds one is ended or held, is told so, and nobody else notices."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from keeper_house import PYTHON, House, alive, until

MIB = 1 << 20

HOG = "x = bytearray(300 << 20)\nimport time; time.sleep(1000)"
LATER_HOG = """
import os, sys, time
if sys.argv[1] == "main" or os.fork() == 0:
    print("up", flush=True)
    while not os.path.exists("go"): time.sleep(0.01)
    x = bytearray(300 << 20)
time.sleep(1000)
"""
BOMB = """
import os, time
refused = 0
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            refused = 0
    except OSError:
        if not refused:
            print("refused", flush=True)
        refused = 1
        time.sleep(0.001)
"""
IDLE = ["sleep", "1000"]
CPU = "cpu.max", "cpu.cfs_quota_us"


def needs(keeper, *controllers: str) -> None:
    """Skip where the machine does not let us have these."""
    for name in controllers:
        if keeper.hello["controllers"][name] is None:
            pytest.skip(f"{name}: {keeper.hello['why'][name]}")


def members(started: dict, controller: str) -> list[int]:
    return [int(pid) for pid in Path(started["folders"][controller], "cgroup.procs").read_text().split()]


def number(started: dict, controller: str, *names: str) -> str:
    """What the first of these files that exists says."""
    files = [Path(started["folders"][controller], name) for name in names]
    return next(file for file in files if file.exists()).read_text().strip()


def memory_limit(started: dict) -> int:
    return int(number(started, "memory", "memory.max", "memory.limit_in_bytes"))


@pytest.mark.root
def test_a_memory_hog_ends_alone_and_labelled(each_house):
    keeper = each_house.up()
    needs(keeper, "memory")
    neighbours = [keeper.start(f"u/good{n}", 1, IDLE, limits={"memory": 64 * MIB, "swap": 0}) for n in range(3)]
    keeper.start("u/hog", 1, [*PYTHON, HOG], limits={"memory": 48 * MIB, "swap": 0})
    ended = keeper.expect("exited", "u/hog", 1)
    assert ended["signal"] == signal.SIGKILL
    assert ended["oom"]["kills"] >= 1
    assert ended["oom"]["limit_bytes"] == 48 * MIB
    peak = ended["oom"]["peak_bytes"]
    assert peak is None or 47 * MIB <= peak <= 48 * MIB
    assert "pids_refused" not in ended
    assert all(alive(neighbour["pid"]) for neighbour in neighbours)
    assert keeper.ping()["live"] == 3


@pytest.mark.root
def test_a_child_that_is_the_hog_takes_the_whole_life_along(each_house):
    keeper = each_house.up()
    needs(keeper, "memory")
    started = keeper.start("u/bot", 1, [*PYTHON, LATER_HOG, "child"], limits={"memory": 48 * MIB, "swap": 0})
    until(lambda: b"up" in each_house.log("u/bot"), "the child to be there")
    pids = members(started, "memory")
    Path(each_house.home, "go").touch()
    ended = keeper.expect("exited", "u/bot", 1)
    assert ended["oom"]["kills"] >= 1 and ended["oom"]["limit_bytes"] == 48 * MIB
    assert not any(alive(pid) for pid in pids)


@pytest.mark.root
@pytest.mark.parametrize("without", ["", "cgroup_kill"])
@pytest.mark.parametrize("containment", ["auto", "tree"])
def test_a_fork_bomb_is_bounded_and_fully_gone(containment, without):
    house = House(containment, without=without)
    try:
        keeper = house.up()
        needs(keeper, "pids")
        neighbour = keeper.start("u/good", 1, IDLE)
        started = keeper.start("u/bomb", 1, [*PYTHON, BOMB], limits={"pids": 40})
        until(lambda: b"refused" in house.log("u/bomb"), "the bomb to be at its limit")
        pids = members(started, "pids")
        assert 30 <= len(pids) <= 40
        keeper.stop("u/bomb", 1, grace_s=0)
        ended = keeper.expect("exited", "u/bomb", 1)
        assert ended["pids_refused"] >= 1
        assert "oom" not in ended
        assert not any(alive(pid) for pid in pids)
        until(lambda: not os.path.exists(started["folders"]["pids"]), "the folder to be gone")
        assert alive(neighbour["pid"])
        keeper.ack("u/bomb", 1)
        keeper.start("u/bomb", 2, IDLE, limits={"pids": 40})
    finally:
        house.close()


@pytest.mark.root
def test_what_is_asked_for_is_what_the_kernel_keeps(house):
    keeper = house.up()
    needs(keeper, "memory", "pids", "cpu")
    limits = {"memory": 64 * MIB, "swap": 0, "pids": 17, "cpu": 0.5}
    started = keeper.start("u/bot", 1, IDLE, limits=limits)
    assert started["limits"] == limits
    assert memory_limit(started) == 64 * MIB
    assert number(started, "pids", "pids.max") == "17"
    assert number(started, "cpu", *CPU) in ("50000 100000", "50000")
    for controller in ("memory", "pids", "cpu"):
        assert members(started, controller) == [started["pid"]]


@pytest.mark.root
def test_limits_change_on_a_live_bot(house):
    keeper = house.up()
    needs(keeper, "memory", "swap", "pids", "cpu")
    started = keeper.start("u/bot", 1, IDLE, limits={"memory": 64 * MIB, "swap": 0, "pids": 17})
    for memory, swap, pids in [(32 * MIB, 0, 9), (128 * MIB, 0, 30), (96 * MIB, 64 * MIB, 8), (64 * MIB, None, 7)]:
        limits = {"memory": memory, "swap": swap, "pids": pids}
        keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": limits})
        keeper.ping()
        assert memory_limit(started) == memory
        assert number(started, "pids", "pids.max") == str(pids)
    keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": None})
    keeper.ping()
    assert number(started, "pids", "pids.max") == "max"
    assert number(started, "memory", "memory.max", "memory.limit_in_bytes") in ("max", str((1 << 63) - 4096))
    keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": {"memory": 4096, "swap": 0}})
    # Less than is in use and cannot be taken back: version 1 refuses it, version 2 ends the bot at its next page.
    if keeper.hello["controllers"]["memory"] == "v1":
        assert "limit_in_bytes" in keeper.expect_error()["text"]
        assert keeper.ping()["live"] == 1


@pytest.mark.root
def test_a_limit_reaches_a_bot_that_was_born_without_it(each_house):
    """What counts from now on is added to a live bot, its children and their folder; the next keeper knows of it."""
    keeper = each_house.up()
    needs(keeper, "memory", "pids", "cpu")
    started = keeper.start("u/bot", 1, ["sh", "-c", "sleep 1000 & sleep 1000 & wait"])
    children = Path(f"/proc/{started['pid']}/task/{started['pid']}/children")
    until(lambda: len(children.read_text().split()) == 2, "both children")
    later = {"memory": None, "swap": None, "pids": 5, "cpu": 1.5}
    keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": later})
    keeper.ping()
    # On version 1 the folders are new ones; who was told of the start learns of them at its next sync.
    folders = {"pids": each_house.group("u/bot", 1, "pids.max"), "cpu": each_house.group("u/bot", 1, *CPU)}
    state = {"folders": folders, "limits": later}
    for _ in range(2):
        assert len(members(state, "pids")) == 3
        assert number(state, "pids", "pids.max") == "5"
        assert state["limits"] == later
        assert sorted(members(state, "cpu")) == sorted(members(state, "pids"))
        held = keeper.hand_over()
        each_house.kill_keeper()
        keeper = each_house.up(adopt=held)
        state = keeper.state("u/bot", 1)
    pids = members(state, "pids")
    keeper.stop("u/bot", 1, grace_s=0)
    keeper.expect("exited", "u/bot", 1)
    assert not any(alive(pid) for pid in pids)
    until(lambda: not os.path.exists(state["folders"]["cpu"]), "the folders to be gone")
    if keeper.hello["controllers"]["memory"] == "v1":
        keeper.start("u/other", 1, IDLE)
        keeper.send({"op": "limits", "id": "u/other", "gen": 1, "limits": {"memory": 64 * MIB}})
        assert "next start" in keeper.expect_error()["text"]


@pytest.mark.root
def test_limits_that_come_before_the_start(house):
    keeper = house.up()
    needs(keeper, "pids")
    for n in range(20):
        keeper.ask_start(f"u/bot{n}", 1, IDLE, limits={"pids": 17})
        keeper.send({"op": "limits", "id": f"u/bot{n}", "gen": 1, "limits": {"pids": 6}})
    for n in range(20):
        started = keeper.expect("started", f"u/bot{n}", 1)
        keeper.expect("running", f"u/bot{n}", 1)
        until(lambda started=started: number(started, "pids", "pids.max") == "6", "the later limit")


@pytest.mark.root
@pytest.mark.parametrize("who", ["main", "child"])
@pytest.mark.parametrize("when", ["after", "meanwhile"])
def test_a_killed_keeper_changes_nothing(house, who, when):
    """The limits hold without a keeper; what they did in that time, and what they do later, is told."""
    keeper = house.up()
    needs(keeper, "memory", "pids")
    limits = {"memory": 48 * MIB, "swap": 0, "pids": 10}
    started = keeper.start("u/bot", 1, [*PYTHON, LATER_HOG, who], limits=limits)
    until(lambda: b"up" in house.log("u/bot"), "the bot to be up")
    pids = members(started, "memory")
    assert len(pids) == (2 if who == "child" else 1)
    held = keeper.hand_over()
    house.kill_keeper()
    assert memory_limit(started) == 48 * MIB
    if when == "meanwhile":
        Path(house.home, "go").touch()
        until(lambda: not all(alive(pid) for pid in pids), "the kernel to kill")
    keeper = house.up(adopt=held)
    Path(house.home, "go").touch()
    ended = keeper.state("u/bot", 1)
    ended = ended["final"] if ended and not ended["live"] else keeper.expect("exited", "u/bot", 1)
    assert ended["oom"]["kills"] >= 1 and ended["oom"]["limit_bytes"] == 48 * MIB
    assert not any(alive(pid) for pid in pids)
    until(lambda: not any(os.path.exists(f) for f in started["folders"].values()), "the folders to be gone")


@pytest.mark.root
def test_folders_that_no_life_is_known_of_go(house):
    house.launch(crash_at="start-caged")
    keeper = house.connect()
    needs(keeper, "memory", "pids")
    keeper.ask_start("u/bot", 1, IDLE, limits={"memory": 64 * MIB, "pids": 10})
    assert house.program.wait(20) == -signal.SIGKILL
    folder = house.group("u/bot", 1, "pids.max")
    keeper = house.up()
    until(lambda: not os.path.exists(folder), "the folder to be gone")
    keeper.start("u/bot", 1, IDLE, limits={"memory": 64 * MIB, "pids": 10})
    keeper.stop("u/bot", 1, grace_s=0)
    keeper.expect("exited", "u/bot", 1)
    keeper.send({"op": "quit"})
    assert house.program.wait(20) == 0
    assert not any(os.path.exists(base) for base in house.bases())


@pytest.mark.parametrize("containment", ["auto", "tree"])
def test_without_controllers_everything_works_and_hello_says_why(containment):
    house = House(containment, without="controllers")
    try:
        keeper = house.up()
        assert set(keeper.hello["controllers"].values()) == {None}
        assert set(keeper.hello["why"]) == {"memory", "swap", "pids", "cpu"}
        limits = {"memory": 64 * MIB, "swap": 0, "pids": 10, "cpu": 1}
        started = keeper.start("u/bot", 1, ["sh", "-c", "sleep 1000 & sleep 1000"], limits=limits)
        assert "folders" not in started
        keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": {"pids": 3}})
        keeper.stop("u/bot", 1, grace_s=0)
        ended = keeper.expect("exited", "u/bot", 1)
        assert "oom" not in ended and "pids_refused" not in ended
    finally:
        house.close()


def test_hello_tells_of_every_controller_how_or_why_not(house):
    hello = house.up().hello
    assert set(hello["controllers"]) == {"memory", "swap", "pids", "cpu"}
    for name, version in hello["controllers"].items():
        assert version in ("v1", "v2") or hello["why"][name]


def test_a_bot_without_limits_gets_no_folders(house):
    keeper = house.up()
    if "v2" in keeper.hello["controllers"].values():
        pytest.skip("version 2 has one folder for everything")
    assert "folders" not in keeper.start("u/bot", 1, IDLE)
    assert "folders" not in keeper.start("u/other", 1, IDLE, limits={"memory": None, "swap": 0})


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (7, "limits"),
        ({"memory": 0}, "limits.memory"),
        ({"memory": 1.5}, "limits.memory"),
        ({"memory": True}, "limits.memory"),
        ({"swap": -1}, "limits.swap"),
        ({"pids": 0}, "limits.pids"),
        ({"pids": "5"}, "limits.pids"),
        ({"cpu": 0}, "limits.cpu"),
        ({"cpu": True}, "limits.cpu"),
        ({"cpu": 1e300}, "limits.cpu"),
    ],
)
def test_impossible_limits_are_refused(house, limits, field):
    keeper = house.up()
    keeper.ask_start("u/bot", 1, IDLE, limits=limits)
    refused = keeper.expect("refused", "u/bot", 1)
    assert refused["why"] == "invalid" and refused["text"].startswith(field)
    keeper.start("u/bot", 1, IDLE, limits={"colour": "blue"})
    keeper.send({"op": "limits", "id": "u/bot", "gen": 1, "limits": limits})
    assert keeper.expect_error()["text"].startswith(field)
    assert keeper.ping()["live"] == 1
