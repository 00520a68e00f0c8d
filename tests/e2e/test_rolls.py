"""Rolls with real releases and real bots: a good one, a bad one, a way back, and botd killed in the middle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fleet_house import ALL, BOTCTL, FAST, WITHIN_S, Fleet, ids, until

from botd.contract.errors import BotdError

BOT = """
echo %s >> "$BOT_DATA/lives"
test %s = broken && exit 3
exec sleep 1000
"""
CONFIG = {**FAST, "botRecovery": {**FAST["botRecovery"], "settleTime": 600}}
"""A bot that crashes at once has crashed before anybody believes it, also on a busy machine."""


def write(folder, word):
    """The source of a release whose bots write down its name when they begin; those of `broken` crash."""
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "bot.sh").write_text(BOT % (word, word))
    Path(folder, "botd-template.toml").write_text('schema = 1\ncommand = ["sh", "bot.sh"]\n')
    return str(folder)


def lives(fleet, bot_id):
    """Which releases a bot has run, in order."""
    path = fleet.data(bot_id, "lives")
    return path.read_text().split() if path.exists() else []


def until_lives(fleet, *wanted):
    """Wait until these bots have begun these lives, and no others."""
    for bot_id, words in wanted:
        until(lambda bot_id=bot_id, words=words: lives(fleet, bot_id) == words, f"the lives {words} of {bot_id}")


def people(fleet, source, count, stopped=()):
    """A template and bots of it, all running but those of these numbers. Their ids, and the hash of the release."""
    made = fleet.rpc("templates.add", name="echo", path=write(source, "one"))
    names = [f"alice/b{number:02}" for number in range(count)]
    specs = [{"id": name, "template": "echo", "enabled": i not in stopped} for i, name in enumerate(names)]
    done = fleet.rpc("fleet.apply", source="/f.toml", bots=specs, timeout_s=WITHIN_S)
    assert done["summary"]["failed"] == 0, done
    return names, made["release"]


def hold(fleet, source, word):
    """A release that is on record and not in force yet."""
    return fleet.rpc("templates.update", name="echo", path=write(source, word), hold=True)["release"]


def roll(fleet, to, **options):
    return fleet.rpc("templates.roll", name="echo", to=to, **options)


def over(fleet):
    """The last roll, when none is open; whoever dies meanwhile is asked again."""
    return fleet.persist("templates.rolls", name="echo", wait=True)["items"][0]


def releases(fleet):
    return {bot["release"] for bot in fleet.bots().values()}


def in_force(fleet):
    [one] = fleet.rpc("templates.list")["items"]
    return one["release"]


@pytest.fixture(scope="module")
def running():
    fleet = Fleet(CONFIG).up()
    yield fleet
    fleet.close()


@pytest.fixture
def house(running):
    """The module's fleet, without bots and templates."""
    fleet = running
    yield fleet
    fleet.clear()
    for one in fleet.rpc("templates.list")["items"]:
        fleet.rpc("templates.remove", name=one["name"])


def test_a_good_roll_of_twenty(house, tmp_path):
    names, first = people(house, tmp_path / "src", 20, stopped=(7,))
    for name in names:
        house.data(name, "session.json").write_text(name)
    before = house.pids()
    source = write(tmp_path / "src", "two")
    done = house.botctl("template", "update", "echo", source, "--roll", "--batch", "25%", "--canary", "2")
    assert done.returncode == 0, done.stderr
    assert "20 bots moved" in done.stdout
    bots = house.bots()
    assert {bot["release"] for bot in bots.values()} == {in_force(house)} != {first}
    for name, bot in bots.items():
        assert house.data(name, "session.json").read_text() == name
        if name == names[7]:
            assert (bot["phase"], lives(house, name)) == ("stopped", [])
        else:
            assert bot["pid"] not in (None, before[name])
            until_lives(house, (name, ["one", "two"]))
    last = over(house)
    assert (last["phase"], last["batches"], last["moved"], last["failed"]) == ("finished", 5, 20, 0)
    told = [event["text"] for event in house.events(names[0], kind="changed")]
    assert told[-1] == f"release {first[:12]} -> {in_force(house)[:12]}: roll {last['id']}, batch 1 of 5"


