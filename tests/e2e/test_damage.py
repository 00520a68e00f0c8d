"""The database damaged, removed, replaced, made unwritable: under a running fleet and before a start.

The bots run on with their pids, looking works, changing is refused in words, and `daemon repair` puts it right.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fleet_house import FAST, alive, ids, kill, until

SECRETS = {"TOKEN": "not to be seen"}


@pytest.fixture
def live(make_fleet):
    """Two bots that run, one that is stopped, and a snapshot that has them all."""
    fleet = make_fleet().up()
    fleet.create("alice/one", "sleep", secrets=SECRETS)
    fleet.create("alice/two", "sleep")
    fleet.create("bob/down", "sleep", start=False)
    return fleet


def database(fleet, suffix=""):
    return Path(fleet.home, f"botd.db{suffix}")


def garbage(path):
    path.write_bytes(os.urandom(30_000))


def folder(path):
    path.unlink()
    path.mkdir()


def cut(path):
    os.truncate(path, path.stat().st_size // 3)


def restart_of(fleet, name):
    """Kill the bot: it has to come back whatever the database is like."""
    before = fleet.bot(name)
    kill(before["pid"])
    after = fleet.until_bot(name, lambda bot: bot["phase"] == "running" and bot["pid"] != before["pid"], "another life")
    assert after["generation"] == before["generation"] + 1
    return after["pid"]


def repaired(fleet):
    done = fleet.botctl("daemon", "repair", "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sound_afterwards(fleet, *running):
    """Everything works and is on record, secrets too: proved by another botd."""
    assert fleet.rpc("daemon.status")["database"]["state"] == "ok"
    assert fleet.botctl("daemon", "repair", "--check").returncode == 0
    before = {bot_id: bot["pid"] for bot_id, bot in fleet.bots().items() if bot_id in running}
    fleet.create("alice/after", "sleep", start=False)
    fleet.kill_daemon()
    assert "alice/after" in fleet.bots()
    assert {bot_id: bot["pid"] for bot_id, bot in fleet.bots().items() if bot_id in running} == before
    assert fleet.rpc("daemon.status")["waiting_for_disk"] == 0
    if "alice/one" in running:
        pid = restart_of(fleet, "alice/one")
        assert f"TOKEN={SECRETS['TOKEN']}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize("ruin", [Path.unlink, garbage, cut])
def test_under_a_running_fleet(live, ruin):
    pids = live.pids("alice/one", "alice/two")
    if ruin is cut:
        live.down()
        live.up()  # so that it is folded, and the file has all there is
        assert live.pids("alice/one", "alice/two") == pids
    if ruin is garbage:
        other = database(live, ".other")
        garbage(other)
        other.rename(database(live))
    else:
        ruin(database(live))
    if ruin is cut:
        error = live.refused("bots.stop", select=ids("alice/two"))
        assert "is damaged: it was cut off" in error.message and error.hint == "botctl daemon repair"
        assert error.kind == "unavailable" and error.exit == 1
        [warning] = [one for one in live.rpc("daemon.status")["warnings"] if "damaged" in one["text"]]
        assert warning["remedy"] == "botctl daemon repair"
        assert live.pids("alice/one", "alice/two") == pids
        pids["alice/one"] = restart_of(live, "alice/one")
        doctor = live.botctl("doctor")
        assert doctor.returncode == 1 and "is damaged" in doctor.stdout and "botctl daemon repair" in doctor.stdout
        report = repaired(live)
        assert report["repaired"] and report["bots"] == 3 and report["lost"] == [] and os.path.exists(report["kept"])
    else:
        # Nothing was lost: botd has it all, and writes it again without being asked.
        until(lambda: any(one["kind"] == "database" for one in live.events()), "the file to be written again")
    assert live.pids("alice/one", "alice/two") == pids
    sound_afterwards(live, "alice/one", "alice/two")


@pytest.mark.parametrize("ruin", [folder, garbage, cut])
def test_before_a_start(live, ruin):
    pids = live.pids("alice/one", "alice/two")
    live.down()
    ruin(database(live))
    live.up()
    # What can be read is shown, what runs is kept, what would be promised is refused.
    assert live.pids("alice/one", "alice/two") == pids and "bob/down" in live.bots()
    status = live.rpc("daemon.status")
    assert status["database"]["state"] == "damaged" and status["database"]["remedy"] == "botctl daemon repair"
    for method, params in (("bots.stop", {"select": ids("alice/two")}), ("bots.delete", {"select": ids("bob/down")})):
        error = live.refused(method, **params)
        assert "is damaged" in error.message and error.hint == "botctl daemon repair"
    done = live.botctl("create", "alice/no", "-C", "/", "--", "/bin/true")
    assert done.returncode == 1 and "botctl daemon repair" in done.stderr and "Traceback" not in done.stderr
    pids["alice/one"] = restart_of(live, "alice/one")
    assert live.bot("bob/down")["phase"] == "stopped"
    assert live.botctl("daemon", "repair", "--check").returncode == 1
    report = repaired(live)
    assert report["bots"] == 3 and report["lost"] == [] and alive(pids["alice/two"])
    assert live.pids("alice/one", "alice/two") == pids
    sound_afterwards(live, "alice/one", "alice/two")


def test_without_database_and_snapshot_what_runs_is_taken_over(live):
    pids = live.pids("alice/one", "alice/two")
    live.down()
    database(live, ".snapshot").unlink()
    garbage(database(live))
    live.up()
    assert live.bots() == {}
    assert all(map(alive, pids.values()))
    report = repaired(live)
    assert sorted(report["adopted"]) == ["alice/one", "alice/two"]
    assert live.pids() == pids
    spec = live.rpc("fleet.export")["items"]
    assert SECRETS["TOKEN"] not in json.dumps(spec)
    sound_afterwards(live, "alice/one", "alice/two")


def test_a_repair_without_a_daemon(live):
    live.down()
    cut(database(live))
    doctor = live.botctl("doctor")
    assert doctor.returncode == 1 and "botctl daemon repair" in doctor.stdout
    Path(live.home, "bot_config.json").write_text("{ this is no configuration")
    # No daemon can be started: the program repairs by itself.
    report = repaired(live)
    assert report["repaired"] and report["bots"] == 3 and report["lost"] == []
    live.configure(FAST)
    live.up()
    assert live.rpc("daemon.status")["database"]["state"] == "ok"


def test_rot_is_found_by_the_regular_look_and_told(make_fleet):
    config = {**FAST, "storageOptimization": {"cleanupInterval": 1000}, "resourceManagement": {"cleanupInterval": 1000}}
    fleet = make_fleet(config).up()
    for i in range(5):
        fleet.create(f"alice/b{i}", "sleep", start=False)
    until(lambda: fleet.rpc("daemon.status")["database"]["checked_at"], "the first look")
    with database(fleet).open("r+b") as file:
        for page in range(2, database(fleet).stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    until(lambda: fleet.rpc("daemon.status")["database"]["state"] == "damaged", "the damage to be found")
    assert repaired(fleet)["bots"] == 5


@pytest.mark.root
def test_a_read_only_database(live):
    pids = live.pids("alice/one", "alice/two")
    live.down()
    path = str(database(live))
    mounted = subprocess.run(["mount", "--bind", path, path], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("nothing may be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        live.up()
        assert live.pids("alice/one", "alice/two") == pids
        error = live.refused("bots.stop", select=ids("alice/two"))
        assert "cannot be written" in error.message and "read-only" in error.hint
        pids["alice/one"] = restart_of(live, "alice/one")
    finally:
        subprocess.run(["umount", "-l", path], check=True)
    # Nobody has to restart or repair anything.
    until(lambda: live.rpc("daemon.status")["database"]["state"] == "ok", "the database to be used again")
    assert live.pids("alice/one", "alice/two") == pids
    sound_afterwards(live, "alice/one", "alice/two")


def test_a_socket_that_is_removed_is_made_again(live):
    os.unlink(live.socket)
    live.hang_up()
    until(lambda: os.path.exists(live.socket), "the socket")
    assert live.botctl("list").returncode == 0


def test_a_home_that_is_removed_under_a_fleet(live):
    pids = live.pids("alice/one", "alice/two")
    live.hang_up()
    shutil.rmtree(live.home, ignore_errors=True)
    until(lambda: live._answers(), "botd at its socket again")
    live.configure(FAST)
    assert live.pids("alice/one", "alice/two") == pids
    until(lambda: any(one["kind"] == "database" for one in live.events()), "the database to be written again")
    stopped = live.rpc("bots.stop", select=ids("alice/two"))
    assert stopped["items"][0]["ok"] and not alive(pids["alice/two"])
    assert live.rpc("bots.start", select=ids("alice/two"))["items"][0]["ok"]
    until(lambda: os.path.exists(f"{live.home}/run/keeper.sock"), "the keeper at its socket again")
    live.kill_keeper()
    until(lambda: live.rpc("daemon.status")["keeper"]["connected"], "another keeper")
    sound_afterwards(live, "alice/one", "alice/two")
