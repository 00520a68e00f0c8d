"""apply, diff, export: only what changed is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fleet_house import ids, script

HEAD = """
schema = 1
[defaults]
stop_grace_s = 2
"""


def bot(name, command="sleep", **more):
    lines = [f'[[bot]]\nid = "alice/{name}"', f"command = {json.dumps(script(command))}"]
    lines += [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture
def manifest(fleet, tmp_path):
    """`manifest(BOT...)` writes fleet.toml; `manifest.path` names it."""

    def write(*bots):
        write.path.write_text(HEAD + "\n".join(bots))
        return str(write.path)

    write.path = tmp_path / "fleet.toml"
    return write


def apply(fleet, path, *more):
    done = fleet.botctl("apply", "-f", path, "-o", "json", "--yes", *more)
    assert done.returncode == 0, done.stderr
    return {item["id"]: item for item in json.loads(done.stdout)["items"]}


def test_adding_one_restarts_nothing(fleet, manifest):
    path = manifest(bot("a"), bot("b"))
    applied = apply(fleet, path)
    assert {item["action"] for item in applied.values()} == {"create"}
    before = fleet.pids()
    applied = apply(fleet, manifest(bot("a"), bot("b"), bot("c")))
    assert {name: item["action"] for name, item in applied.items()} == {
        "alice/a": "keep",
        "alice/b": "keep",
        "alice/c": "create",
    }
    after = fleet.pids()
    assert after["alice/c"]
    assert {name: after[name] for name in before} == before


def test_labels_and_limits_restart_nothing_and_the_environment_only_its_bot(fleet, manifest):
    apply(fleet, manifest(bot("a"), bot("b")))
    before = fleet.pids()
    changed = manifest(bot("a", labels='{ tier = "paid" }', memory_mb=64, restart='"on-failure"'), bot("b"))
    applied = apply(fleet, changed)
    assert applied["alice/a"]["action"] == "change"
    assert fleet.pids() == before
    view = fleet.bot("alice/a")
    assert view["labels"] == {"tier": "paid"}
    assert view["memory_limit_bytes"] == 64 << 20
    assert view["restart"] == "on-failure"
    changed = manifest(
        bot("a", labels='{ tier = "paid" }', memory_mb=64, restart='"on-failure"', env='{ PREFIX = "!" }'), bot("b")
    )
    shown = fleet.botctl("diff", "-f", changed)
    assert shown.returncode == 3
    assert "alice/a" in shown.stdout
    assert "PREFIX" in shown.stdout
    assert "alice/b" not in shown.stdout
    assert fleet.pids() == before
    applied = apply(fleet, changed)
    assert applied["alice/a"]["action"] == "restart"
    after = fleet.pids()
    assert after["alice/b"] == before["alice/b"]
    assert after["alice/a"] != before["alice/a"]
    assert b"PREFIX=!" in Path(f"/proc/{after['alice/a']}/environ").read_bytes().split(b"\0")


def test_enabled_is_what_its_owner_wants(fleet, manifest):
    apply(fleet, manifest(bot("a"), bot("b", enabled="false")))
    bots = fleet.bots()
    assert (bots["alice/a"]["phase"], bots["alice/b"]["phase"]) == ("running", "stopped")
    applied = apply(fleet, manifest(bot("a", enabled="false"), bot("b")))
    assert (applied["alice/a"]["action"], applied["alice/b"]["action"]) == ("stop", "start")
    bots = fleet.bots()
    assert (bots["alice/a"]["phase"], bots["alice/b"]["phase"]) == ("stopped", "running")


def test_prune_removes_only_what_this_file_brought(fleet, manifest, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(HEAD + bot("other"))
    apply(fleet, str(other))
    fleet.create("alice/by-hand", "sleep")
    apply(fleet, manifest(bot("a"), bot("b")))
    before = fleet.pids()
    path = manifest(bot("a"))
    assert "alice/b" in fleet.bots()
    apply(fleet, path)  # without --prune nothing goes
    assert "alice/b" in fleet.bots()
    unasked = fleet.botctl("apply", "-f", path, "--prune")
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    assert "alice/b" in fleet.bots()
    applied = apply(fleet, path, "--prune")
    assert applied["alice/b"]["action"] == "delete"
    del before["alice/b"]
    assert fleet.pids() == before


def test_a_file_that_adopts_a_bot_from_another_takes_it_over_without_a_restart(fleet, manifest, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(HEAD + bot("a"))
    apply(fleet, str(other))
    before = fleet.pids()
    apply(fleet, manifest(bot("a")))
    other.write_text(HEAD)
    apply(fleet, str(other), "--prune")
    assert fleet.pids() == before


def test_export_applied_again_changes_nothing(fleet, manifest, tmp_path):
    path = manifest(
        bot("a", labels='{ tier = "free" }', env='{ MODE = "x" }', memory_mb=100, port="true"),
        bot("b", restart='"never"', stop_signal='"SIGINT"', enabled="false"),
        bot(
            "c", "serve", port="true", probe='{ kind = "http", url = "http://127.0.0.1:{port}/health", interval_s = 1 }'
        ),
    )
    apply(fleet, path)
    before, views = fleet.pids(), fleet.bots()
    exported = tmp_path / "exported.toml"
    done = fleet.botctl("export")
    assert done.returncode == 0, done.stderr
    exported.write_text(done.stdout)
    differs = json.loads(fleet.botctl("diff", "-f", str(exported), "-o", "json").stdout)["items"]
    fields = {item["id"]: [f["field"] for f in item["fields"] if f["field"] != "source"] for item in differs}
    assert fields == {"alice/a": [], "alice/b": [], "alice/c": []}
    apply(fleet, str(exported))
    assert fleet.pids() == before
    assert fleet.botctl("diff", "-f", str(exported)).returncode == 0
    again = fleet.bots()
    assert {name: view["generation"] for name, view in again.items()} == {n: v["generation"] for n, v in views.items()}
    assert [view["port"] for view in again.values()] == [view["port"] for view in views.values()]


def test_ports_are_stable_and_distinct(fleet, manifest):
    apply(fleet, manifest(*(bot(f"p{i}", port="true") for i in range(5))))
    ports = {name: view["port"] for name, view in fleet.bots().items()}
    assert len(set(ports.values())) == 5
    assert all(ports.values())
    fleet.rpc("bots.restart", select=ids("alice/p0"))
    assert {name: view["port"] for name, view in fleet.bots().items()} == ports


def test_one_bad_bot_in_a_manifest_changes_nothing(fleet, manifest):
    apply(fleet, manifest(bot("a")))
    before = fleet.bots()
    broken = manifest(bot("a", labels='{ x = "y" }'), bot("new"), bot("bad", directory='"/no/such/folder"'))
    done = fleet.botctl("apply", "-f", broken, "--yes")
    assert done.returncode in (2, 9)
    assert "/no/such/folder" in done.stderr
    after = fleet.bots()
    assert after.keys() == before.keys()
    assert after["alice/a"]["labels"] == {}
    assert after["alice/a"]["pid"] == before["alice/a"]["pid"]


def test_a_change_of_a_stopped_bot_starts_nothing(fleet, manifest):
    apply(fleet, manifest(bot("a", enabled="false")))
    apply(fleet, manifest(bot("a", "print changed + sleep", enabled="false")))
    view = fleet.bot("alice/a")
    assert (view["phase"], view["generation"]) == ("stopped", 0)
    fleet.rpc("bots.start", select=ids("alice/a"))
    fleet.until_line("alice/a", "changed")
