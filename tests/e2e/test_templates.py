"""Templates: code that many bots share, each with its own settings and its own files."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest
from fleet_house import ALL, WITHIN_S, gone, ids, until
from template_house import add, app, create, forget, restart, session, template, write_node, write_python

WRITE = {"node": write_node, "python": write_python}


@pytest.fixture
def house(fleet):
    """The module's fleet, without bots and templates."""
    yield fleet
    forget(fleet)


@pytest.fixture
def source(tmp_path):
    return write_python(tmp_path / "src")


@pytest.mark.parametrize("kind", WRITE)
def test_twenty_bots_share_their_code_and_nothing_else(house, tmp_path, kind):
    made = add(house, WRITE[kind](tmp_path / "src"))
    names = [f"user{i % 4}/bot{i}" for i in range(20)]
    specs = [{"id": name, "template": "messenger", "env": {"MOOD": name[-1]}} for name in names]
    done = house.rpc("fleet.apply", source="/f.toml", bots=specs, timeout_s=WITHIN_S)
    assert done["summary"]["ok"] == 20, done
    shared = "node_modules" if kind == "node" else "vendor"
    for name in names:
        assert house.until_line(name, f"one {name} {name[-1]} dep {name}")
        assert session(house, name) == name
        assert house.data(name, "session.json").is_file()
        release = Path(house.home, "templates/messenger/releases", made["release"])
        assert app(house, name, shared).resolve() == (release / "tree" / shared).resolve()
        assert not (release / "tree/session.json").exists()
    view = house.bot("user0/bot0")
    assert (view["template"], view["release"]) == ("messenger", made["release"])
    assert view["directory"] == str(app(house, "user0/bot0"))
    assert (view["restart"], view["labels"]) == ("on-failure", {"kind": "demo"})
    assert view["memory_limit_bytes"] == 200 << 20
    chosen = house.rpc("bots.list", select={"any": [{"template": "messenger"}]}, fields=["id"])
    assert sorted(bot["id"] for bot in chosen["items"]) == sorted(names)
    assert template(house)["bots"] == 20


def test_a_new_release_is_for_new_bots_until_it_is_taken_back(house, source, tmp_path):
    first = add(house, source)
    create(house, "alice/old")
    house.until_line("alice/old", "one alice/old calm dep alice/old")
    second = house.rpc("templates.update", name="messenger", path=write_python(tmp_path / "next", "two"))
    assert (second["action"], second["former"], second["bots_behind"]) == ("update", first["release"], 1)
    create(house, "alice/new")
    assert house.until_line("alice/new", "two alice/new calm dep alice/new")
    restart(house, "alice/old")
    assert house.bot("alice/old")["release"] == first["release"]
    until(lambda: house.lines("alice/old") == ["one alice/old calm dep alice/old"] * 2, "the same words again")
    row = template(house)
    assert (row["release"], row["former"], row["releases"]) == (second["release"], first["release"], 2)
    assert (row["bots"], row["bots_behind"]) == (2, 1)
    back = house.rpc("templates.rollback", name="messenger")
    assert back["release"] == first["release"]
    create(house, "alice/newest", start=False)
    assert house.bot("alice/newest")["release"] == first["release"]
    assert house.rpc("templates.rolls", name="messenger", wait=True)["items"][0]["phase"] == "finished"
    told = house.botctl("template", "list", "-o", "wide").stdout
    assert first["release"][:12] in told and second["release"][:12] in told
    shown = house.rpc("templates.show", name="messenger", release=second["release"][:8])
    assert [one["bots"] for one in shown["releases"]] == [0, 3]
    classes = {unit["path"]: unit["class"] for unit in shown["units"]}
    assert (classes["vendor"], classes["bot.py"], classes["session.json"]) == ("link", "copy", "private")


def test_what_is_a_bots_own_wins_and_is_all_that_is_exported(house, source, tmp_path):
    add(house, source)
    create(house, "alice/own", env={"EXTRA": "1"}, labels={"tier": "paid"}, memory_mb=64, start=False)
    create(house, "alice/plain", start=False)
    view = house.bot("alice/own")
    assert view["labels"] == {"kind": "demo", "tier": "paid"}
    assert set(view["env"]) == {"MOOD", "EXTRA"}
    assert (view["memory_limit_bytes"], view["restart"]) == (64 << 20, "on-failure")
    exported = house.botctl("export").stdout
    own, plain = tomllib.loads(exported)["bot"]
    assert plain == {"id": "alice/plain", "template": "messenger", "enabled": False}
    assert own == {**plain, "id": "alice/own", "env": {"EXTRA": "1"}, "labels": {"tier": "paid"}, "memory_mb": 64}
    file = tmp_path / "fleet.toml"
    file.write_text(exported)
    assert house.botctl("apply", "-f", str(file), "--yes").returncode == 0
    assert house.botctl("diff", "-f", str(file)).returncode == 0
    # The default's own value, said for the bot: nothing changes today, and it stays when the default changes.
    file.write_text(exported.replace("memory_mb = 64", "memory_mb = 200"))
    assert house.botctl("apply", "-f", str(file), "--yes").returncode == 0
    assert "memory_mb = 200" in house.botctl("export").stdout


