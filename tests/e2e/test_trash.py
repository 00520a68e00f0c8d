"""delete, undelete and the trash, as its users have it; and botd killed at each step of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from fleet_house import FAST, ROOT, ids, until
from template_house import write_python

SECRETS = {"TOKEN": "not to be seen"}


def points(kind):
    """The crash points of botd/ with this beginning, those of both folders spelt out."""
    source = "".join(path.read_text() for path in sorted((ROOT / "botd").rglob("*.py")))
    names = set(re.findall(rf'crash_point\(f?"(botd-{kind}-[^"]*)"\)', source))
    return sorted({name.replace("{part}", part) for name in names for part in ("bot", "logs")})


def make(fleet, bot_id="alice/shop", **spec):
    """A bot that runs, with data, output and a secret."""
    fleet.create(bot_id, "print hello + sleep", secrets=SECRETS, labels={"tier": "free"}, **spec)
    fleet.until_line(bot_id, "hello")
    fleet.data(bot_id, "session").write_text("precious")
    return fleet.bot(bot_id)


def delete(fleet, *names, **params):
    return fleet.rpc("bots.delete", select=ids(*names), timeout_s=30, **params)["items"]


def undelete(fleet, name, **params):
    return fleet.rpc("bots.undelete", id=name, timeout_s=30, **params)["items"][0]


def trash(fleet):
    return fleet.persist("trash.list")["items"]


def entries(fleet):
    return sorted(os.listdir(f"{fleet.home}/trash"))


def as_before(fleet, bot_id="alice/shop"):
    bot = fleet.bot(bot_id)
    assert bot["labels"] == {"tier": "free"}
    assert fleet.data(bot_id, "session").read_text() == "precious"
    assert "hello" in fleet.lines(bot_id)
    assert not trash(fleet) and not entries(fleet)
    return bot


@pytest.fixture
def fleet(shared_fleet):
    """The module's fleet without a bot, and without any in its trash."""
    yield shared_fleet
    shared_fleet.clear()
    shared_fleet.rpc("trash.empty")


def test_a_deleted_bot_comes_back_with_everything_it_had(fleet):
    before = make(fleet, port=True, env={"PREFIX": "!"})
    [told] = delete(fleet, "alice/shop")
    assert told["ok"] and told["result"] == "deleted" and "botctl undelete alice/shop" in told["reason"]
    [kept] = trash(fleet)
    assert (kept["key"], kept["kept_until"]) == (told["trash"]["key"], told["trash"]["kept_until"])
    assert (
        kept["id"] == "alice/shop"
        and kept["bytes"] > 0
        and kept["secrets"] == ["TOKEN"]
        and kept["env"] == {"PREFIX": "***"}
    )
    assert "not to be seen" not in json.dumps(kept) + Path(kept["path"], "bot.json").read_text()
    assert not os.path.exists(f"{fleet.home}/bots/alice") and not fleet.bots()

    back = undelete(fleet, "alice/shop")
    assert back["ok"] and back["phase"] == "stopped" and back["reason"] == ""
    bot = as_before(fleet)
    assert (bot["port"], bot["created_at"]) == (before["port"], before["created_at"])
    fleet.rpc("bots.start", select=ids("alice/shop"))
    environment = Path(f"/proc/{fleet.bot('alice/shop')['pid']}/environ").read_bytes()
    assert b"TOKEN=not to be seen\0" in environment and b"PREFIX=!\0" in environment
    assert "brought back" in fleet.events("alice/shop", kind="undeleted")[0]["text"]


def test_another_one_of_that_name_does_not_lose_to_it(fleet):
    make(fleet, port=True)
    port = fleet.bot("alice/shop")["port"]
    delete(fleet, "alice/shop")
    fleet.create("alice/shop", "sleep", port=True)
    error = fleet.refused("bots.undelete", id="alice/shop")
    assert error.kind == "conflict" and "--as" in error.hint
    back = undelete(fleet, "alice/shop", **{"as": "alice/old"}, start=True)
    assert back["result"] == "undeleted, running" or back["result"].startswith("undeleted, "), back
    bot = as_before(fleet, "alice/old")
    assert bot["phase"] == "running"
    assert Path(f"/proc/{bot['pid']}/cwd").readlink() == fleet.data("alice/old")
    assert (bot["port"] != port) == (fleet.bot("alice/shop")["port"] == port)


def test_an_id_that_was_deleted_twice_is_asked_for_by_its_key(fleet):
    for text in ("first", "second"):
        fleet.create("alice/shop", "sleep", start=False)
        fleet.data("alice/shop", "which").write_text(text)
        delete(fleet, "alice/shop")
    first, second = trash(fleet)
    error = fleet.refused("bots.undelete", id="alice/shop")
    assert error.kind == "conflict" and first["key"] in error.message and second["key"] in error.hint
    undelete(fleet, first["key"])
    assert fleet.data("alice/shop", "which").read_text() == "first"
    assert [item["key"] for item in trash(fleet)] == [second["key"]]


