"""botd or the keeper is killed: no bot stops, none runs twice, no exit status and no line is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from fleet_house import ALL, FAST, alive, gone, ids, kill, until


@pytest.fixture(params=["auto", "tree"])
def lone(request, make_fleet):
    """A fleet whose botd nobody brings back but botctl, under each way of containment."""
    return make_fleet(foreground=True, containment=request.param).up()


def adopted(fleet):
    """What botctl sees after it has started a new botd."""
    done = fleet.botctl("list", "-o", "json")
    assert done.returncode == 0, done.stderr
    return {bot["id"]: bot for bot in json.loads(done.stdout)["items"]}


def test_ends_while_botd_is_dead_have_their_exact_status(lone):
    lone.create("alice/runs", "sleep")
    lone.create("alice/exits", "until go + crash 7", restart="never")
    lone.create("alice/shot", "sleep", restart="never")
    lone.create("alice/back", "print hello + until go + crash 5")
    before = lone.pids()
    lone.kill_daemon()
    lone.touch("alice/exits", "go")
    lone.touch("alice/back", "go")
    os.kill(before["alice/shot"], signal.SIGUSR1)
    until(lambda: not any(alive(before[name]) for name in ("alice/exits", "alice/shot", "alice/back")), "three ends")
    after = adopted(lone)
    assert after["alice/runs"]["pid"] == before["alice/runs"]
    assert after["alice/runs"]["generation"] == 1
    assert (after["alice/exits"]["phase"], after["alice/exits"]["last_exit"]["code"]) == ("failed", 7)
    assert (after["alice/shot"]["phase"], after["alice/shot"]["last_exit"]["signal"]) == ("failed", "SIGUSR1")
    # Its policy goes on where the dead botd left it.
    lone.until_bot("alice/back", lambda bot: bot["generation"] >= 2 and bot["last_exit"]["code"] == 5)


def test_after_the_keeper_was_killed_pids_statuses_and_logs_are_whole(lone):
    if not _knows_exits():
        pytest.skip("the kernel keeps no exit status of a stranger (PIDFD_INFO_EXIT, Linux 6.15)")
    lone.create("alice/runs", "sleep")
    lone.create("alice/talks", "lines 400 0.005 + crash 7", restart="never")
    before = lone.pids()
    until(lambda: "00000010" in lone.lines("alice/talks"), "its first lines")
    old = lone.kill_keeper()
    lone.until_phase("alice/talks", "failed")
    until(lambda: lone.keeper_pid != old, "another keeper")
    assert lone.pids("alice/runs") == {"alice/runs": before["alice/runs"]}
    assert alive(before["alice/runs"])
    assert lone.bot("alice/talks")["last_exit"]["code"] == 7
    until(lambda: len(lone.lines("alice/talks")) >= 400, "its last line")
    assert lone.lines("alice/talks") == [f"{n:08}" for n in range(1, 401)]
    assert lone.rpc("bots.stop", select=ids("alice/runs"))["items"][0]["ok"]
    assert not alive(before["alice/runs"])


def test_both_killed_at_once(lone):
    lone.create("alice/runs", "witness 0.05")
    lone.create("alice/later", "until go + crash 6", restart="never")
    before = lone.pids()
    daemon, keeper = lone.daemon_pid, lone.keeper_pid
    lone.hang_up()
    os.kill(keeper, signal.SIGKILL)
    kill(daemon)
    kill(keeper)
    after = adopted(lone)
    assert {name: bot["pid"] for name, bot in after.items()} == before
    assert lone.keeper_pid != keeper
    lone.touch("alice/later", "go")
    ended = lone.until_phase("alice/later", "failed")["last_exit"]
    # Exact where the kernel tells it, else honestly unknown, never guessed.
    assert ended["code"] == 6 or (ended["code"] is None and ended["signal"] is None)
    result = lone.rpc("bots.restart", select=ids("alice/runs"))
    assert result["items"][0]["ok"], result
    assert not alive(before["alice/runs"])


def test_stop_after_adoption_ends_the_whole_tree(lone):
    lone.create("alice/family", "fork stubborn", stop_grace_s=0.3)
    family = lone.forked("alice/family")
    assert all(alive(pid) for pid in family.values())
    lone.kill_daemon()
    adopted(lone)
    assert lone.rpc("bots.stop", select=ids("alice/family"))["items"][0]["ok"]
    until(lambda: not any(alive(pid) for pid in family.values()), f"an end of {family}")


def test_stop_leaves_nothing_of_a_tree_whose_main_process_went_first(lone):
    lone.create("alice/family", "fork stubborn + until go + crash 4", restart="never")
    family = lone.forked("alice/family")
    lone.touch("alice/family", "go")
    assert lone.until_phase("alice/family", "failed")["last_exit"]["code"] == 4
    until(lambda: not any(alive(pid) for pid in family.values()), f"an end of {family}")


def test_a_botd_that_runs_alone_is_brought_back_by_the_keeper(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/runs", "sleep")
    before, old = fleet.pids(), fleet.kill_daemon()
    assert fleet.daemon_pid != old  # nobody asked for it
    assert fleet.pids() == before
    assert fleet.rpc("daemon.status")["keeper"]["respawns"] >= 1


def test_without_bots_a_stop_leaves_nothing(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/down", "sleep", start=False)
    keeper = fleet.rpc("daemon.status")["keeper"]["pid"]
    done = fleet.botctl("daemon", "stop")
    assert done.returncode == 0, done.stderr
    until(lambda: not alive(keeper), "the end of the keeper")
    assert fleet.botctl("list", "-o", "name").stdout.split() == ["alice/down"]


def test_bots_that_run_without_botd_are_told_of_and_stopped(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/runs", "sleep")
    pid = fleet.pids()["alice/runs"]
    keeper = fleet.rpc("daemon.status")["keeper"]["pid"]
    fleet.hang_up()
    assert fleet.botctl("daemon", "stop").returncode == 0
    assert "not running; 1 bot left running" in fleet.botctl("daemon", "stop").stdout
    assert alive(pid)
    done = fleet.botctl("daemon", "stop", "--bots", "--yes")
    assert done.returncode == 0 and "botd stopped" in done.stdout, done.stderr
    until(lambda: not alive(pid) and not alive(keeper), "the end of all of it")
    fleet.up()


def test_stopping_botd_leaves_the_bots_and_the_next_command_takes_them_over(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/runs", "sleep")
    fleet.create("alice/ends", "until go + crash 3", restart="never")
    before = fleet.pids()
    daemon = fleet.daemon_pid
    fleet.hang_up()
    done = fleet.botctl("daemon", "stop")
    assert done.returncode == 0, done.stderr
    until(lambda: not alive(daemon), "the end of botd")
    assert all(alive(pid) for pid in before.values())
    refused = fleet.botctl("list", "--no-autostart")
    assert refused.returncode == 7
    assert "botctl daemon start" in refused.stderr
    fleet.touch("alice/ends", "go")
    until(lambda: not alive(before["alice/ends"]), "an end meanwhile")
    after = adopted(fleet)
    assert after["alice/runs"]["pid"] == before["alice/runs"]
    assert after["alice/ends"]["last_exit"]["code"] == 3


def test_stopping_botd_with_its_bots_leaves_no_process_and_the_wanted_come_back(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/wanted", "fork")
    fleet.create("alice/unwanted", "sleep")
    fleet.create("alice/loop", "crash 1", wait=False)
    fleet.rpc("bots.stop", select=ids("alice/unwanted"))
    family = fleet.forked("alice/wanted")
    fleet.until_phase("alice/loop", "failed")
    fleet.hang_up()
    done = fleet.botctl("daemon", "stop", "--bots", "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: not fleet.processes(), "an end of every process")
    assert not any(alive(pid) for pid in family.values())
    fleet.up()
    assert fleet.wait("running", "alice/wanted")["items"][0]["ok"]
    bots = fleet.bots()
    assert bots["alice/wanted"]["generation"] == 2
    assert (bots["alice/unwanted"]["phase"], bots["alice/unwanted"]["desired"]) == ("stopped", "stopped")


@pytest.mark.parametrize("ended", [False, True], ids=["still-stopping", "ended-meanwhile"])
def test_what_is_wanted_outlives_a_botd_killed_while_it_stops_everything(make_fleet, ended):
    fleet = make_fleet(foreground=True).up()
    fleet.create("alice/deaf", "hang", stop_grace_s=1 if ended else 5)
    daemon, bot = fleet.daemon_pid, fleet.pids()["alice/deaf"]
    with fleet.connect() as asking, fleet.connect() as watching:
        watching.rpc("events.subscribe")
        asking.send(b'{"jsonrpc":"2.0","id":1,"method":"daemon.shutdown","params":{"bots":true}}\n')
        fleet.until_phase("alice/deaf", "stopping")
        fleet.hang_up()
        kill(daemon)
    if ended:
        gone(bot)
    adopted(fleet)
    assert fleet.bot("alice/deaf")["desired"] == "running"
    assert fleet.wait("running")["items"][0]["ok"]


def test_a_reboot_starts_the_wanted_again_and_says_what_was_lost(make_fleet):
    import sqlite3

    fleet = make_fleet().up()
    fleet.create("alice/wanted", "sleep")
    fleet.create("alice/unwanted", "sleep", start=False)
    fleet.create("alice/broken", "crash 1", wait=False)
    fleet.until_phase("alice/broken", "failed")
    # All at once and without a word, as a power cut does it.
    daemon, keeper, bot = fleet.daemon_pid, fleet.keeper_pid, fleet.pids()["alice/wanted"]
    fleet.hang_up()
    os.kill(keeper, signal.SIGSTOP)
    kill(daemon)
    kill(keeper)
    kill(bot)
    until(lambda: not fleet.processes(), "an end of every process")
    for name in ("keeper.journal", "keeper.journal.1"):
        path = fleet.home + "/run/" + name
        if os.path.exists(path):
            os.unlink(path)
    with sqlite3.connect(f"{fleet.home}/botd.db") as database:
        database.execute("UPDATE observed SET boot_id = 'another-boot'")
    database.close()
    fleet.up()
    assert fleet.wait("running", "alice/wanted")["items"][0]["ok"]
    bots = fleet.bots()
    assert bots["alice/wanted"]["generation"] == 2
    assert "reboot" in bots["alice/wanted"]["last_exit"]["reason"]
    assert bots["alice/wanted"]["last_exit"]["code"] is None
    assert bots["alice/wanted"]["restarts"] == 0
    assert bots["alice/unwanted"]["phase"] == "stopped"
    assert any("reboot" in event["text"] for event in fleet.events("alice/wanted"))


def test_limits_and_history_are_the_same_after_a_restart(make_fleet):
    fleet = make_fleet({**FAST, "resourceManagement": {"maxBotsPerUser": 1}}, foreground=True).up()
    fleet.create("alice/one", "sleep", labels={"tier": "free"}, env={"A": "1"}, memory_mb=64)
    before = fleet.rpc("bots.status", select=ALL)["items"][0]
    events = fleet.events("alice/one")
    fleet.kill_daemon()
    adopted(fleet)
    after = fleet.rpc("bots.status", select=ALL)["items"][0]
    moving = ("uptime_s", "memory_bytes", "cpu_percent", "log_bytes", "storage_bytes", "started_at")
    assert {k: v for k, v in after.items() if k not in moving} == {k: v for k, v in before.items() if k not in moving}
    assert fleet.events("alice/one")[: len(events)] == events
    assert fleet.refused("bots.create", spec={"id": "alice/two", "command": ["/bin/true"]}).kind == "limit"


def _knows_exits():
    release = os.uname().release.split("-")[0].split(".")
    return (int(release[0]), int(release[1])) >= (6, 15)


def test_an_older_database_under_a_running_fleet(make_fleet):
    """What runs is taken over, what is on no record is named and kept, and numbers that were used are passed over."""
    fleet = make_fleet(foreground=True).up()
    fleet.create("alice/old", "sleep")
    fleet.create("alice/down", "sleep")
    fleet.down()
    copy = f"{fleet.home}/older.db"
    shutil.copy(f"{fleet.home}/botd.db", copy)
    fleet.up()
    for _ in range(3):
        fleet.rpc("bots.restart", select={"any": [{"id": "alice/old"}, {"id": "alice/down"}]})
    fleet.rpc("bots.stop", select={"any": [{"id": "alice/down"}]})
    fleet.create("alice/new", "sleep")
    before = fleet.pids()
    fleet.down()
    for name in ("botd.db", "botd.db-wal"):
        if os.path.exists(f"{fleet.home}/{name}"):
            os.unlink(f"{fleet.home}/{name}")
    os.rename(copy, f"{fleet.home}/botd.db")
    fleet.up()
    assert fleet.pids()["alice/old"] == before["alice/old"]
    assert "alice/new" not in fleet.pids()
    warnings = " ".join(warning["text"] for warning in fleet.rpc("daemon.status")["warnings"])
    assert f"alice/new (pid {before['alice/new']})" in warnings
    os.kill(before["alice/new"], 0)
    fleet.wait("running", "alice/down")
    items = fleet.rpc("system.cleanup")["items"]
    assert [item["action"] for item in items if item["kind"] == "stray"] == ["removed"]