def test_secrets_and_a_command_of_its_own(house, source):
    add(house, source)
    create(house, "alice/a", secrets={"TOKEN": "placeholder"}, command=["{python}", "-u", "bot.py"])
    assert house.until_line("alice/a", "one alice/a calm dep alice/a")
    assert b"TOKEN=placeholder" in Path(f"/proc/{house.pids()['alice/a']}/environ").read_bytes().split(b"\0")
    assert house.bot("alice/a")["command"] == ["python3", "-u", "bot.py"]
    exported = house.botctl("export").stdout
    assert "{python}" in exported and "placeholder" not in exported


def test_a_manifest_brings_its_templates(house, source, tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(
        'schema = 1\n[[template]]\nname = "messenger"\npath = "./src"\n'
        '[[bot]]\nid = "alice/a"\ntemplate = "messenger"\n'
    )
    looked = house.botctl("diff", "-f", str(file))
    assert looked.returncode == 3, looked.stderr
    assert "create template messenger" in looked.stdout and "create alice/a" in looked.stdout
    assert house.botctl("apply", "-f", str(file), "--dry-run").returncode == 0
    assert template(house) is None and not house.bots()
    applied = house.botctl("apply", "-f", str(file), "-o", "json")
    assert applied.returncode == 0, applied.stderr
    first = json.loads(applied.stdout)["templates"][0]
    assert (first["action"], house.bot("alice/a")["release"]) == ("create", first["release"])
    pid = house.pids()["alice/a"]
    assert house.botctl("diff", "-f", str(file)).returncode == 0
    write_python(source, "two")
    looked = house.botctl("diff", "-f", str(file))
    assert looked.returncode == 3 and "update template messenger" in looked.stdout
    assert "1 bot" in looked.stdout
    assert house.botctl("apply", "-f", str(file)).returncode == 0
    assert template(house)["former"] == first["release"]
    assert house.pids() == {"alice/a": pid}


@pytest.mark.parametrize(
    ("words", "status", "told", "hint"),
    [
        (["create", "alice/x", "-t", "none"], 4, "there is no template 'none'", "botctl template add none PATH"),
        (["create", "alice/x", "-t", "messenger", "-C", "/tmp"], 2, "working folder of its own", "leave it out"),
        (["template", "add", "messenger", "OTHER"], 1, "exists already, with another content", "template update"),
        (["template", "update", "none", "OTHER"], 4, "there is no template 'none'", "template add none"),
        (["template", "add", "other", "/no/such/place"], 4, "/no/such/place", "name a folder or an archive"),
        (["template", "add", "No!", "OTHER"], 2, "name", ""),
        (["template", "show", "none"], 4, "there is no template 'none'", "template add none"),
        (["template", "show", "messenger", "--release", "abc"], 2, "release", "6 or more digits"),
        (["template", "show", "messenger", "--release", "abcdef0123"], 4, "no release abcdef0123", "template show"),
        (["template", "rollback", "messenger"], 1, "no former release", "template show messenger"),
        (["template", "remove", "none", "--yes"], 4, "there is no template 'none'", "template add none"),
        (["template", "remove", "messenger", "--yes"], 1, "is used by 1 bot: alice/here", "template:messenger"),
        (["template", "remove", "messenger"], 1, "is used by 1 bot: alice/here", "template:messenger"),
    ],
)
def test_what_cannot_be_is_refused_in_words(peopled, tmp_path, words, status, told, hint):
    other = write_python(tmp_path / "other", "two")
    done = peopled.botctl(*(other if word == "OTHER" else word for word in words))
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert told in done.stderr and hint in done.stderr
    assert "Traceback" not in done.stderr
    assert list(peopled.bots()) == ["alice/here"]
    assert [one["name"] for one in peopled.rpc("templates.list")["items"]] == ["messenger"]
    assert len(os.listdir(f"{peopled.home}/templates/messenger/releases")) == 1


@pytest.fixture(scope="module")
def peopled(tmp_path_factory):
    from fleet_house import Fleet

    fleet = Fleet().up()
    add(fleet, write_python(tmp_path_factory.mktemp("t") / "src"))
    create(fleet, "alice/here", start=False)
    yield fleet
    fleet.close()


def test_the_same_again_changes_nothing(house, source):
    first, again = add(house, source), add(house, source)
    assert (first["changed"], again["changed"], again["release"]) == (True, False, first["release"])
    assert template(house)["releases"] == 1


def test_a_removed_template_leaves_nothing(house, source, tmp_path):
    add(house, source)
    house.rpc("templates.update", name="messenger", path=write_python(tmp_path / "next", "two"))
    asked = house.botctl("template", "remove", "messenger")
    assert asked.returncode == 2 and "--yes" in asked.stderr
    done = house.botctl("template", "remove", "messenger", "--yes", "-o", "json")
    assert done.returncode == 0 and json.loads(done.stdout)["freed_bytes"] > 0
    assert template(house) is None
    assert not os.path.exists(f"{house.home}/templates/messenger")


def test_a_folder_that_somebody_spoilt_is_made_again_for_the_next_life(house, source):
    add(house, source)
    create(house, "alice/a")
    house.until_line("alice/a", "one alice/a calm dep alice/a")
    shutil.rmtree(app(house, "alice/a"))
    restart(house, "alice/a")
    until(lambda: house.lines("alice/a") == ["one alice/a calm dep alice/a"] * 2, "the same words again")
    assert session(house, "alice/a") == "alice/a"


def test_a_release_that_is_gone_is_the_reason_of_the_failure(house, source):
    made = add(house, source)
    create(house, "alice/a", start=False)
    os.rename(f"{house.home}/templates/messenger/releases/{made['release']}", f"{house.home}/templates/aside")
    try:
        verdict = house.rpc("bots.start", select=ids("alice/a"), timeout_s=WITHIN_S)["items"][0]
        assert not verdict["ok"] and verdict["phase"] == "failed"
        assert "messenger has no release" in verdict["reason"]
    finally:
        os.rename(f"{house.home}/templates/aside", f"{house.home}/templates/messenger/releases/{made['release']}")
    assert house.rpc("bots.start", select=ids("alice/a"), timeout_s=WITHIN_S)["items"][0]["ok"]


def test_those_who_ask_at_the_same_time_take_their_turns(house, source):
    calls = [("templates.add", {"path": source}), ("templates.remove", {}), ("templates.add", {"path": source})]
    wires = [house.connect() for _ in calls]
    for wire, (method, more) in zip(wires, calls, strict=True):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "messenger", **more}}
        wire.send(json.dumps(request).encode() + b"\n")
    answers = [wire.line() for wire in wires]
    for wire in wires:
        wire.close()
    assert "result" in answers[0] and "result" in answers[2], answers
    # Whatever their order was, what is on record is there.
    known = [one["release"] for one in house.rpc("templates.list")["items"]]
    folder = Path(house.home, "templates/messenger/releases")
    assert (sorted(os.listdir(folder)) if folder.exists() else []) == known


