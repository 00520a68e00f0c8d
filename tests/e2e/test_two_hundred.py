"""The shipped limits with a full fleet on them, and what happens to it when botd is killed."""

from __future__ import annotations

import json

import pytest
from fleet_house import ALL, Fleet, alive, ids, until

USERS = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module")
def full():
    """200 bots of 4 users on the shipped defaults; nobody but botctl brings botd back."""
    fleet = Fleet(config=None, foreground=True).up()
    try:
        bots = [
            {"id": f"{user}/b{i:02}", "command": ["/bin/sleep", "600"], "stop_grace_s": 2}
            for user in USERS
            for i in range(50)
        ]
        applied = fleet.rpc("fleet.apply", source="full", bots=bots, timeout_s=60)
        assert applied["summary"]["failed"] == 0, [item for item in applied["items"] if not item["ok"]][:3]
        yield fleet
    finally:
        fleet.close()


def test_two_hundred_run_on_defaults(full):
    bots = full.bots()
    assert len(bots) == 200
    assert {bot["phase"] for bot in bots.values()} == {"running"}
    assert len({bot["pid"] for bot in bots.values()}) == 200
    assert all(alive(bot["pid"]) for bot in bots.values())


@pytest.mark.parametrize(
    ("bot_id", "limit", "value"), [("alice/one-more", "maxBotsPerUser", "50"), ("eve/first", "maxTotalBots", "200")]
)
def test_one_more_is_refused_with_limit_and_value(full, bot_id, limit, value):
    before = full.pids()
    done = full.botctl("create", bot_id, "--start", "--", "/bin/sleep", "600")
    assert done.returncode == 6
    assert limit in done.stderr
    assert value in done.stderr
    assert "config reload" in done.stderr
    assert done.stdout == ""
    assert full.pids() == before


def test_the_fifty_first_by_apply_is_refused_and_brings_none_of_its_companions(full):
    full.rpc("bots.delete", select=ids("dave/b49"))
    try:
        before = full.pids()
        bots = [{"id": f"dave/new{i}", "command": ["/bin/true"]} for i in range(2)]
        error = full.refused("fleet.apply", source="more", bots=bots)
        assert (error.kind, error.exit) == ("limit", 6)
        assert error.details["limit"] == "maxBotsPerUser"
        assert error.details["value"] == 50
        assert error.details["used"] == 49
        assert full.pids() == before
    finally:
        full.create("dave/b49", ["/bin/sleep", "600"])


def test_a_pruned_bot_makes_room_for_its_successor(full):
    """A manifest with another name in it, applied to a full user: as many bots afterwards as before."""
    keep = [
        {"id": f"{user}/b{i:02}", "command": ["/bin/sleep", "600"], "stop_grace_s": 2}
        for user in USERS
        for i in range(50)
    ]
    swapped = [bot for bot in keep if bot["id"] != "bob/b07"]
    swapped.append({"id": "bob/renamed", "command": ["/bin/sleep", "600"], "stop_grace_s": 2})
    before = full.pids()
    full.rpc("fleet.apply", source="full", bots=swapped, prune=True, timeout_s=60)
    after = full.pids()
    assert len(after) == 200
    assert "bob/b07" not in after
    assert {k: v for k, v in after.items() if k != "bob/renamed"} == {k: v for k, v in before.items() if k != "bob/b07"}


def test_kill_nine_of_botd_changes_no_pid_and_the_next_command_brings_botd_back(full):
    before = full.pids()
    old = full.kill_daemon()
    done = full.botctl("list", "-o", "json")
    assert done.returncode == 0, done.stderr
    after = {bot["id"]: bot["pid"] for bot in json.loads(done.stdout)["items"]}
    assert after == before
    assert full.daemon_pid != old
    assert {bot["phase"] for bot in full.bots().values()} == {"running"}


def test_after_that_every_command_works(full):
    before = full.pids()
    for words in (
        ("status", "alice/b00"),
        ("health",),
        ("explain", "alice/b00"),
        ("logs", "alice/b00"),
        ("events",),
        ("wait", "--all", "--for", "running"),
        ("is-active", "alice/b00"),
        ("resources",),
        ("export",),
        ("system", "status"),
        ("system", "performance"),
        ("config", "show"),
        ("daemon", "status"),
        ("cleanup", "--dry-run"),
    ):
        done = full.botctl(*words)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout or words[0] in ("logs", "cleanup"), words
    assert full.pids() == before


def test_stop_and_restart_of_two_hundred_leave_nothing_of_their_lives(full):
    old = full.pids()
    restarted = full.rpc("bots.restart", select=ALL, timeout_s=60)
    assert restarted["summary"]["failed"] == 0
    new = full.pids()
    assert not set(new.values()) & set(old.values())
    assert not [pid for pid in old.values() if alive(pid)]
    stopped = full.rpc("bots.stop", select=ALL, timeout_s=60)
    assert stopped["summary"]["failed"] == 0
    until(lambda: not [pid for pid in new.values() if alive(pid)], "an end of all lives")
    assert {bot["phase"] for bot in full.bots().values()} == {"stopped"}
