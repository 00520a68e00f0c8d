"""Forking: by a small process of its own, and by the keeper itself where that cannot be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keeper_house import House, alive, until

from botd.keeper import wire

ROOT = str(Path(wire.__file__).parents[2])

STRAYS = """
import os, sys
sys.path.append(sys.argv[1])
from botd.keeper.tree import Strays, Tree

def waiting(own_session):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opened)
        if own_session:
            os.setsid()
        os.write(tell, b"x")
        os._exit(7 if os.read(gate, 1) else 1)
    os.read(ready, 1)
    return pid

gate, opened = os.pipe()
newborn, stray, known = waiting(False), waiting(True), waiting(True)
assert Tree(Strays([known]), list, child=True).sweep(0) == 1
assert os.waitpid(stray, 0)[1] == 9
os.write(opened, b"xx")
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (newborn, known)] == [7, 7]
assert Tree(Strays([]), list, child=True).sweep(0) == 0
strays = Strays([])
assert strays.kill() == 0
waiting(True)
# One look that found nobody serves all ends of a turn; the next turn looks again.
assert strays.kill() == 0
strays.turned()
assert strays.kill() == 1
print("as it should be")
"""


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def nurseries(keeper) -> list[int]:
    """Children of the keeper that are no bots: the process that forks."""
    pid = keeper.hello["pid"]
    lives = {facts["pid"] for facts, _ in keeper.held.values()}
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if child not in lives and alive(child)]


def test_starts_go_on_when_the_process_that_forks_is_killed(each_house):
    keeper = each_house.up()
    if not keeper.hello["features"]["nursery"]:
        pytest.skip("the keeper forks by itself here")
    (nursery,) = nurseries(keeper)
    assert os.listdir(f"/proc/{nursery}/fd") == ["0", "1", "2", "3", "63"]
    assert not any("keeper.lock" in os.readlink(f"/proc/{nursery}/fd/{fd}") for fd in (0, 1, 2, 3, 63))
    for n in range(40):
        keeper.ask_start(f"u/bot{n}", 1, ["sleep", "1000"])
        if n == 10:
            os.kill(nursery, signal.SIGKILL)
    ends: dict[str, str] = {}
    while len(ends) < 40:
        message = keeper.receive()
        if message["op"] in ("running", "failed"):
            assert message["id"] not in ends
            ends[message["id"]] = message["op"]
            assert message["op"] == "running" or message["step"] == "fork"
    failed = [life_id for life_id, op in ends.items() if op == "failed"]
    assert len(failed) <= 3
    assert keeper.ping()["live"] == 40 - len(failed)
    for life_id in failed:
        keeper.ack(life_id, 1)
        keeper.start(life_id, 2, ["sleep", "1000"])


def test_a_helper_killed_before_it_answers_leaves_nobody_at_a_gate(each_house):
    each_house.launch(crash_at="nursery-forked:3")
    keeper = each_house.connect()
    if not keeper.hello["features"]["nursery"]:
        pytest.skip("the keeper forks by itself here")
    ends: dict[str, str] = {}
    for n in range(5):
        keeper.ask_start(f"u/bot{n}", 1, ["sleep", "1000"])
    while len(ends) < 5:
        message = keeper.receive()
        if message["op"] in ("running", "failed"):
            ends[message["id"]] = message["op"]
    assert ends["u/bot2"] == "failed"
    keeper.ack("u/bot2", 1)

    def accepted():
        keeper.ask_start("u/bot2", 2, ["sleep", "1000"])
        while (message := keeper.receive())["op"] not in ("started", "refused"):
            assert message["op"] not in ("failed", "error"), message
        return message["op"] == "started"

    # Its child found the gate closed and goes; the lock of the bot goes with it.
    until(accepted, "an end of the child at the gate")


@pytest.mark.parametrize("containment", ["auto", "tree"])
@pytest.mark.parametrize("without", ["nursery", "clone3", "cgroup_kill", "clone3,cgroup_kill"])
def test_what_the_kernel_lacks_is_made_up_for(containment, without):
    house = House(containment, without=without)
    try:
        keeper = house.up()
        assert keeper.hello["features"]["nursery"] is (without == "cgroup_kill")
        assert bool(nurseries(keeper)) is keeper.hello["features"]["nursery"]
        keeper.start("u/bot", 1, sh("sleep 1000 & setsid sleep 1000 & exec sleep 1000"))
        pid = keeper.held["u/bot", 1][0]["pid"]
        until(lambda: len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 2, "the children")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        keeper.stop("u/bot", 1, grace_s=0)
        assert keeper.expect("exited", "u/bot", 1)["signal"] == signal.SIGKILL
        assert not any(alive(int(child)) for child in children)
        keeper.ask_start("u/bot", 2, ["no-such-program"])
        assert keeper.expect("failed", "u/bot", 2)["step"] == "exec"
    finally:
        house.close()


def test_what_waits_at_its_gate_is_no_stray():
    """Without a cgroup a dead bot's orphans are children of the keeper, and so is a bot that was just born."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STRAYS, ROOT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "as it should be\n"), done.stderr


def test_ends_among_starts_harm_no_newborn(each_house):
    """Every end kills what its bot left behind, while other bots are just being born."""
    keeper = each_house.up()
    for n in range(150):
        keeper.ask_start(f"u/bot{n}", 1, ["true"])
    ends = {}
    while len(ends) < 150:
        message = keeper.receive()
        assert message["op"] in ("started", "running", "exited"), message
        if message["op"] == "exited":
            ends[message["id"]] = (message["code"], message["leftovers"])
    assert set(ends.values()) == {(0, 0)}


def test_orphans_end_among_starts(each_house):
    keeper = each_house.up()
    left = each_house.path("left")
    for n in range(30):
        keeper.ask_start(f"u/bot{n}", 1, sh(f"sleep 1000 & echo $! >> {left}; exit 4"))
    assert {keeper.expect("exited", f"u/bot{n}", 1)["code"] for n in range(30)} == {4}
    pids = [int(line) for line in Path(left).read_text().split()]
    assert len(pids) == 30
    assert not any(alive(pid) for pid in pids)
