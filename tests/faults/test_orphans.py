"""Fifty bots that fork, daemonise and orphan all they can, stopped: nothing of them is left, nobody else is hurt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleet_house import Fleet, alive, ids, until
from hostile_house import LONG

BOT = Path(__file__).with_name("orphans.py")
MANY = 50 if LONG else 12
DAEMON = """
import os
if os.fork():
    os._exit(0)
os.setsid()
os.write({tell}, b"%d" % os.getpid())
os.closerange(0, 64)
os.execve("/bin/sleep", ["sleep", "300"], {{}})
"""
GONE_WITHIN_S = 5.0 if LONG else 20.0


@pytest.fixture(params=["auto", "tree"])
def fleet_of_each(request, make_fleet):
    from fleet_house import FAST

    fleet = make_fleet(FAST, environ={"BOTD_CONTAINMENT": request.param}).up()
    if request.param == "auto" and fleet.rpc("daemon.status")["keeper"]["containment"] != "cgroup2":
        pytest.skip("no cgroup v2 folder that may be written to")
    return fleet


def plant(fleet, count, *more):
    """So many of these bots, standing: name -> pids."""
    out = {}
    for n in range(count):
        name, file = f"alice/o{n}", f"{fleet.home}/o{n}.pids"
        fleet.create(
            name, [sys.executable, "-I", "-S", str(BOT), file, *more], stop_grace_s=1, restart="never", wait=False
        )
    for n in range(count):
        file = Path(f"{fleet.home}/o{n}.pids")
        until(file.exists, "a bot and its orphans")
        out[f"alice/o{n}"] = [int(pid) for pid in file.read_text().split()]
        fleet._strangers.update(out[f"alice/o{n}"])
    return out


@pytest.fixture
def foreign():
    """Processes of the same user that are nobody's business: one of them a daemon like the bots' own."""
    plain = subprocess.Popen(["sleep", "300"], start_new_session=True)
    answer, tell = os.pipe()
    code = DAEMON.format(tell=tell)
    subprocess.run([sys.executable, "-I", "-S", "-c", code], pass_fds=(tell,), check=True)
    daemon = int(os.read(answer, 32))
    os.close(answer)
    os.close(tell)
    yield [plain.pid, daemon]
    plain.kill()
    plain.wait()
    os.kill(daemon, 9)


def stop_all(fleet, planted, neighbour, foreign):
    beside = fleet.forked("bob/neighbour") | {"bot": fleet.bot("bob/neighbour")["pid"]}
    fleet.rpc("bots.stop", select=ids(*planted), timeout_s=30)
    began = time.monotonic()
    everything = [pid for pids in planted.values() for pid in pids]
    until(lambda: not [pid for pid in everything if alive(pid)], "the end of it all", within=GONE_WITHIN_S)
    print(
        f"\n{len(everything)} processes of {len(planted)} bots gone {time.monotonic() - began:.2f} s after the answer"
    )
    assert all(alive(pid) for pid in beside.values())
    assert all(alive(pid) for pid in foreign)
    assert fleet.bot("bob/neighbour")["pid"] == neighbour


@pytest.mark.parametrize("leaves", ["stays", "leaves first"])
def test_nothing_is_left(fleet_of_each, foreign, leaves):
    fleet: Fleet = fleet_of_each
    fleet.create("bob/neighbour", "fork stubborn + sleep")
    neighbour = fleet.bot("bob/neighbour")["pid"]
    planted = plant(fleet, MANY, *(["leave"] if leaves == "leaves first" else []))
    stop_all(fleet, planted, neighbour, foreign)


@pytest.mark.parametrize("leaves", ["stays", "leaves first"])
def test_nothing_is_left_after_the_keeper_was_killed(fleet_of_each, foreign, leaves):
    """Their orphans come to the next keeper no more; it knows them all the same."""
    fleet: Fleet = fleet_of_each
    fleet.create("bob/neighbour", "fork stubborn + sleep")
    neighbour = fleet.bot("bob/neighbour")["pid"]
    planted = plant(fleet, MANY // 2, *(["leave"] if leaves == "leaves first" else []))
    keeper = fleet.kill_keeper()
    until(lambda: fleet.rpc("daemon.status")["keeper"]["pid"] not in (None, keeper), "another keeper")
    stop_all(fleet, planted, neighbour, foreign)
