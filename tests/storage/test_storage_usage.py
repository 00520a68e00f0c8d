"""What a bot takes on disk, measured against what `du` says, whatever lies in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.quota import Shared
from botd.storage import folders, releases, usage
from botd.storage.sharing import Releases

BOT = "alice/shop"


@pytest.fixture
def home():
    path = tempfile.mkdtemp(prefix="b", dir="/tmp")
    folders.prepare_home(Paths(path))
    folders.prepare(Paths(path), BOT)
    yield path
    shutil.rmtree(path)


def du(path):
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True, text=True).stdout.split()[0])


def one(home):
    return usage.measure(home, [BOT])[BOT]


def test_private_data_and_logs_are_counted_as_du_does(home):
    data, logs = Path(home, "bots", BOT, "data"), Path(home, "logs", BOT)
    (data / "deep" / "er").mkdir(parents=True)
    (data / "deep" / "er" / "file").write_bytes(b"x" * 100_000)
    (data / "sparse").touch()
    os.truncate(data / "sparse", 1 << 30)
    os.link(data / "deep" / "er" / "file", data / "again")
    (logs / "out.log").write_bytes(b"y" * 50_000)
    (logs / "out.log.1.gz").write_bytes(b"z" * 10_000)
    found = one(home)
    assert found.usage.private == du(data.parent)
    assert found.usage.logs == du(logs) - logs.stat().st_blocks * 512  # its own entry is botd's
    assert found.complete and found.entries == 7


def test_what_is_only_linked_to_is_somebody_elses(home):
    data = Path(home, "bots", BOT, "data")
    before = one(home).usage
    tree = Path(home, "templates", "big")
    tree.mkdir(parents=True)
    (tree / "code").write_bytes(b"x" * (1 << 20))
    (data / "link").symlink_to(tree)
    (data / "file").symlink_to(tree / "code")
    (data / "loop").symlink_to(".")
    assert one(home).usage == before
    assert usage.folder(home, "templates").bytes >= 1 << 20


def test_a_link_in_place_of_a_bot_is_not_followed(home):
    elsewhere = Path(home, "elsewhere")
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"x" * (1 << 20))
    shutil.rmtree(Path(home, "bots", BOT))
    Path(home, "bots", BOT).symlink_to(elsewhere)
    found = one(home)
    assert (found.usage.private, found.complete) == (0, False)


def test_a_bot_without_folders_and_a_home_that_is_gone(home):
    found = usage.measure(home, ["no/body"])["no/body"]
    assert (found.usage.total, found.complete) == (0, True)
    assert usage.folder(f"{home}/nowhere", "x").complete is False
    with pytest.raises(BotdError) as caught:
        usage.measure(f"{home}/nowhere", [BOT])
    assert caught.value.kind == "unavailable"


def test_the_database_with_what_is_beside_it(home):
    for name in ("botd.db", "botd.db-wal", "other"):
        Path(home, name).write_bytes(b"x" * 8192)
    assert usage.files(home, "botd.db") == du(f"{home}/botd.db") + du(f"{home}/botd.db-wal")
    assert usage.files(f"{home}/nowhere", "botd.db") == 0


def test_the_size_of_a_release_is_what_its_files_take(home, tmp_path):
    paths, sizes = Paths(home), Releases(Paths(home))
    assert sizes.size("node", "0" * 64) is None
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "code.js").write_bytes(b"x" * 90_000)
    (tmp_path / "index.js").write_bytes(b"y" * 700)
    (tmp_path / "config.json").write_bytes(b"z" * 50)  # private: no bot shares it
    added = releases.add(paths, "node", str(tmp_path))
    assert sizes.size("node", added.hash) == Shared(90_700, 700)
    index = Path(paths.release("node", added.hash), "index.json")
    os.chmod(index.parent, 0o700)
    index.unlink()
    assert sizes.size("node", added.hash) == Shared(90_700, 700)
    assert Releases(paths).size("node", added.hash) is None