def test_a_release_that_crashes_is_taken_back_and_the_others_never_notice(house, tmp_path):
    names, first = people(house, tmp_path / "src", 8)
    before = house.pids()
    source = write(tmp_path / "src", "broken")
    done = house.botctl("template", "update", "echo", source, "--roll", "--batch", "3", "--canary", "0", "-o", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["phase"], told["batch"], told["moved"]) == ("taken-back", 1, 0)
    assert "was taken back: batch 1 of 3" in done.stderr and "code 3" in done.stderr
    assert f"botctl explain {told['failures'][0]['id']}" in done.stderr
    after = house.bots()
    assert {name: bot["pid"] for name, bot in after.items() if name in names[3:]} == {
        name: before[name] for name in names[3:]
    }
    assert {bot["release"] for bot in after.values()} == {first} == {in_force(house)}
    house.wait("running")
    touched = [name for name in names[:3] if after[name]["pid"] != before[name]]
    # Some were taken back before their program began; who failed the gate has crashed, once or with its first retry.
    for name in touched:
        until(lambda name=name: len(lives(house, name)) > 1 and lives(house, name)[-1] == "one", "the former release")
        assert lives(house, name)[0] == "one" and set(lives(house, name)[1:-1]) <= {"broken"}
    assert "broken" in lives(house, told["failures"][0]["id"])
    until_lives(house, *((name, ["one"]) for name in names[3:]))
    explained = house.botctl("explain", told["failures"][0]["id"]).stdout
    assert "failed: exited with code 3" in explained and "is taken back" in explained


def test_one_at_a_time_and_an_abort(house, tmp_path):
    names, first = people(house, tmp_path / "src", 4)
    second = hold(house, tmp_path / "src", "two")
    begun = house.botctl(
        "template", "roll", "echo", "--to", second[:12], "--pause", "3600", "--batch", "2", "--no-wait"
    )
    assert (begun.returncode, "has begun: 4 bots" in begun.stdout) == (0, True), begun.stderr
    view = until(
        lambda: [one for one in house.rpc("templates.rolls", name="echo")["items"] if one["phase"] == "watching"],
        "a batch that is watched",
    )
    assert (view[0]["batch"], view[0]["moved"], view[0]["bots"]) == (1, 1, 4)
    for method, params in (
        ("templates.roll", {"to": second[:12]}),
        ("templates.rollback", {}),
        ("templates.update", {"path": write(tmp_path / "src", "three")}),
        ("templates.remove", {}),
    ):
        refused = house.refused(method, name="echo", **params)
        assert refused.kind == "conflict", method
        if method != "templates.rollback":
            assert "botctl template abort echo" in refused.hint
    shown = house.botctl("template", "rolls", "echo").stdout
    assert "watching" in shown and "1/4" in shown
    done = house.botctl("template", "abort", "echo")
    assert (done.returncode, "was taken back" in done.stdout) == (0, True), done.stderr
    assert releases(house) == {first}
    assert "aborted by" in over(house)["reason"]
    until_lives(house, (names[0], ["one", "two", "one"]))
    assert house.botctl("template", "abort", "echo").returncode == 4


