"""A memory hog and a fork bomb beside healthy bots, where the kernel enforces limits and where botd watches them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from fleet_house import FAST, ROOT, Fleet, ids, until

from botd.core.relief import YOUNG_S

HEALTHY = int(os.environ.get("LIMITS_HEALTHY_BOTS", "100"))
CONFIG = {
    **FAST,
    "resourceManagement": {
        "autoRestartMaxAttempts": 1000,
        "memoryThreshold": 100,
        "maxBotsPerUser": 1000,
        "maxTotalBots": None,
        "maxProcessesPerBot": 48,
    },
}
HOG, BOMB = "mallory/hog", "mallory/bomb"


@pytest.fixture(scope="module", params=["as this machine has it", "without controllers"])
def crowd(request):
    """A fleet of healthy bots; in the second form its keeper acts as if no controller were there."""
    fleet = Fleet(CONFIG)
    try:
        if request.param == "without controllers":
            # The first keeper of a home is everybody's: botd takes this one as it is.
            program = str(ROOT / "botd" / "keeper" / "__main__.py")
            options = ["--home", fleet.home, "--detach", "--without=controllers"]
            subprocess.run([sys.executable, "-I", "-S", "-X", "utf8", program, *options], check=True, timeout=30)
        fleet.up()
        bots = [{"id": f"alice/b{i:03}", "command": ["/bin/sleep", "600"], "stop_grace_s": 2} for i in range(HEALTHY)]
        applied = fleet.rpc("fleet.apply", source="crowd", bots=bots, timeout_s=60)
        assert applied["summary"]["failed"] == 0, [item for item in applied["items"] if not item["ok"]][:3]
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def healthy(crowd):
    """Nothing may happen to the neighbours, whatever a test does."""
    names = [f"alice/b{i:03}" for i in range(HEALTHY)]
    before = crowd.pids(*names)
    yield
    assert crowd.pids(*names) == before
    assert all(bot["restarts"] == 0 for bot in crowd.bots(*names).values())


def mode(fleet, limit):
    return fleet.rpc("daemon.status")["mechanisms"][limit]["mode"]


def until_restarted(fleet, name):
    """The view of a bot that was restarted for its offence; botd is asked for the state of the fleet all the while."""

    def ended():
        assert len(fleet.rpc("bots.list", limit=2000)["items"]) >= HEALTHY
        view = fleet.bot(name)
        return view if view["restarts"] >= 1 and view["last_exit"] else None

    return until(ended, f"a restart of {name}")


def test_a_memory_hog_is_ended_and_restarted_with_the_reason(crowd, healthy):
    crowd.create(HOG, "leak 300 400", memory_mb=64, wait=False, stop_grace_s=2)
    view = until_restarted(crowd, HOG)
    assert view["last_exit"]["reason"] == "memory"
    assert view["memory_limit_bytes"] == 64 << 20
    told = " ".join(event["text"] for event in crowd.events(HOG))
    if mode(crowd, "memory") == "enforced":
        assert view["limits_by"]["memory"] == "enforced"
        words = view["last_exit"]["words"]
        assert words.startswith("killed by the kernel for memory: peak 6"), words
        assert words.endswith("limit 64 MiB (memory_mb)"), words
        assert words in told
    else:
        assert view["limits_by"]["memory"] == "watched"
        assert "MiB over its limit of 64 MiB (memory_mb, watched)" in told
    explained = crowd.rpc("bots.explain", id=HOG)
    assert any("raise memory_mb" in line for line in explained["advice"])
    crowd.rpc("bots.delete", select=ids(HOG), timeout_s=30)


def test_what_a_bot_starts_counts_as_its_own(crowd, healthy):
    # The hog is a child: its own main process stays small.
    command = [sys.executable, "-I", "-S", "-c", CHILD_HOG]
    crowd.create(HOG, command, memory_mb=64, wait=False, stop_grace_s=2)
    view = until_restarted(crowd, HOG)
    assert view["last_exit"]["reason"] == "memory"
    crowd.rpc("bots.delete", select=ids(HOG), timeout_s=30)


CHILD_HOG = """
import os, time
if os.fork() == 0:
    kept = []
    while len(kept) < 400:
        kept.append(b"x" * (1 << 20))
        time.sleep(0.003)
