"""Whatever is wrong with what somebody types or sends: one clear error, the right status, and nothing is changed."""

from __future__ import annotations

import json

import pytest
from fleet_house import ids, script

GOOD = {"id": "alice/new", "command": ["/bin/true"], "directory": "/"}


@pytest.fixture(scope="module")
def settled(shared_fleet):
    shared_fleet.create("alice/a", "sleep", labels={"tier": "free"})
    shared_fleet.create("alice/b", "sleep", start=False)
    yield shared_fleet
    shared_fleet.clear()


@pytest.fixture
def unchanged(settled):
    """The fleet; the test fails when it is not afterwards what it was."""
    moving = ("uptime_s", "memory_bytes", "processes", "cpu_percent", "log_bytes", "storage_bytes")

    def picture():
        bots = {name: {k: v for k, v in bot.items() if k not in moving} for name, bot in settled.bots().items()}
        return bots, settled.daemon_pid, len(settled.events())

    before = picture()
    yield settled
    assert picture() == before


WRONG_SPECS = [
    ({"id": "alice"}, "spec.id", "user/name"),
    ({"id": "Alice/shop"}, "spec.id", "user/name"),
    ({"id": "alice/../bob"}, "spec.id", "user/name"),
    ({"id": "../x"}, "spec.id", "user/name"),
    ({"id": "alice/" + "x" * 64}, "spec.id", ""),
    ({"id": "alice/a\n"}, "spec.id", ""),
    ({"id": 7}, "spec.id", "a string"),
    ({"command": "python3 bot.py"}, "spec.command", "list of arguments"),
    ({"command": []}, "spec.command", "not be empty"),
    ({"command": [""]}, "command[0]", "no name"),
    ({"command": ["a", 5]}, "spec.command[1]", "a string"),
    ({"command": ["a\u0000b"]}, "spec.command[0]", "NUL"),
    ({"command": ["x"] * 1001}, "spec.command", "at most 1000"),
    ({"command": ["x" * 131_001]}, "spec.command[0]", "at most"),
    ({"command": ["x" * 130_000] * 9}, "", "a line of more than 1048576 bytes"),
    ({"directory": "/no/such/folder"}, "", "No such file"),
    ({"directory": "/etc/passwd"}, "", "folder"),
    ({"directory": "/\u0000"}, "spec.directory", "NUL"),
    ({"directory": "relative/folder"}, "", "directory"),
    ({"template": "none"}, "", "template"),
    ({"memory_mb": 0}, "spec.memory_mb", "at least 1"),
    ({"memory_mb": -5}, "spec.memory_mb", "at least 1"),
    ({"memory_mb": 2**63}, "spec.memory_mb", "at most"),
    ({"memory_mb": 1.5}, "spec.memory_mb", "whole number"),
    ({"memory_mb": True}, "spec.memory_mb", "whole number"),
    ({"stop_grace_s": -1}, "spec.stop_grace_s", "at least 0"),
    ({"stop_grace_s": 1e300}, "spec.stop_grace_s", "at most"),
    ({"stop_signal": "SIGKIL"}, "spec.stop_signal", "SIG"),
    ({"restart": "allways"}, "spec.restart", "always"),
    ({"labels": {"a b": "x"}}, "spec.labels", ""),
    ({"labels": {"a": "x,y"}}, "spec.labels.a", "comma"),
    ({"labels": {f"l{i}": "x" for i in range(51)}}, "spec.labels", "at most 50"),
    ({"env": {"A=B": "x"}}, "spec.env", ""),
    ({"env": {"A": 1}}, "spec.env.A", "a string"),
    ({"probe": {"kind": "http"}}, "probe.url", "required"),
    ({"probe": {"kind": "http", "url": "http://example.org/"}}, "spec.probe.url", "loopback"),
    ({"probe": {"kind": "http", "url": "http://127.0.0.1:{port}/"}}, "probe", "port"),
    ({"probe": {"kind": "tcp", "port": 70_000}}, "spec.probe.port", "at most 65535"),
    ({"probe": {"kind": "tcp", "port": 80, "interval_s": 0}}, "spec.probe.interval_s", "at least"),
    ({"comand": ["x"]}, "spec.comand", "did you mean command"),
]


