"""The disk is full: bots run on, requests are refused in words, and what happened meanwhile is recorded afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from fleet_house import FAST, Fleet, alive, ids, until

from botd.contract.errors import BotdError

pytestmark = pytest.mark.root
MARGIN = 4096


@pytest.fixture
def tight():
    """A fleet on a file system of 24 MiB, and `fill()` and `free()` for it."""
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", home], check=False).returncode:
        os.rmdir(home)
        pytest.skip("no tmpfs may be mounted here")
    try:
        fleet = Fleet(FAST, home=home).up()
        fleet.ballast = Path(home, "ballast")
        try:
            yield fleet
        finally:
            free(fleet)
            fleet.close()
    finally:
        subprocess.run(["umount", "-l", home], check=False)
        os.rmdir(home)


def fill(fleet):
    """Not a byte is left."""
    with open(fleet.ballast, "ab", buffering=0) as file:
        for size in (1 << 20, MARGIN, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    # Freed pages of the database could still take a small change: use them up as well.
    assert os.statvfs(fleet.home).f_bavail == 0


def free(fleet):
    fleet.ballast.unlink(missing_ok=True)


def test_requests_are_refused_and_nothing_changes_while_bots_run_on(tight):
    tight.create("alice/runs", "sleep")
    tight.create("alice/down", "sleep", start=False)
    # The write-ahead log is at its full length first: room that it has already is no full disk.
    before = tight.bots()
    fill(tight)
    refusals = 0
    for _ in range(2000):
        error = tight_refusal(tight)
        if error is not None:
            refusals += 1
            assert error.kind == "unavailable"
            assert "disk is full" in error.message or "cannot be written" in error.message
            assert "free" in error.hint
            assert error.exit == 1
        if refusals == 3:
            break
    assert refusals == 3, "the disk never was full for the database"
    after = tight.bots()
    assert after["alice/runs"]["pid"] == before["alice/runs"]["pid"]
    assert alive(after["alice/runs"]["pid"])
    assert after.keys() >= before.keys()
    for words in (("list",), ("status", "alice/runs"), ("health",), ("daemon", "status")):
        assert tight.botctl(*words).returncode == 0
    done = tight.botctl("create", "alice/refused", "-C", "/", "-e", "X=" + "y" * 100_000, "--", "/bin/true")
    assert done.returncode == 1
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "alice/refused" not in tight.bots()
    free(tight)
    assert tight.botctl("start", "alice/down").returncode == 0
    tight.create("alice/after", "sleep")


def tight_refusal(fleet):
    """One more bot with a big environment, or the reason why not."""
    number = len(fleet.bots())
    spec = {"id": f"u{number // 40}/b{number}", "command": ["/bin/true"], "env": {"X": "y" * 100_000}}
    try:
        fleet.rpc("bots.create", spec=spec)
    except BotdError as error:
        return error
    return None


def test_an_exit_on_a_full_disk_is_recorded_when_there_is_room(tight):
    tight.create("alice/ends", "until go + crash 7", restart="never")
    tight.create("alice/runs", "sleep")
    while tight_refusal(tight) is None:
        if tight.ballast.exists():
            continue
        fill(tight)
    pid = tight.bot("alice/ends")["pid"]
    # An empty file needs no block, only its name.
    go = tight.data("alice/ends", "go")
    try:
        go.touch()
    except OSError:
        os.link(tight.home + "/bot_config.json", go)
    until(lambda: not alive(pid), "the end of the bot")
    refused = tight.refused("bots.stop", select=ids("alice/runs")) if _must_refuse(tight) else None
    if refused is not None:
        assert refused.kind == "unavailable"
        assert refused.exit == 1
    assert alive(tight.bot("alice/runs")["pid"])
    free(tight)
    ended = tight.until_phase("alice/ends", "failed")
    assert ended["last_exit"]["code"] == 7
    assert ended["generation"] == 1
    assert tight.rpc("bots.stop", select=ids("alice/runs"))["items"][0]["ok"]
    until(lambda: tight.rpc("daemon.status")["waiting_for_disk"] == 0, "an empty queue")


def _must_refuse(fleet):
    """Whether the end of the bot is waiting for the disk, so that every promise has to be refused."""
    return fleet.rpc("daemon.status")["waiting_for_disk"] > 0


def test_a_daemon_that_is_killed_on_a_full_disk_comes_back_with_every_bot(tight):
    tight.create("alice/runs", "sleep")
    before = tight.pids()
    fill(tight)
    old = tight.kill_daemon()
    free(tight)
    assert tight.persist("daemon.version")["pid"] != old
    assert tight.pids() == before
