"""A secret is in its bot's environment and nowhere else that anybody can look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fleet_house import ALL, ids, script

SECRET = "marker-8f2e61c07d-secret"
PLAIN = "marker-8f2e61c07d-plain"


@pytest.fixture
def keeper_of_secrets(fleet, tmp_path):
    """A running bot with a secret and a plain variable, brought by a manifest, and one that fails with a secret."""
    (tmp_path / "token").write_text(SECRET + "\n")
    manifest = tmp_path / "fleet.toml"
    bots = [
        f"""
        [[bot]]
        id = "alice/{name}"
        command = {script(text)!r}
        env = {{ PREFIX = "{PLAIN}" }}
        secrets = {{ TOKEN = {{ file = "token" }} }}
        """
        for name, text in (("shop", "sleep"), ("broken", "crash 3"))
    ]
    manifest.write_text("schema = 1\n" + "".join(bots))
    fleet.botctl("apply", "-f", str(manifest), "--yes")
    fleet.until_phase("alice/broken", "failed")
    fleet.manifest = str(manifest)
    return fleet


def test_the_bot_itself_has_it(keeper_of_secrets):
    environment = Path(f"/proc/{keeper_of_secrets.pids()['alice/shop']}/environ").read_bytes().split(b"\0")
    assert f"TOKEN={SECRET}".encode() in environment
    assert f"PREFIX={PLAIN}".encode() in environment


def test_no_answer_of_the_daemon_shows_it(keeper_of_secrets):
    fleet = keeper_of_secrets
    answers = [
        fleet.rpc("bots.list"),
        fleet.rpc("bots.status", select=ALL),
        fleet.rpc("bots.health"),
        fleet.rpc("bots.explain", id="alice/shop"),
        fleet.rpc("bots.explain", id="alice/broken"),
        fleet.rpc("bots.logs", select=ALL),
        fleet.rpc("fleet.export"),
        fleet.rpc("events.list", lines=10_000),
        fleet.rpc("users.resources"),
        fleet.rpc("system.status"),
        fleet.rpc("system.performance"),
        fleet.rpc("daemon.status"),
        fleet.rpc("bots.restart", select=ids("alice/shop")),
        fleet.rpc("bots.recover", select=ids("alice/broken")),
    ]
    text = repr(answers)
    assert SECRET not in text
    # An export is there to be applied again: plain variables are in it. Nothing else shows them.
    assert PLAIN not in repr([answer for i, answer in enumerate(answers) if i != 6])
    assert fleet.bot("alice/shop")["env"] == {"PREFIX": "***", "TOKEN": "***"}


def test_no_command_shows_it(keeper_of_secrets):
    fleet = keeper_of_secrets
    for words in (
        ("list",), ("list", "-o", "wide"), ("list", "-o", "json"), ("status", "alice/shop"),
        ("status", "alice/shop", "-o", "json"), ("explain", "alice/shop"), ("explain", "alice/broken"),
        ("export",), ("export", "-o", "json"), ("events",), ("logs", "--all"), ("daemon", "logs"),
        ("diff", "-f", fleet.manifest), ("diff", "-f", fleet.manifest, "-o", "json"), ("cleanup", "--dry-run"),
        ("--debug", "start", "alice/broken"), ("--debug", "status", "alice/none"),
    ):  # fmt: skip
        done = fleet.botctl(*words)
        assert SECRET not in done.stdout + done.stderr, words


def test_a_changed_secret_is_noticed_and_neither_value_is_shown(keeper_of_secrets):
    fleet = keeper_of_secrets
    Path(fleet.manifest).with_name("token").write_text("another-" + SECRET)
    done = fleet.botctl("diff", "-f", fleet.manifest, "-o", "json")
    assert done.returncode == 3
    assert "changed" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    before = fleet.pids()["alice/shop"]
    fleet.botctl("apply", "-f", fleet.manifest, "--yes")
    now = fleet.pids()["alice/shop"]
    assert now != before
    assert f"TOKEN=another-{SECRET}".encode() in Path(f"/proc/{now}/environ").read_bytes().split(b"\0")


def test_no_error_repeats_it(keeper_of_secrets):
    fleet = keeper_of_secrets
    spec = {"id": "alice/x", "command": ["/bin/true"], "directory": "/"}
    for wrong in (
        {"secrets": {"TOKEN": [SECRET]}},
        {"secrets": {"TOKEN": SECRET + "\x00"}},
        {"secrets": {"TOKEN": SECRET * 10_000}},
        {"secrets": {"A": SECRET, "B": 1}},
        {"secrets": {"TOKEN": SECRET}, "directory": "/no/such/folder"},
        {"secrets": {"TOKEN": SECRET}, "template": "none"},
        {"secrets": {"TOKEN": SECRET}, "id": "alice/shop"},
        {"env": {"TOKEN": SECRET + "\x00"}},
        {"env": {"TOKEN": [SECRET]}},
        {"secrets": SECRET},
        {"env": SECRET},
    ):
        error = fleet.refused("bots.create", spec={**spec, **wrong})
        assert SECRET not in repr(error.to_rpc()), wrong
    assert SECRET not in fleet.daemon_log()
    wrong = Path(fleet.manifest).with_name("wrong.toml")
    for line in (f'secrets = "{SECRET}"', f'secrets = {{ TOKEN = "{SECRET}" }}', f'env = "{SECRET}"'):
        wrong.write_text(f'schema = 1\n[[bot]]\nid = "alice/x"\ncommand = ["/bin/true"]\n{line}\n')
        done = fleet.botctl("apply", "-f", str(wrong), "--yes")
        assert done.returncode == 9
        assert SECRET not in done.stdout + done.stderr, line
    done = fleet.botctl("create", "alice/x", "-e", SECRET, "--", "/bin/true")
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr


def test_no_file_but_the_database_and_no_command_line_has_it(keeper_of_secrets):
    fleet = keeper_of_secrets
    marker = SECRET.encode()
    found = set()
    for folder, _, names in os.walk(fleet.home):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and marker in Path(path).read_bytes():
                found.add(os.path.relpath(path, fleet.home))
                assert os.stat(path).st_mode & 0o077 == 0, path
    assert found <= {"botd.db", "botd.db-wal", "botd.db-shm"}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            assert marker not in Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
    for (table,) in fleet.query("SELECT name FROM sqlite_master WHERE type = 'table'"):
        if table not in ("secrets", "trash"):
            assert SECRET not in repr(fleet.query(f"SELECT * FROM {table}")), table
    assert SECRET in repr(fleet.query("SELECT * FROM secrets"))  # so the look at the others was one


def test_a_request_id_keeps_no_secret(fleet):
    """The answers that are kept for a repeated request hold none either."""
    spec = {"id": "alice/kept", "command": ["/bin/true"], "secrets": {"TOKEN": SECRET}, "restart": "never"}
    for _ in range(2):
        assert SECRET not in repr(fleet.rpc("bots.create", spec=spec, request_id="keep-none"))
    kept = fleet.query("SELECT key, answer FROM requests")
    assert kept
    assert SECRET not in repr(kept)


def test_a_deleted_bot_takes_its_secret_along_and_for_good_when_it_goes_for_good(fleet):
    fleet.rpc("trash.empty")
    for purge in (False, True):
        fleet.create("alice/gone", "sleep", secrets={"TOKEN": SECRET})
        fleet.rpc("bots.delete", select=ids("alice/gone"), purge=purge)
        assert fleet.query("SELECT count(*) FROM secrets") == [(0,)]
        assert SECRET not in repr(fleet.rpc("trash.list"))
        assert (SECRET in repr(fleet.query("SELECT * FROM trash"))) is not purge
        fleet.rpc("trash.empty")
    assert SECRET not in repr(fleet.query("SELECT * FROM trash"))