@pytest.mark.parametrize(("wrong", "path", "words"), WRONG_SPECS, ids=[str(one[0])[:40] for one in WRONG_SPECS])
def test_a_wrong_specification(unchanged, wrong, path, words):
    error = unchanged.refused("bots.create", spec={**GOOD, **wrong})
    told = f"{error.message} {error.hint}"
    assert path in error.message
    assert words in told
    assert error.exit in (2, 4)
    assert error.kind in ("invalid", "not_found")
    assert len(error.message) < 500
    assert not unchanged.data("alice/new").exists()


def test_a_directory_that_is_closed_to_us(unchanged, make_fleet, tmp_path):
    import os

    from fleet_house import NOBODY

    if os.geteuid() != 0:
        pytest.skip("needs root")
    closed = make_fleet(uid=NOBODY).up()
    tmp_path.chmod(0o700)
    error = closed.refused("bots.create", spec={**GOOD, "directory": str(tmp_path)})
    assert "ermission denied" in error.message
    assert error.exit == 2
    assert closed.bots() == {}


def test_a_bot_that_exists(unchanged):
    error = unchanged.refused("bots.create", spec={**GOOD, "id": "alice/a"})
    assert error.kind == "conflict"
    assert "botctl" in error.hint


WRONG_COMMANDS = [
    (("create", "Alice/Shop", "--", "true"), 2, "a-z"),
    (("create", "alice/a/b", "--", "true"), 2, "a-z"),
    (("create", "alice/new"), 2, "command"),
    (("create", "alice/new", "--", "python3 bot.py"), 2, "without quotes"),
    (("create", "alice/new", "-C", "/no/such/folder", "--", "/bin/true"), 2, "/no/such/folder"),
    (("create", "alice/new", "--memory", "0", "--", "/bin/true"), 2, "memory"),
    (("create", "alice/new", "--memory", "9" * 30, "--", "/bin/true"), 2, "memory"),
    (("create", "alice/new", "--restart", "allways", "--", "/bin/true"), 2, "always"),
    (("create", "alice/new", "-e", "NOEQUALS", "--", "/bin/true"), 2, "KEY=VALUE"),
    (("stop",), 2, "--all"),
    (("stop", "--all", "alice/a"), 2, "--all"),
    (("stop", "alice/nobody"), 4, "botctl list"),
    (("stop", "usr:alice"), 2, "user:alice"),
    (("stop", "phase:runing"), 2, "phase:running"),
    (("stop", "user:alice,"), 2, "empty term"),
    (("stop", "label:tier"), 2, "label:KEY=VALUE"),
    (("stop", "alice/../a"), 2, "id"),
    (("stop", "Alice/A"), 2, "id"),
    (("stop", "label:tier=gold"), 4, "botctl list"),
    (("stop", "alice/a", "--timeout", "-1"), 2, "timeout"),
    (("stop", "alice/a", "--timeout", "nan"), 2, "timeout"),
    (("bulk", "explode", "--all"), 2, "start"),
    (("bulk", "stop", "--all", "--parallel", "0"), 2, "parallel"),
    (("bulk", "stop", "--all", "--batch", "0%"), 2, "batch"),
    (("bulk", "stop", "--all", "--max-failures", "-1"), 2, "max-failures"),
    (("delete", "alice/a"), 2, "--yes"),
    (("explain", "alice/nobody"), 4, "alice/nobody"),
    (("explain", "alice/*"), 2, ""),
    (("logs", "alice/a", "--grep", "("), 2, ""),
    (("logs", "alice/a", "--since", "yesterdayish"), 2, ""),
    (("wait", "alice/a", "--for", "happy"), 2, "healthy"),
    (("statsu",), 2, "status"),
    (("list", "-o", "yaml"), 2, "json"),
    (("apply", "-f", "/no/such/fleet.toml"), 9, "/no/such/fleet.toml"),
    (("apply",), 2, "-f"),
    (("is-active", "alice/nobody"), 4, ""),
    (("is-active",), 2, ""),
    (("resources", "--user", "nobody-here"), 4, "nobody-here"),
]


