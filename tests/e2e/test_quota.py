"""A user's quota of storage, with real bots that really write: what is refused, what goes on, and the words."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from fleet_house import FAST, NOBODY, until

from botd.contract.vocabulary import Exit
from botd.core.settings import MIB

LIMIT_MB = 24
CONFIG = {**FAST, "resourceManagement": {**FAST["resourceManagement"], "maxStoragePerUser": LIMIT_MB}}
OTHERS = [f"user{number}/bot" for number in range(10)]


@pytest.fixture(scope="module")
def shared_fleet():
    from fleet_house import Fleet

    fleet = Fleet(CONFIG).up()
    yield fleet
    fleet.close()


def quota_lines(fleet, user):
    return [event["text"] for event in fleet.events(kind="quota") if f" {user} " in event["text"]]


def storage(fleet, user):
    [item] = fleet.rpc("users.resources", user=user)["items"]
    return item


def until_told(fleet, user, words):
    return until(lambda: [text for text in quota_lines(fleet, user) if text.startswith(words)], words)[-1]


def fill(fleet, name, megabytes):
    """A person puts a file there: no process of the fleet has written it."""
    with open(fleet.data(name, "by-hand"), "wb") as file:
        file.write(b"x" * (megabytes << 20))


def du(path):
    """Whole blocks, as `du` counts them."""
    out = subprocess.run(["du", "-s", "-B1", str(path)], capture_output=True, check=True, text=True).stdout
    return int(out.split()[0])


def test_one_user_over_the_quota_and_ten_others(fleet):
    for name in OTHERS:
        fleet.create(name, "witness")
    fleet.create("alice/quiet", "until never + sleep")
    fleet.create("alice/new", "sleep", start=False)
    before = fleet.pids(*OTHERS, "alice/quiet")
    fleet.create("alice/writer", "write grows 4000 200")
    stopped = fleet.until_phase("alice/writer", "stopped")

    # The one that writes is stopped, and says so everywhere.
    assert stopped["last_exit"]["reason"] == "quota"
    assert stopped["desired"] == "stopped"
    assert f"over {LIMIT_MB} MiB (maxStoragePerUser)" in stopped["reason"]
    assert "alice keeps" in stopped["reason"] and "grows fastest" in stopped["reason"]
    assert stopped["last_exit"]["words"] == "stopped because its user was over the quota of storage"
    told = until_told(fleet, "alice", "quota passed")
    assert f"of {LIMIT_MB} MiB (maxStoragePerUser)" in told and "biggest: alice/writer" in told
    item = storage(fleet, "alice")
    assert item["storage_bytes"] > item["storage_limit_bytes"] == LIMIT_MB * MIB
    assert item["storage_level"] == "over"
    [warning] = [one for one in fleet.rpc("daemon.status")["warnings"] if "quota" in one["text"]]
    assert warning["remedy"] == "botctl resources --user alice"
    # Nothing was deleted for it.
    assert fleet.data("alice/writer", "grows").stat().st_size > 0.9 * LIMIT_MB * MIB

    # Starts and creations are refused, with limit, value, who is big and what helps.
    done = fleet.botctl("start", "alice/new")
    assert done.returncode == Exit.REFUSED
    for word in ("maxStoragePerUser", f"over the quota of {LIMIT_MB} MiB", "alice/writer", "botctl resources"):
        assert word in done.stderr + done.stdout
    done = fleet.botctl("create", "alice/more", "--", "/bin/true")
    assert done.returncode == Exit.REFUSED and "maxStoragePerUser" in done.stderr
    error = fleet.refused("bots.create", spec={"id": "alice/more", "command": ["/bin/true"]})
    assert (error.kind, error.exit) == ("quota", Exit.REFUSED)
    assert error.details["limit"] == "maxStoragePerUser"

    # What does not write goes on, and so does everybody else, who may also start and create.
    assert fleet.pids(*OTHERS, "alice/quiet") == before
    assert {bot["phase"] for bot in fleet.bots(*OTHERS, "alice/quiet").values()} == {"running"}
    assert fleet.create("user0/second", "sleep")["ok"]
    assert storage(fleet, "user0")["storage_level"] == "within"

    # Room is made: at once the bots may start, but those that were stopped for it wait for their owner.
    fleet.data("alice/writer", "grows").unlink()
    assert fleet.botctl("start", "alice/new").returncode == Exit.OK
    told = until_told(fleet, "alice", "quota kept again")
    assert "botctl recover 'user:alice'" in told
    assert fleet.bot("alice/writer")["phase"] == "stopped"
    recovered = fleet.rpc("bots.recover", select={"any": [{"user": "alice"}]})["items"]
    assert {item["id"]: item["result"] for item in recovered if item["changed"]} == {"alice/writer": "recovered"}


def test_the_second_writer_is_stopped_too(fleet):
    fleet.create("bob/one", "write grows 4000 60")
    fleet.create("bob/two", "write grows 4000 60")
    for name in ("bob/one", "bob/two"):
        assert fleet.until_phase(name, "stopped")["last_exit"]["reason"] == "quota"


def test_who_did_not_write_it_is_not_stopped(fleet):
    fleet.create("carol/bot", "sleep")
    pid = fleet.pids("carol/bot")
    until(lambda: fleet.bot("carol/bot")["storage_bytes"] is not None, "a first figure")
    fill(fleet, "carol/bot", LIMIT_MB + 8)
    item = storage(fleet, "carol")
    assert item["storage_bytes"] > LIMIT_MB * MIB
    until_told(fleet, "carol", "quota passed")
    assert fleet.refused("bots.create", spec={"id": "carol/b", "command": ["/bin/true"]}).kind == "quota"
    assert storage(fleet, "carol")["storage_level"] == "over"
    assert fleet.pids("carol/bot") == pid


def test_what_lies_in_the_trash_counts_until_it_is_emptied(fleet):
    fleet.create("dora/big", "sleep")
    fill(fleet, "dora/big", LIMIT_MB + 4)
    storage(fleet, "dora")
    fleet.rpc("bots.delete", select={"any": [{"id": "dora/big"}]})
    error = fleet.refused("bots.create", spec={"id": "dora/b", "command": ["/bin/true"]})
    assert error.kind == "quota" and "botctl trash empty --user dora" in error.hint
    assert fleet.botctl("trash", "empty", "--user", "nobody", "--yes").returncode == 0
    fleet.refused("bots.create", spec={"id": "dora/b", "command": ["/bin/true"]})
    assert fleet.botctl("trash", "empty", "--user", "dora", "--yes").returncode == 0
    assert fleet.create("dora/b", "sleep")["ok"]
    # Brought back it counts as before; what is deleted for good does not.
    fill(fleet, "dora/b", 2)
    before = storage(fleet, "dora")["storage_bytes"]
    fleet.rpc("bots.delete", select={"any": [{"id": "dora/b"}]})
    fleet.rpc("bots.undelete", id="dora/b")
    assert abs(storage(fleet, "dora")["storage_bytes"] - before) < MIB
    fleet.rpc("bots.delete", select={"any": [{"id": "dora/b"}]}, purge=True)
    assert fleet.create("dora/c", "sleep")["ok"]


def test_the_figures_follow_what_is_written_and_deleted(fleet):
    seed = int(os.environ.get("QUOTA_SEED") or time.time_ns())
    chance = random.Random(seed)
    names = [f"walk{number}/bot" for number in range(4)]
    for name in names:
        fleet.create(name, "write own 6 + until never + sleep")
    # What a bot writes itself is found without anybody asking for it.
    until(lambda: all((bot["storage_bytes"] or 0) >= 6 * MIB for bot in fleet.bots(*names).values()), "their figures")
    for _ in range(200):
        path = fleet.data(chance.choice(names), f"{chance.randrange(3)}")
        match chance.randrange(4):
            case 0 if path.is_dir():
                shutil.rmtree(path)
            case 1:
                path.mkdir(exist_ok=True)
                (path / f"{chance.randrange(9)}").write_bytes(b"x" * chance.randrange(300_000))
            case 2 if path.is_dir():
                os.link(fleet.data(path.parts[-4] + "/bot", "own"), path / f"{chance.random()}")
            case 3 if path.is_dir():
                (path / "link").unlink(missing_ok=True)
                (path / "link").symlink_to(fleet.home)
    for name in names:
        storage(fleet, name.partition("/")[0])
    kept = {name: fleet.bot(name)["storage_bytes"] for name in names}
    report = fleet.rpc("system.storage", verify=True)
    changed = {item["id"] for item in report["verified"]["items"]}
    assert changed.isdisjoint(names), f"QUOTA_SEED={seed}"
    for name in names:
        logs = sum(file.lstat().st_blocks * 512 for file in Path(fleet.home, "logs", name).iterdir())
        assert kept[name] == du(fleet.data(name).parent) + logs, f"QUOTA_SEED={seed}"
    assert report["used"]["private_bytes"] + report["used"]["log_bytes"] == sum(
        bot["storage_bytes"] for bot in fleet.bots().values()
    )


def test_the_report_says_where_everything_is(fleet):
    fleet.create("gina/bot", "sleep")
    fill(fleet, "gina/bot", 3)
    trash = Path(fleet.home, "trash", "old.0123456789ab")
    trash.mkdir()
    (trash / "file").write_bytes(b"x" * MIB)
    os.utime(trash / "file", (0, 0))
    report = fleet.rpc("system.storage", verify=True)
    used = report["used"]
    assert report["used_bytes"] == sum(used.values())
    assert used["trash_bytes"] >= MIB and used["database_bytes"] > 0 and used["release_bytes"] == 0
    assert report["users"][0] | {"bytes": 0, "bots": 0} == {
        "user": "gina",
        "bytes": 0,
        "limit_bytes": LIMIT_MB * MIB,
        "level": "within",
        "bots": 0,
        "biggest": "gina/bot",
    }
    assert report["bots"][0]["id"] == "gina/bot"
    assert report["sharing"] == {"bots": 0, "copies_bytes": 0, "used_bytes": 0, "saved_percent": None}
    assert report["cleanup"]["bytes"] == sum(report["cleanup"]["by_kind"].values())
    assert report["measured"]["missing"] == 0
    shown = fleet.botctl("system", "storage")
    assert shown.returncode == 0 and "gina/bot: 3.0M" in shown.stdout
    fleet.rpc("bots.delete", select={"any": [{"id": "gina/bot"}]})
    # What a bot had counts no longer once it is gone; where it went to is another class.
    assert "gina" not in {user["user"] for user in fleet.rpc("system.storage")["users"]}


def test_shared_code_is_counted_once_and_against_nobody(fleet, tmp_path):
    heavy = tmp_path / "node_modules" / "heavy"
    heavy.mkdir(parents=True)
    for number in range(20):
        (heavy / f"{number}.js").write_bytes(os.urandom(100_000))
    (tmp_path / "bot.sh").write_text("exec sleep 600\n")
    (tmp_path / "botd-template.toml").write_text('schema = 1\ncommand = ["/bin/sh", "bot.sh"]\n')
    fleet.rpc("templates.add", name="heavy", path=str(tmp_path))
    for number in range(30):
        fleet.create(f"hanna/bot{number}", ["/bin/sh", "bot.sh"], start=False, template="heavy")
    item = storage(fleet, "hanna")
    assert item["storage_bytes"] < 30 * 100_000  # far less than one copy each
    assert {bot["shared_bytes"] for bot in item["bots_storage"]} == {2_000_000 // 30}
    report = fleet.rpc("system.storage")
    assert report["used"]["release_bytes"] >= 2_000_000
    sharing = report["sharing"]
    assert sharing["bots"] == 30 and sharing["copies_bytes"] > 30 * 2_000_000
    assert sharing["saved_percent"] == round(100 * (1 - sharing["used_bytes"] / sharing["copies_bytes"]), 1) > 90


def test_a_manifest_may_bring_another_once_the_biggest_is_gone_for_good(fleet):
    big, new = ({"id": f"ivan/{name}", "command": ["/bin/sleep", "600"]} for name in ("big", "new"))
    fleet.rpc("fleet.apply", source="m", bots=[big])
    fill(fleet, "ivan/big", LIMIT_MB + 1)
    assert storage(fleet, "ivan")["storage_level"] == "over"
    assert fleet.refused("fleet.apply", source="m", bots=[big, new]).kind == "quota"
    assert set(fleet.bots()) == {"ivan/big"}
    # What prune deletes goes to the trash, and counts there.
    assert fleet.refused("fleet.apply", source="m", bots=[new], prune=True).kind == "quota"
    assert set(fleet.bots()) == {"ivan/big"}
    fleet.rpc("bots.delete", select={"any": [{"id": "ivan/big"}]}, purge=True)
    fleet.rpc("fleet.apply", source="m", bots=[new])
    assert set(fleet.bots()) == {"ivan/new"}


def test_a_crashed_bot_waits_and_comes_back_by_itself(fleet):
    fleet.create("erin/bot", "until go + crash 3")
    fill(fleet, "erin/bot", LIMIT_MB + 1)
    assert storage(fleet, "erin")["storage_level"] == "over"
    fleet.touch("erin/bot", "go")
    waiting = fleet.until_bot("erin/bot", lambda bot: "waiting to start" in bot["reason"])
    assert waiting["phase"] == "backoff" and "maxStoragePerUser" in waiting["reason"]
    fleet.data("erin/bot", "by-hand").unlink()
    fleet.data("erin/bot", "go").unlink()
    until(lambda: storage(fleet, "erin")["storage_level"] == "within", "a new figure")
    [item] = fleet.wait("running", "erin/bot")["items"]
    assert item["ok"], item


@pytest.mark.root
def test_without_privileges_it_is_the_same(make_fleet):
    fleet = make_fleet(CONFIG, uid=NOBODY).up()
    fleet.create("judy/writer", "write grows 4000 100")
    assert fleet.until_phase("judy/writer", "stopped")["last_exit"]["reason"] == "quota"
    fleet.down(bots=True)


def test_levels_survive_a_restart_and_a_higher_limit_ends_them(make_fleet):
    fleet = make_fleet(CONFIG).up()
    fleet.create("dora/bot", "sleep", start=False)
    fill(fleet, "dora/bot", LIMIT_MB - 3)
    assert storage(fleet, "dora")["storage_level"] == "near"
    [text] = quota_lines(fleet, "dora")
    assert text.startswith("quota near: dora keeps") and "biggest: dora/bot" in text
    fill(fleet, "dora/bot", LIMIT_MB + 1)
    assert storage(fleet, "dora")["storage_level"] == "over"
    fleet.down()
    record = {key: json.loads(body) for key, body in fleet.query("SELECT id, body FROM usage")}
    assert record["dora"] == {"level": "over"}
    assert record["dora/bot"]["private"] > LIMIT_MB * MIB
    fleet.up()
    assert fleet.refused("bots.create", spec={"id": "dora/b", "command": ["/bin/true"]}).kind == "quota"
    assert len(quota_lines(fleet, "dora")) == 2
    more = {**CONFIG["resourceManagement"], "maxStoragePerUser": 4 * LIMIT_MB}
    fleet.configure({**CONFIG, "resourceManagement": more})
    fleet.rpc("config.reload")
    assert storage(fleet, "dora")["storage_level"] == "within"
    assert quota_lines(fleet, "dora")[-1].startswith("quota kept again")
    assert fleet.botctl("start", "dora/bot").returncode == Exit.OK
    fleet.down(bots=True)
