"""The clock set by a year, both ways, and a night's sleep of the machine, under a running fleet."""

from __future__ import annotations

import json

import pytest
from fleet_house import FAST, ids

YEAR = 365 * 86400.0


@pytest.fixture
def stepped(make_fleet, tmp_path):
    file = tmp_path / "clock"
    file.write_text("0 0")
    fleet = make_fleet(FAST, environ={"BOTD_CLOCK": str(file)}).up()

    def step(wall=0.0, asleep=0.0):
        new = file.with_suffix(".new")
        new.write_text(f"{wall} {asleep}")
        new.rename(file)

    return fleet, step


@pytest.mark.parametrize("by", [YEAR, -YEAR])
def test_a_year_both_ways(stepped, by):
    fleet, step = stepped
    fleet.create("alice/steady", "print before + sleep")
    fleet.create("alice/crashes", "until go + crash 1")
    before = fleet.bot("alice/steady")
    first = fleet.rpc("bots.stop", select=ids("alice/steady"), request_id="once", timeout_s=30)
    fleet.rpc("bots.start", select=ids("alice/steady"), timeout_s=30)
    running = fleet.bot("alice/steady")
    assert running["pid"] != before["pid"]
    step(by)
    # The same request again is the same request, whatever the clock says.
    assert fleet.rpc("bots.stop", select=ids("alice/steady"), request_id="once", timeout_s=30) == first
    now = fleet.bot("alice/steady")
    assert now["pid"] == running["pid"]
    assert running["uptime_s"] <= now["uptime_s"] < running["uptime_s"] + 60
    assert abs(int(now["started_at"][:4]) - int(running["started_at"][:4])) == 1  # shown on today's clock
    # A crash backs off by seconds that pass, not by what the clock shows.
    fleet.touch("alice/crashes", "go")
    failed = fleet.until_phase("alice/crashes", "failed")
    assert failed["restarts"] == 3
    assert 0 <= fleet.rpc("daemon.status")["uptime_s"] < 120
    # Nothing is too old all of a sudden.
    fleet.rpc("system.cleanup")
    assert fleet.lines("alice/steady")[:1] == ["before"]
    pid = fleet.kill_daemon()
    assert fleet.persist("daemon.version")["pid"] != pid
    assert fleet.bot("alice/steady")["pid"] == running["pid"]
    assert fleet.bot("alice/steady")["uptime_s"] < 120


def test_eight_hours_of_sleep(stepped):
    """A backoff is over, a running bot has run on, and nobody is restarted for it."""
    fleet, step = stepped
    fleet.configure(
        json.dumps({**FAST, "botRecovery": {**FAST["botRecovery"], "restartDelay": 20_000, "maxBackoffDelay": 60_000}})
    )
    fleet.rpc("config.reload")
    for n in range(5):
        fleet.create(f"alice/runs{n}", "sleep")
    fleet.create("alice/waits", "fail-first 1 + sleep", wait=False)
    fleet.until_phase("alice/waits", "backoff")
    pids = {name: pid for name, pid in fleet.pids().items() if "runs" in name}
    step(asleep=8 * 3600.0)
    # Whatever happens next, the loop looks at its deadlines: nobody has to wait for the rest of the backoff.
    fleet.rpc("bots.stop", select=ids("alice/runs0"), timeout_s=30)
    view = fleet.until_phase("alice/waits", "running")
    assert view["restarts"] == 1
    del pids["alice/runs0"]
    assert {name: pid for name, pid in fleet.pids().items() if name in pids} == pids
    assert all(fleet.bot(name)["uptime_s"] >= 8 * 3600 for name in pids)
