"""apply, diff, export: the fleet as a file."""

import json
import tomllib

import pytest
from botctl_fake import on_terminal, verdict, verdicts

from botd.contract.manifest import expand

MANIFEST = """\
schema = 1
[defaults]
env = { A = "1" }
[[bot]]
id = "alice/shop"
command = ["node", "bot.js"]
directory = "shop"
secrets = { TOKEN = { file = "secrets/token" } }
"""


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text("s3cret\n")
    path = tmp_path / "fleet.toml"
    path.write_text(MANIFEST)
    return path


def _items(*changes):
    return {"schema": 1, "items": [*changes], "summary": {"create": 1, "change": 1, "delete": 0, "keep": 1}}


CREATE = {"id": "alice/new", "action": "create", "fields": [], "restarts": False}
CHANGE = {
    "id": "alice/shop",
    "action": "restart",
    "restarts": True,
    "fields": [
        {"field": "env", "old": {"A": "***"}, "new": {"A": "*** (changed)", "B": "***"}},
        {"field": "secrets", "old": "***", "new": "*** (changed)"},
        {"field": "memory_mb", "old": None, "new": 64},
        {"field": "labels", "old": {"tier": "free"}, "new": {"tier": "paid"}},
    ],
}
KEEP = {"id": "alice/old", "action": "keep", "fields": [], "restarts": False}
DELETE = {"id": "alice/gone", "action": "delete", "fields": [], "restarts": False}


def test_apply_sends_everything_resolved(run, fake, manifest, monkeypatch):
    fake.script["fleet.apply"] = verdicts(verdict(action="create", result="created, started"))
    monkeypatch.chdir(manifest.parent)
    assert run("apply", "-f", "fleet.toml") == (0, "✔ alice/shop  created, started (pid 4711) in 12ms\n", "")
    [params] = fake.called("fleet.apply")
    assert params["source"] == str(manifest)
    assert params["prune"] is False
    [spec] = params["bots"]
    assert spec["directory"] == str(manifest.parent / "shop")
    assert spec["secrets"] == {"TOKEN": "s3cret"}
    assert spec["env"] == {"A": "1"}


def test_apply_of_what_is_so_already_says_nothing_on_stdout(run, fake, manifest):
    fake.script["fleet.apply"] = verdicts(verdict(action="keep", changed=False, result="unchanged"))
    assert run("apply", "-f", str(manifest)) == (0, "", "")
    assert json.loads(run("apply", "-f", str(manifest), "-o", "json").out)["items"][0]["action"] == "keep"


def test_diff_shows_fields_and_no_secret(run, fake, manifest):
    fake.script["fleet.diff"] = _items(CREATE, CHANGE, KEEP)
    ran = run("diff", "-f", str(manifest))
    assert ran.status == 3
    assert ran.out.splitlines() == [
        "+ create alice/new",
        "~ change alice/shop, restarts",
        "    env: A changed, B added",
        "    secrets: changed",
        "    memory_mb: 64",
        '    labels: {"tier":"free"} → {"tier":"paid"}',
    ]
    assert run("diff", "-f", str(manifest), "-q") == (3, "", "")
    fake.script["fleet.diff"] = _items(KEEP)
    assert run("diff", "-f", str(manifest)) == (0, "", "")


def test_apply_dry_run_changes_nothing_and_is_no_failure(run, fake, manifest):
    fake.script["fleet.diff"] = _items(CREATE)
    assert run("apply", "-f", str(manifest), "--dry-run") == (0, "+ create alice/new\n", "")
    assert fake.called("fleet.apply") == []


def test_prune_asks_only_when_something_would_go(run, fake, manifest):
    fake.script["fleet.diff"] = _items(KEEP)
    fake.script["fleet.apply"] = verdicts(verdict(action="keep"))
    assert run("apply", "-f", str(manifest), "--prune").status == 0
    fake.script["fleet.diff"] = _items(KEEP, DELETE)
    refused = run("apply", "-f", str(manifest), "--prune")
    assert refused.status == 2
    assert "alice/gone" in refused.err
    assert "--yes" in refused.err
    assert run("apply", "-f", str(manifest), "--prune", "--yes").status == 0
    assert on_terminal(fake, "apply", "-f", str(manifest), "--prune", typed="n\n").status == 1
    assert len(fake.called("fleet.apply")) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [", "not TOML"),
        ("a = 1\na = 2\n", "line 2"),
        ("schema = 2", "schema"),
        ("schema = 1\nbots = []", "bots"),
        ('schema = 1\n[[bot]]\nid = "a/b"\ncommand = "node x"', "bot[0].command"),
        ('schema = 1\n[[bot]]\nid = "a/b"\ncommand = ["x"]\nmemory_mbb = 1', "memory_mb"),
        ('schema = 1\n[[bot]]\nid = "a/b"\ncommand = ["x"]\nsecrets = {T = {file = "none"}}', "bot[0].secrets.T"),
        ('schema = 1\n[[bot]]\nid = "a/b"\ncommand = ["x"]\nsecrets = {T = "inline"}', "bot[0].secrets.T"),
        ("a = " + "[" * 5000, "fleet.toml"),
    ],
)
def test_a_manifest_that_is_wrong(run, fake, tmp_path, text, told):
    (tmp_path / "fleet.toml").write_text(text)
    for verb in ("apply", "diff"):
        ran = run(verb, "-f", str(tmp_path / "fleet.toml"))
        assert ran.status == 9
        assert told in ran.err
        assert str(tmp_path) in ran.err
    assert fake.calls == []


def test_a_manifest_that_is_not_there_or_no_text(run, tmp_path):
    assert run("apply", "-f", str(tmp_path / "no")).status == 9
    assert run("apply", "-f", str(tmp_path)).status == 9
    (tmp_path / "binary").write_bytes(b"a = 1\n\xff")
    ran = run("diff", "-f", str(tmp_path / "binary"))
    assert ran.status == 9
    assert "line 2" in ran.err
    assert run("apply").status == 2


def test_export_can_be_applied_again(run, fake):
    spec = {
        "id": "alice/shop",
        "command": ["node", 'it\'s "quoted"\n\u2028'],
        "directory": "/srv",
        "env": {"A": "x\ty"},
        "labels": {},
        "memory_mb": None,
        "restart": "always",
        "secrets": {"TOKEN": {"file": "/secrets/alice/shop/TOKEN"}},
        "probe": {"kind": "http", "url": "http://127.0.0.1:1/", "interval_s": 30},
    }
    fake.script["fleet.export"] = {"schema": 1, "items": [spec]}
    [bot] = expand(tomllib.loads(run("export").out), "/")
    for key in ("id", "command", "directory", "env", "secrets", "restart"):
        assert bot[key] == spec[key]
    assert json.loads(run("export", "-o", "json").out)["items"] == [spec]
    assert run("export", "-o", "name", "user:alice").out == "alice/shop\n"
