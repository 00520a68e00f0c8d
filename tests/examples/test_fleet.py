"""The example manifest is one that botctl takes, and its secrets are made where it says."""

import itertools
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from messenger import EXAMPLES, load

from botd.contract import manifest

make_secrets = load(EXAMPLES / "make_secrets.py")


@pytest.fixture
def bots():
    return manifest.expand(tomllib.loads((EXAMPLES / "fleet.toml").read_text()), str(EXAMPLES))


def test_twelve_bots_of_three_users_in_turn_python_and_node(bots):
    users = [list(group) for _, group in itertools.groupby(bots, lambda bot: bot["id"].split("/")[0])]
    assert [len(group) for group in users] == [4, 4, 4]
    programs = [os.path.join(bot["directory"], bot["command"][1]) for bot in bots]
    python = str(EXAMPLES / "messenger-python" / "bot.py")
    node = str(EXAMPLES / "messenger-node" / "bot.js")
    assert programs == [python, node] * 6
    assert all(map(os.path.isfile, programs))
    assert [bot["command"][0] for bot in bots] == ["python3", "node"] * 6


def test_each_has_what_its_program_needs(bots):
    for bot in bots:
        assert set(bot["secrets"]) == {"VERIFY_TOKEN", "APP_SECRET", "PAGE_ACCESS_TOKEN"}
        assert bot["port"] is True
        assert bot["probe"]["url"].endswith("/health")
        assert bot["memory_mb"] > 0
    pages = [bot["secrets"]["PAGE_ACCESS_TOKEN"]["file"] for bot in bots]
    assert len(set(pages)) == 12, "each page has a token of its own"


def test_secrets_are_made_once_and_for_their_owner_only(bots, tmp_path):
    shutil.copy(EXAMPLES / "fleet.toml", tmp_path)
    command = [sys.executable, str(EXAMPLES / "make_secrets.py"), str(tmp_path / "fleet.toml")]
    real = tmp_path / "secrets" / "alice" / "app_secret"
    real.parent.mkdir(parents=True)
    real.write_text("a real one\n")
    first = subprocess.run(command, capture_output=True, text=True, umask=0o022)
    assert (first.returncode, first.stdout) == (0, "17 placeholders written, 1 files were there already\n")
    assert real.read_text() == "a real one\n"
    made = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    wanted = {secret["file"] for bot in bots for secret in bot["secrets"].values()}
    assert {str(EXAMPLES / path.relative_to(tmp_path)) for path in made} == wanted
    assert {path.stat().st_mode & 0o777 for path in made if path != real} == {0o600}
    assert (tmp_path / "secrets" / "bob").stat().st_mode & 0o777 == 0o700
    contents = {path.read_text() for path in made}
    assert len(contents) == 18
    assert all(text.startswith("demo-") for text in contents - {"a real one\n"})
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.stdout == "0 placeholders written, 18 files were there already\n"


def test_a_manifest_that_is_none(tmp_path):
    (tmp_path / "fleet.toml").write_text("bot = 7")
    assert make_secrets.main([str(tmp_path / "fleet.toml")]) == 1
    assert make_secrets.main([str(tmp_path / "missing.toml")]) == 1
    assert os.listdir(tmp_path) == ["fleet.toml"]