def test_back_to_the_former_release_with_the_data_as_it_is(house, tmp_path):
    names, first = people(house, tmp_path / "src", 3)
    second = hold(house, tmp_path / "src", "two")
    done = house.botctl("template", "roll", "echo", "--to", second[:12], "--batch", "100%", "--canary", "0")
    assert done.returncode == 0, done.stderr
    house.data(names[0], "session.json").write_text("kept")
    done = house.botctl("template", "rollback", "echo", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["phase"] == "finished"
    assert (releases(house), in_force(house)) == ({first}, first)
    assert house.data(names[0], "session.json").read_text() == "kept"
    until_lives(house, (names[0], ["one", "two", "one"]))


def test_what_the_owner_does_meanwhile(house, tmp_path):
    names, _ = people(house, tmp_path / "src", 4)
    broken = hold(house, tmp_path / "src", "broken")
    # A bot that is stopped, one that is deleted: neither can fail a roll, and neither is started by it.
    house.rpc("bots.stop", select=ids(*names[1:]), timeout_s=WITHIN_S)
    house.rpc("bots.delete", select=ids(names[0]), timeout_s=WITHIN_S, purge=True)
    roll(house, broken)
    assert over(house)["phase"] == "finished"
    assert {bot["phase"] for bot in house.bots().values()} == {"stopped"}
    assert releases(house) == {broken}


def test_the_roll_and_its_follower_outlive_botd(make_fleet, tmp_path):
    fleet = make_fleet().up()
    names, _ = people(fleet, tmp_path / "src", 3)
    second = hold(fleet, tmp_path / "src", "two")
    follower = subprocess.Popen(
        [str(BOTCTL), "template", "roll", "echo", "--to", second, "--batch", "1", "--pause", "0.1", "-o", "json"],
        env=fleet.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: lives(fleet, names[0]) == ["one", "two"], "the first batch")
    fleet.kill_daemon()
    out, err = follower.communicate(timeout=WITHIN_S)
    assert follower.returncode == 0, err
    assert json.loads(out)["phase"] == "finished"
    assert releases(fleet) == {second}
    until_lives(fleet, *((name, ["one", "two"]) for name in names))
    # All bots go down with botd in the middle of another one: that says nothing about the release.
    third = hold(fleet, tmp_path / "src", "three")
    roll(fleet, third, batch="1", pause_s=0.1)
    until(lambda: "three" in lives(fleet, names[0]), "the first batch")
    fleet.down(bots=True)
    fleet.up()
    last = over(fleet)
    assert (last["phase"], last["failed"]) == ("finished", 0), last
    assert releases(fleet) == {third}
    fleet.wait("running")
    for name in names:
        until(lambda name=name: lives(fleet, name)[-1] == "three", f"the third release of {name}")


POINTS = {
    # Forwards with a good release: a batch on record, the next one decided, a batch asked for new lives.
    "good": ("botd-roll-recorded:1", "botd-roll-decided:2", "botd-roll-kicked:1"),
    # Backwards with one that crashes.
    "broken": ("botd-roll-decided:2", "botd-roll-recorded:2", "botd-roll-kicked:2"),
}


@pytest.mark.parametrize("word", POINTS)
def test_killed_at_each_step_it_goes_on(make_fleet, tmp_path, word):
    """Forwards and backwards: the next botd ends what this one began."""
    fleet = make_fleet(CONFIG if word == "broken" else FAST, foreground=True).up()
    names, have = people(fleet, tmp_path / "src", 2)
    for number, point in enumerate(POINTS[word]):
        target = hold(fleet, tmp_path / "src", word if word == "broken" else f"good{number}")
        fleet.down()
        fleet.environ["BOTD_CRASH_AT"] = point
        fleet.up()
        child = fleet._children[-1]
        try:
            roll(fleet, target, batch="1")
        except (OSError, BotdError):
            pass  # it died before it could answer
        assert child.wait(WITHIN_S) == -9, f"{point} was not reached"
        fleet.hang_up()
        del fleet.environ["BOTD_CRASH_AT"]
        fleet.up()
        last = over(fleet)
        assert last["phase"] == ("finished" if word == "good" else "taken-back"), (point, last)
        have = target if word == "good" else have
        assert releases(fleet) == {have} == {in_force(fleet)}, point
        assert fleet.wait("running")["summary"]["failed"] == 0
        last_word = f"good{number}" if word == "good" else "one"
        for name in names:
            until(lambda name=name, last_word=last_word: lives(fleet, name)[-1] == last_word, f"{name} after {point}")
    assert fleet.rpc("bots.stop", select=ALL, timeout_s=WITHIN_S)["summary"]["failed"] == 0