def test_what_is_purged_or_emptied_is_gone(fleet):
    make(fleet)
    [told] = delete(fleet, "alice/shop", purge=True)
    assert (told["result"], told["trash"]) == ("deleted for good", None)
    make(fleet, "alice/other")
    delete(fleet, "alice/other")
    done = fleet.rpc("trash.empty", ids=["alice/other", "alice/none"], dry_run=True)
    assert [item["result"] for item in done["items"]] == ["would be removed", "not found"] and trash(fleet)
    done = fleet.rpc("trash.empty")
    assert done["freed_bytes"] > 0 and not trash(fleet)
    until(lambda: not entries(fleet), "an empty trash")
    assert fleet.query("SELECT * FROM trash") == [] and fleet.query("SELECT * FROM secrets") == []
    assert fleet.refused("bots.undelete", id="alice/shop").kind == "not_found"


def test_the_command_line(fleet):
    make(fleet)
    assert "undelete" in fleet.botctl("delete", "alice/shop", "--yes").stdout
    shown = fleet.botctl("trash", "show", "alice/shop")
    assert shown.returncode == 0 and "TOKEN" in shown.stdout and "not to be seen" not in shown.stdout
    key = fleet.botctl("trash", "list", "-o", "name").stdout.strip()
    assert fleet.botctl("undelete", key, "--start").returncode == 0
    assert fleet.botctl("undelete", "alice/none").returncode == 4
    assert fleet.botctl("delete", "alice/shop", "--purge", "--yes").returncode == 0
    assert fleet.botctl("trash", "empty", "--yes").returncode == 0


def test_without_a_grace_age_nothing_is_kept_and_limits_count_live_bots_only(make_fleet):
    limits = {**FAST["resourceManagement"], "maxBotsPerUser": 1}
    fleet = make_fleet({**FAST, "resourceManagement": limits}).up()
    fleet.create("alice/one", "sleep", start=False)
    delete(fleet, "alice/one")
    fleet.create("alice/two", "sleep", start=False)
    assert fleet.refused("bots.undelete", id="alice/one").kind == "limit"
    assert len(trash(fleet)) == 1
    fleet.configure({**FAST, "storageOptimization": {"deleteGrace": 0}})
    fleet.rpc("config.reload")
    [told] = delete(fleet, "alice/two")
    assert told["trash"] is None
    # What was promised before stays promised.
    assert [item["id"] for item in trash(fleet)] == ["alice/one"]


def test_what_is_over_its_age_goes_by_itself_and_data_of_nobody_goes_to_the_trash(make_fleet):
    storage = {"cleanupInterval": 1000, "deleteGrace": 1, "maxFileAge": 60_000}
    fleet = make_fleet({**FAST, "storageOptimization": {**storage, "enableGarbageCollection": False}}).up()
    make(fleet)
    fleet.create("alice/stays", "sleep", start=False)
    fleet.data("alice/stays", "session").write_text("precious")
    delete(fleet, "alice/shop")
    dry = fleet.rpc("system.cleanup", dry_run=True)
    [item] = [item for item in dry["items"] if item["kind"] == "deleted bot"]
    assert item["action"] == "kept" and "enableGarbageCollection is off" in item["reason"]
    fleet.configure({**FAST, "storageOptimization": storage})
    fleet.rpc("config.reload")
    until(lambda: not trash(fleet) and not entries(fleet), "an empty trash")
    assert fleet.data("alice/stays", "session").read_text() == "precious"


def test_a_damaged_database_lets_nothing_go_and_a_repair_knows_what_was_deleted(make_fleet):
    fleet = make_fleet().up()
    make(fleet)
    delete(fleet, "alice/shop")
    fleet.create("alice/live", "sleep", start=False)
    fleet.down()
    for suffix in ("", "-wal", ".snapshot"):
        path = Path(f"{fleet.home}/botd.db{suffix}")
        if path.exists():
            path.write_bytes(os.urandom(30_000))
    for path in Path(fleet.home).glob("botd.db.*"):
        path.write_bytes(os.urandom(30_000))
    fleet.up()
    cleaned = fleet.rpc("system.cleanup")["items"]
    assert all(item["action"] == "kept" for item in cleaned if item["kind"] != "socket"), cleaned
    assert fleet.data("alice/live").is_dir() and entries(fleet)
    fleet.rpc("daemon.repair")
    # The note beside the data is all that is left: everything but the values of secrets comes back.
    back = undelete(fleet, "alice/shop")
    assert "TOKEN are lost" in back["reason"]
    as_before(fleet)