@pytest.mark.parametrize(
    ("words", "status", "told"), WRONG_COMMANDS, ids=[" ".join(one[0])[:50] for one in WRONG_COMMANDS]
)
def test_a_wrong_command(unchanged, words, status, told):
    done = unchanged.botctl(*words)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("botctl: ")
    assert len(done.stderr.splitlines()) <= 4


WRONG_MANIFESTS = [
    ('[[bot]]\nid = "alice/x"\ncommand = "python3 bot.py"', "bot[0].command", "list of arguments"),
    ('[[bot]]\nid = "alice/x"\ncomand = ["x"]', "bot[0].comand", "did you mean command"),
    ('[[bot]]\nid = "alice/x"', "bot[0].command", "required"),
    ('[[bot]]\nid = "Alice/x"\ncommand = ["x"]', "bot[0].id", "user/name"),
    ('[[bot]]\nid = "alice/x"\ncommand = ["x"]\nmemory_mb = -1', "bot[0].memory_mb", "at least 1"),
    ('[[bot]]\nid = "alice/x"\ncommand = ["x"]\n[[bot]]\nid = "alice/x"\ncommand = ["y"]', "bot[1].id", "bot[0]"),
    (f'[[bot]]\nid = "alice/x"\ncommand = {["x" * 130_000] * 9}', "bot[0]", "bytes, at most"),
    ('[[bots]]\nid = "alice/x"', "bots", "did you mean bot"),
    ('[defaults]\nid = "alice/x"', "defaults.id", "unknown key"),
    ('[[bot]]\nid = "alice/x"\ncommand = ["x"]\nsecrets = { T = { file = "missing" } }', "secrets.T", "missing"),
    ("[[bot]\n", "", "not TOML"),
]


@pytest.mark.parametrize(("text", "path", "words"), WRONG_MANIFESTS)
def test_a_wrong_manifest(unchanged, tmp_path, text, path, words):
    manifest = tmp_path / "fleet.toml"
    manifest.write_text(f"schema = 1\n{text}\n")
    for verb in ("apply", "diff"):
        done = unchanged.botctl(verb, "-f", str(manifest))
        assert done.returncode == 9, done.stderr
        assert str(manifest) in done.stderr
        assert path in done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_manifest_with_an_unknown_template(unchanged, tmp_path):
    manifest = tmp_path / "fleet.toml"
    manifest.write_text('schema = 1\n[[bot]]\nid = "alice/x"\ntemplate = "none"\n')
    done = unchanged.botctl("apply", "-f", str(manifest))
    assert done.returncode == 4
    assert "no template 'none'" in done.stderr


def test_a_manifest_of_another_schema(unchanged, tmp_path):
    manifest = tmp_path / "fleet.toml"
    manifest.write_text("schema = 2\n")
    done = unchanged.botctl("apply", "-f", str(manifest))
    assert done.returncode == 9
    assert "schema" in done.stderr
    manifest.write_bytes(b'schema = 1\n# caf\xe9\n[[bot]]\nid = "alice/x"\n')
    done = unchanged.botctl("apply", "-f", str(manifest))
    assert done.returncode == 9
    assert "UTF-8" in done.stderr


def test_one_id_that_matches_and_one_that_does_not(fleet):
    """A union that matches something is done; that is what a union means, and the verdicts say what was done."""
    fleet.create("alice/one", "sleep")
    done = fleet.botctl("stop", "alice/one", "alice/nobody", "-o", "json")
    assert done.returncode in (0, 8)
    assert [item["id"] for item in json.loads(done.stdout)["items"] if item["ok"]] == ["alice/one"]


def test_a_working_folder_that_vanishes_is_told_at_the_start(fleet, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    fleet.create("alice/homeless", script("sleep"), start=False, directory=str(folder))
    folder.rmdir()
    verdict = fleet.rpc("bots.start", select=ids("alice/homeless"))["items"][0]
    assert not verdict["ok"]
    assert "chdir" in verdict["error"]["message"]
    assert str(folder) in verdict["error"]["message"]
    folder.mkdir()
    assert fleet.rpc("bots.recover", select=ids("alice/homeless"))["items"][0]["ok"]