time.sleep(600)
"""


def test_a_fork_bomb_is_contained_and_restarted_by_policy(crowd, healthy):
    crowd.create(BOMB, "bomb 400", wait=False, stop_grace_s=2)
    view = until_restarted(crowd, BOMB)
    assert view["processes_limit"] == 48
    told = " ".join(event["text"] for event in crowd.events(BOMB))
    if mode(crowd, "processes") == "enforced":
        assert view["last_exit"]["code"] == 1
        assert "refused by its limit of processes" in view["last_exit"]["words"]
    else:
        assert view["last_exit"]["reason"] == "processes"
        assert "over its limit of 48 (maxProcessesPerBot, watched)" in told
    explained = crowd.rpc("bots.explain", id=BOMB)
    assert any("(maxProcessesPerBot)" in line for line in explained["advice"])
    crowd.rpc("bots.delete", select=ids(BOMB), timeout_s=30)


def test_a_bomb_that_does_not_heed_its_limit_is_named_while_it_runs(crowd, healthy):
    if mode(crowd, "processes") != "enforced":
        pytest.skip("where limits are watched it is ended")
    crowd.create(BOMB, "bomb 400 stubborn", wait=False, stop_grace_s=2)

    def named():
        advice = crowd.rpc("bots.explain", id=BOMB)["advice"]
        return [line for line in advice if line.startswith("it was refused one more process or thread")]

    [line] = until(named, "a word about refused forks")
    assert "its limit of 48 (maxProcessesPerBot) is reached" in line
    assert crowd.bot(BOMB)["restarts"] == 0
    crowd.rpc("bots.delete", select=ids(BOMB), timeout_s=30)


def test_limits_change_under_a_running_bot(crowd, healthy):
    crowd.create(HOG, "until go + leak 300 200", memory_mb=400, stop_grace_s=2)
    pid = crowd.bot(HOG)["pid"]
    spec = {**crowd.rpc("fleet.export", select=ids(HOG))["items"][0], "memory_mb": 64}
    applied = crowd.rpc("fleet.apply", source="hog", bots=[spec], timeout_s=30)
    assert applied["summary"]["failed"] == 0
    assert (crowd.bot(HOG)["pid"], crowd.bot(HOG)["memory_limit_bytes"]) == (pid, 64 << 20)
    crowd.touch(HOG, "go")
    assert until_restarted(crowd, HOG)["last_exit"]["reason"] == "memory"
    crowd.rpc("bots.delete", select=ids(HOG), timeout_s=30)


@pytest.mark.skipif("LIMITS_RELIEF" not in os.environ, reason="takes half a minute; LIMITS_RELIEF=1 runs it")
def test_a_machine_short_of_memory_is_relieved_of_who_grows(crowd, healthy):
    crowd.create(HOG, "leak 2 400", memory_mb=1024, stop_grace_s=2)
    until(lambda: crowd.bot(HOG)["uptime_s"] > YOUNG_S, "an age at which growth counts", within=2 * YOUNG_S)
    percent = crowd.rpc("system.status")["machine"]["memory_percent"]
    limits = {**CONFIG["resourceManagement"], "memoryThreshold": max(1, percent // 2)}
    crowd.configure({**CONFIG, "resourceManagement": limits})
    crowd.rpc("config.reload")
    try:
        view = crowd.until_bot(HOG, lambda view: view["reason"].startswith("waiting to start"))
        assert view["last_exit"]["reason"] == "relief"
        told = crowd.events(HOG, kind="condemned")[-1]["text"]
        assert told.startswith("relieved: the machine's memory is at ") and told.endswith(" MiB/min, the fastest")
        assert any("starts are refused" in event["text"] for event in crowd.events(kind="memory"))
    finally:
        crowd.configure(CONFIG)
        crowd.rpc("config.reload")
    crowd.until_phase(HOG, "running")
    crowd.rpc("bots.delete", select=ids(HOG), timeout_s=30)


def test_status_and_doctor_say_what_is_in_force(crowd, healthy):
    modes = {"memory": mode(crowd, "memory"), "processes": mode(crowd, "processes")}
    for words in (crowd.botctl("daemon", "status").stdout, crowd.botctl("system", "status").stdout):
        [line] = [line for line in words.splitlines() if line.strip().startswith("Limits:")]
        assert all(how in line for how in modes.values()), line
    checks = {item["check"]: item for item in json.loads(crowd.botctl("doctor", "-o", "json").stdout)["items"]}
    for limit, how in modes.items():
        assert checks[limit]["text"].startswith(how)
        assert bool(checks[limit]["remedy"]) == (how == "watched")
    shown = crowd.botctl("status", "alice/b000").stdout
    assert f"({modes['memory']})" in shown
    assert f"of 48 ({modes['processes']})" in shown
