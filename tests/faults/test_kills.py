"""kill -9 of botd and of the keeper, at random, while a fleet is busy. BOTD_SEED repeats a run."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from fleet_house import ALL, FAST, alive, ids, kill, until

SEED = int(os.environ.get("BOTD_SEED", "4711"))
BOTS = 20
# Half of them under each way of containment.
DAEMON_KILLS, KEEPER_KILLS = 13, 5
LINES = 30
"""How many lines a life writes before it ends by itself, for those that do."""

KINDS = (
    "witness 0.02",
    f"witness 0.02 {LINES} + crash 3",
    f"witness 0.02 {LINES}",
    "term-after 0.05 + witness 0.02",
)


@pytest.fixture(params=["auto", "tree"])
def busy(request, make_fleet):
    config = {**FAST, "resourceManagement": {"autoRestartMaxAttempts": 100_000, "memoryThreshold": 100}}
    fleet = make_fleet(config, containment=request.param).up()
    for i in range(BOTS):
        fleet.create(name(i), KINDS[i % len(KINDS)], wait=False, stop_grace_s=1)
    yield fleet
    print(f"BOTD_SEED={SEED}")  # shown with a failure


def name(i):
    return f"u{i % 3}/w{i:02}"


def stir(fleet, chance):
    """A few requests that nobody waits for; their answers may die with botd."""
    for _ in range(chance.randrange(1, 5)):
        verb = chance.choice(("start", "stop", "restart", "restart", "start"))
        try:
            fleet.rpc(f"bots.{verb}", select=ids(name(chance.randrange(BOTS))), wait=False)
        except OSError:
            return


def kill_daemon(fleet):
    fleet.kill_daemon()
    # As a person would: the next command, which must cope with the keeper doing the same at this moment.
    done = fleet.botctl("list", "-q")
    assert done.returncode == 0, done.stderr


def kill_keeper(fleet):
    old = fleet.kill_keeper()
    until(lambda: _keeper(fleet) not in (None, old), "another keeper")


def _keeper(fleet):
    keeper = fleet.persist("daemon.status")["keeper"]
    return keeper["pid"] if keeper["connected"] else None


def test_random_kills(busy):
    chance = random.Random(SEED)
    kills = [kill_daemon] * DAEMON_KILLS + [kill_keeper] * KEEPER_KILLS
    chance.shuffle(kills)
    for blow in kills:
        stir(busy, chance)
        # The instant of the blow is the fault that is injected: nothing is waited for here.
        time.sleep(chance.random() * 0.05)
        blow(busy)

    # Everything converges: first to running, then to nothing.
    busy.rpc("bots.start", select=ALL, wait=False)
    for i in range(BOTS):
        busy.until_bot(name(i), lambda bot: bot["phase"] == "running", "a run after the storm")
    views = busy.bots()
    assert all(bot["desired"] == "running" for bot in views.values())
    pids = [bot["pid"] for bot in views.values() if bot["pid"]]
    assert len(pids) == len(set(pids))
    check_processes(busy)
    stopped = busy.rpc("bots.stop", select=ALL, timeout_s=30)
    assert stopped["summary"]["failed"] == 0, [item for item in stopped["items"] if not item["ok"]]
    assert not [pid for pid in pids if alive(pid)]
    check_lives(busy)
    check_logs(busy)
    assert busy.rpc("daemon.status")["waiting_for_disk"] == 0
    assert "Traceback" not in busy.daemon_log(), busy.daemon_log()[-3000:]
    assert "unexpected" not in busy.keeper_log(), busy.keeper_log()[-3000:]


def check_processes(fleet):
    """No bot has two main processes, whatever the daemon believes."""
    mains = Counter(_bot_of(pid) for pid, command in fleet.processes() if "scripted.py" in command)
    assert all(count == 1 for count in mains.values()), mains


def _bot_of(pid):
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return f"gone {pid}"
    return next((entry.decode() for entry in environ if entry.startswith(b"BOT_ID=")), "?")


def check_lives(fleet):
    """Each life began and ended at most once on record, none found a twin, and every end is told exactly."""
    exact = _kernel() >= (6, 15)
    started, exited = Counter(), Counter()
    for event in fleet.events():
        life = (event["id"], event["generation"])
        if event["kind"] == "started":
            started[life] += 1
        elif event["kind"] == "exited":
            exited[life] += 1
            assert "code 99" not in event["text"], event
            if exact and started[life]:  # a life that was asked for and never began has no status to know
                assert "unknown" not in event["text"], json.dumps((event, _around(fleet, event)), indent=1)
    for kind in (started, exited):
        twice = [life for life, count in kind.items() if count > 1]
        assert not twice, [event for event in fleet.events() if (event["id"], event["generation"]) == twice[0]]
    for bot_id, bot in fleet.bots().items():
        assert bot["generation"] == max(generation for name, generation in exited if name == bot_id)


def _around(fleet, event):
    """What the two programs said of that bot and of themselves in that second and the one before."""
    history = [
        one for one in fleet.events() if one["id"] in (event["id"], None) and abs(one["seq"] - event["seq"]) < 60
    ]
    said = (fleet.keeper_log() + fleet.daemon_log()).splitlines()
    return history, [line for line in said if line[:18] == event["at"][:18]]


def check_logs(fleet):
    """Every line of every life, once and in order; a life that ended by itself wrote all that it meant to."""
    by_itself = {
        (event["id"], event["generation"])
        for event in fleet.events()
        if event["kind"] == "exited" and re.search(r"code [03]\b", event["text"])
    }
    complete = 0
    for i in range(BOTS):
        folder = Path(fleet.home, "logs", name(i))
        # Nobody wrote to it: the file was never made.
        assert not (folder / "err.log").exists(), name(i)
        lives = defaultdict(list)
        for line in (folder / "out.log").read_text().splitlines():
            word, life, number = line.split()
            assert word == "witness"
            lives[int(life)].append(int(number))
        assert lives, name(i)
        assert list(lives) == sorted(lives)
        for life, numbers in lives.items():
            assert numbers == list(range(1, len(numbers) + 1)), (name(i), life)
            complete += len(numbers) == LINES and i % len(KINDS) in (1, 2)
        if i % len(KINDS) in (1, 2):
            assert sum(len(numbers) == LINES for numbers in lives.values()) >= sum(
                life[0] == name(i) for life in by_itself
            ), name(i)
    assert complete > BOTS, "the bots were not busy"


def test_both_at_once_again_and_again(busy):
    """The worst case: both are killed in the same moment. Bots run on, none runs twice, everything converges."""
    chance = random.Random(SEED + 1)
    for _ in range(3):
        stir(busy, chance)
        daemon, keeper = busy.daemon_pid, busy.keeper_pid
        busy.hang_up()
        first, second = chance.sample((daemon, keeper), 2)
        kill(first)
        kill(second)
        done = busy.botctl("list", "-q")
        assert done.returncode == 0, done.stderr
    busy.rpc("bots.start", select=ALL, wait=False)
    for i in range(BOTS):
        busy.until_bot(name(i), lambda bot: bot["phase"] == "running", "a run after the storm")
    check_processes(busy)
    stopped = busy.rpc("bots.stop", select=ALL, timeout_s=30)
    assert stopped["summary"]["failed"] == 0, stopped
    for i in range(BOTS):
        assert "code 99" not in "".join(event["text"] for event in busy.events(name(i), kind="exited"))
        errors = Path(busy.home, "logs", name(i), "err.log")
        assert not errors.exists() or "witness lock" not in errors.read_text()


def _kernel():
    release = os.uname().release.split("-")[0].split(".")
    return int(release[0]), int(release[1])