def test_who_hangs_up_ends_the_work_that_nobody_wants_any_more(house, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    folder = Path(write_python(tmp_path / "src"))
    (folder / "requirements.txt").write_text("")
    with open(folder / "botd-template.toml", "a") as manifest:
        manifest.write(f'[python]\nrequirements = "requirements.txt"\ninterpreter = "{slow}"\n')
    with house.connect() as wire:
        request = {"jsonrpc": "2.0", "id": 1, "method": "templates.add"}
        request["params"] = {"name": "messenger", "path": str(folder)}
        wire.send(json.dumps(request).encode() + b"\n")
        pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the slow program"))
    gone(pid)
    until(lambda: not any("storage.releases" in command for _, command in house.processes()), "an end of the child")
    assert template(house) is None


def test_without_links_a_bot_has_copies(make_fleet, tmp_path):
    from fleet_house import FAST

    fleet = make_fleet({**FAST, "storageOptimization": {"useSymbolicLinks": False}}, foreground=True).up()
    add(fleet, write_python(tmp_path / "src"))
    create(fleet, "alice/a")
    assert fleet.until_line("alice/a", "one alice/a calm dep alice/a")
    assert not app(fleet, "alice/a", "vendor").is_symlink()
    fleet.rpc("bots.stop", select=ALL)
