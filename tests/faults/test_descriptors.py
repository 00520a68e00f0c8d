"""botd with 64 descriptors and not one more: a small fleet works, an administrator gets in, and nothing is lost."""

from __future__ import annotations

import os
import resource

import pytest
from fleet_house import FAST, NOBODY, alive, ids, kill, python_for_everybody, until
from hostile_house import ANSWER_MAX_S, Administrator, crowd, descriptors, report

from botd.system.descriptors import shares

LIMIT = 64
BOTS = [f"alice/b{n}" for n in range(12)]


def squeeze(fleet, limit=LIMIT):
    """A botd that was started with this limit; its keeper keeps the one that it has."""
    fleet.foreground = True
    fleet.kill_daemon()
    original = fleet._identity
    fleet._identity = lambda: {
        **original(),
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    }
    try:
        fleet.up()
    finally:
        fleet._identity = original
    assert resource.prlimit(fleet.daemon_pid, resource.RLIMIT_NOFILE) == (limit, limit)
    return fleet


@pytest.fixture
def tight(make_fleet):
    fleet = make_fleet({**FAST, "security": {"socketAccess": "everyone"}}, environ={"BOTD_RESPAWN": "0"}).up()
    fleet.create("alice/first", "sleep")
    return squeeze(fleet)


def test_the_shares_leave_room_for_the_daemon_itself():
    for limit in (40, 64, 256, 1024, 4096, 20_000, 1 << 20):
        found = shares(limit)
        assert 4 <= found.connections <= 1024
        assert found.held_below + found.connections + found.probes < limit
        assert found.sampled <= max(0, limit - 32)
    assert shares(1 << 20).connections == 1024
    assert shares(1 << 20).held_below > 1_000_000


def test_a_small_fleet_with_everybody_at_the_door(tight):
    """Twelve bots would hold 36 descriptors, and a crowd all the others."""
    before = tight.pids()
    for name in BOTS:
        tight.create(name, "print up + witness 0.05")
    assert tight.pids("alice/first") == before
    pid, admin = tight.daemon_pid, Administrator(tight)
    tight.hang_up()
    others = {} if os.geteuid() else {"uid": NOBODY, "python": python_for_everybody()}
    with crowd(tight, 200, "idle"), crowd(tight, 200, "drip", **others), crowd(tight, 50, "deaf", **others):
        admin.ask(30, pause=0.01)
        tight.rpc("bots.restart", select=ids(*BOTS[:6]), timeout_s=30)
        most = descriptors(pid)
        tight.hang_up()
        admin.ask(10, pause=0.01)
    report("64 descriptors", admin, 0, 0, f", {most} open")
    assert admin.worst < ANSWER_MAX_S
    assert {bot["phase"] for bot in tight.bots().values()} == {"running"}
    assert "Traceback" not in tight.daemon_log()
    assert tight.daemon_pid == pid


def replace_keeper(fleet):
    keeper = fleet.kill_keeper()
    until(lambda: fleet.rpc("daemon.status")["keeper"]["pid"] not in (None, keeper), "another keeper")
    until(lambda: any("connected to the keeper again" in event["text"] for event in fleet.events()), "what it says")


def test_what_a_short_botd_did_not_hold_is_found_by_the_next_keeper(tight):
    names = BOTS[:7]
    for name in names:
        tight.create(name, "until go + print after + crash 7" if name == names[-1] else "sleep", restart="never")
    before = tight.pids()
    replace_keeper(tight)
    assert tight.pids() == before
    tight.touch(names[-1], "go")
    assert tight.until_phase(names[-1], "failed")["last_exit"]["code"] in (7, None)
    assert "after" in tight.lines(names[-1])


def test_what_a_short_keeper_cannot_look_for_is_not_taken_for_dead(tight):
    """The new keeper is botd's child and may have as few descriptors as botd."""
    for name in BOTS:
        tight.create(name, "sleep", restart="never")
    before = tight.pids()
    replace_keeper(tight)
    assert tight.pids() == before
    assert all(alive(pid) for pid in before.values())
    assert not tight.events(kind="exited")
    for pid in before.values():
        kill(pid)
    until(lambda: not set(tight.pids().values()) & set(before.values()), "their ends")


def test_followers_are_refused_with_words_and_served_when_there_is_room(tight):
    for name in BOTS:
        tight.create(name, "sleep")
    refused = tight.refused("bots.logs", select={"all": True}, follow=True)
    assert (refused.kind, "64" in refused.message) == ("unavailable", True)
    assert "LimitNOFILE" in refused.hint
    assert tight.rpc("bots.logs", select=ids(BOTS[0]), follow=True)["subscription"]


def test_a_start_without_descriptors_waits_and_happens_when_there_are_some(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/lives", "sleep")
    fleet.create("alice/waits", "sleep", start=False)
    keeper = fleet.keeper_pid
    given = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (4, given[1]))
    try:
        fleet.rpc("bots.start", select=ids("alice/waits"), wait=False)
        view = fleet.until_bot("alice/waits", lambda bot: bot["phase"] == "backoff")
        assert "out of file descriptors" in view["reason"]
        assert "LimitNOFILE" in view["reason"]
    finally:
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, given)
    assert fleet.until_phase("alice/waits", "running")["restarts"] == 0
    assert fleet.bot("alice/lives")["phase"] == "running"