def test_a_bot_of_a_template_comes_back_with_its_release(fleet, tmp_path):
    source = write_python(tmp_path / "source")
    fleet.rpc("templates.add", name="messenger", path=source)
    spec = {"id": "alice/shop", "template": "messenger"}
    fleet.rpc("bots.create", spec=spec, start=True, timeout_s=30)
    before = fleet.bot("alice/shop")
    delete(fleet, "alice/shop")
    fleet.rpc("templates.update", name="messenger", path=write_python(tmp_path / "next", "two"))
    error = fleet.refused("templates.remove", name="messenger")
    assert error.kind == "conflict" and "alice/shop" in error.message and "trash empty" in error.hint
    back = undelete(fleet, "alice/shop", **{"as": "bob/other"}, start=True)
    assert back["ok"], back
    bot = fleet.bot("bob/other")
    assert (bot["template"], bot["release"]) == ("messenger", before["release"])
    assert Path(f"/proc/{bot['pid']}/cwd").readlink() == Path(fleet.home, "bots/bob/other/app")
    delete(fleet, "bob/other", purge=True)
    fleet.rpc("templates.remove", name="messenger")


# --- kill -9 at each step ---------------------------------------------------------------------------


@pytest.fixture
def mortal(make_fleet):
    """A daemon that dies at a point, in the foreground, and one after it that does not."""
    fleet = make_fleet(foreground=True)

    def restart(point=""):
        fleet.hang_up()
        for child in fleet._children:
            if child.poll() is None:
                fleet.kill_daemon()
        fleet.environ["BOTD_CRASH_AT"] = point
        fleet.up()

    fleet.restart = restart
    return fleet.up()


def dies(fleet, method, **params):
    """Make a call that ends botd. Whether it was answered before."""
    child = fleet._children[-1]
    answered = True
    try:
        fleet.rpc(method, **params)
    except (ConnectionError, OSError):
        answered = False
    child.wait(30)
    assert child.returncode == -9
    return answered


def test_killed_in_the_middle_of_a_deletion(mortal):
    names = points("remove")
    assert len(names) == 5
    for point in ("botd-request-decided", "botd-request-committed", *names):
        make(mortal)
        mortal.rpc("bots.stop", select=ids("alice/shop"))
        mortal.restart(point)
        dies(mortal, "bots.delete", select=ids("alice/shop"), timeout_s=30)
        mortal.restart()
        # It is there, or in the trash, whole in both; and what was on record is done.
        if point != "botd-request-decided":
            assert not mortal.bots() and not os.path.exists(f"{mortal.home}/bots/alice"), point
            assert [item["id"] for item in trash(mortal)] == ["alice/shop"]
            undelete(mortal, "alice/shop")
        as_before(mortal)
        delete(mortal, "alice/shop", purge=True)


def test_killed_while_the_bot_to_be_deleted_is_ending(mortal):
    make(mortal)
    mortal.restart("botd-stop-told")
    dies(mortal, "bots.delete", select=ids("alice/shop"), purge=True, timeout_s=30)
    mortal.restart()
    until(lambda: not mortal.bots(), "the end of the bot")
    # That it is to go for good is not forgotten on the way.
    until(lambda: not trash(mortal) and not entries(mortal), "an empty trash")


def test_killed_in_the_middle_of_an_undelete(mortal):
    names = points("undelete")
    assert len(names) == 4
    make(mortal)
    bot_id = "alice/shop"
    for point in names:
        delete(mortal, bot_id)
        mortal.restart(point)
        as_id = "bob/other" if bot_id == "alice/shop" else "alice/shop"
        dies(mortal, "bots.undelete", id=bot_id, **{"as": as_id})
        mortal.restart()
        as_before(mortal, as_id)
        mortal.rpc("bots.start", select=ids(as_id))
        assert mortal.data(as_id, "session").read_text() == "precious"
        bot_id = as_id


def test_killed_in_the_middle_of_a_purge(mortal):
    names = points("purge")
    assert len(names) == 2
    for point, how in [(name, "empty") for name in names] + [("botd-purge-removed", "delete")]:
        make(mortal)
        if how == "empty":
            delete(mortal, "alice/shop")
        mortal.restart(point)
        params = {} if how == "empty" else {"select": ids("alice/shop"), "purge": True}
        dies(mortal, "trash.empty" if how == "empty" else "bots.delete", **params)
        mortal.restart()
        assert not trash(mortal) and not mortal.bots()
        until(lambda: not entries(mortal) and not mortal.query("SELECT * FROM trash"), "the rest of it to go")
