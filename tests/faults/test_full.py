"""A home of 1 MiB that is filled up: clear errors, bots run on and come back, and all is well once there is space.

Also without a single inode to spare. botd and its keeper are never restarted in between.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from fleet_house import FAST, Fleet, alive, ids, kill, until

pytestmark = pytest.mark.root
PATIENT = {**FAST, "resourceManagement": {"autoRestartMaxAttempts": 100_000, "memoryThreshold": 100}}


@pytest.fixture
def small(request):
    """A fleet in a file system of its own, `options` of mount(8)."""
    options = getattr(request, "param", "size=1m")
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=0700", "tmpfs", home], check=False).returncode:
        os.rmdir(home)
        pytest.skip("no tmpfs may be mounted here")
    try:
        fleet = Fleet(PATIENT, home=home).up()
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
    with Path(fleet.home, "ballast").open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    assert os.statvfs(fleet.home).f_bavail == 0


def use_inodes(fleet):
    """Not a file more can be made."""
    folder = Path(fleet.home, "many")
    folder.mkdir()
    try:
        for i in range(100_000):
            (folder / str(i)).touch()
    except OSError:
        return
    raise AssertionError("inodes are not limited here")


def free(fleet):
    Path(fleet.home, "ballast").unlink(missing_ok=True)
    subprocess.run(["rm", "-rf", f"{fleet.home}/many"], check=True)


def refusal(fleet):
    """Make bots until one is refused; the finished botctl."""
    for i in range(200):
        done = fleet.botctl("create", f"fill/b{i}", "-C", "/", "-e", "X=" + "y" * 20_000, "--", "/bin/true")
        if done.returncode:
            return done
    raise AssertionError("nothing was refused")


def another_life(fleet, name, before):
    kill(before["pid"])
    return fleet.until_bot(
        name, lambda bot: bot["phase"] == "running" and bot["pid"] != before["pid"], "another life on a full disk"
    )


def test_everything_goes_on_on_a_full_disk_and_is_on_record_afterwards(small):
    small.create("alice/ends", "sleep")
    small.create("alice/runs", "sleep")
    small.create("alice/talks", "witness 0.01")
    small.create("alice/down", "sleep", start=False)
    daemon, keeper = small.daemon_pid, small.keeper_pid
    runs = small.bot("alice/runs")
    fill(small)
    done = refusal(small)
    known = small.bots()
    assert done.returncode == 1 and "the disk is full" in done.stderr and "botctl cleanup" in done.stderr
    assert "Traceback" not in done.stderr
    # Until the database itself takes no more: what ends then ends without a record.
    ends = small.bot("alice/ends")
    for _ in range(60):
        if small.rpc("daemon.status")["waiting_for_disk"]:
            break
        ends = another_life(small, "alice/ends", ends)
        fill(small)  # it may have folded its log and made room: take that too
    else:
        raise AssertionError("the database never was full")
    ends = another_life(small, "alice/ends", ends)
    for words in (("list",), ("status", "alice/runs"), ("health",), ("daemon", "status"), ("system", "status")):
        assert small.botctl(*words).returncode == 0
    assert small.botctl("config", "reload").returncode == 0
    manifest = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"), "fleet.toml")
    body = f'[[bot]]\nid = "alice/big"\ncommand = ["/bin/true"]\ndirectory = "/"\nenv = {{ X = "{"y" * 60_000}" }}\n'
    manifest.write_text(f"schema = 1\n{body}")
    applied = small.botctl("apply", "-f", str(manifest))
    manifest.unlink()
    manifest.parent.rmdir()
    assert applied.returncode == 1 and "the disk is full" in applied.stderr
    assert small.bot("alice/runs")["pid"] == runs["pid"] and alive(runs["pid"])
    free(small)
    until(lambda: small.rpc("daemon.status")["waiting_for_disk"] == 0, "everything to be on record")
    small.create("alice/after", "sleep")
    assert small.rpc("bots.start", select=ids("alice/down"))["items"][0]["ok"]
    assert (small.daemon_pid, small.keeper_pid) == (daemon, keeper)
    # What a new botd reads is what the old one knew.
    before = small.pids()
    small.kill_daemon()
    assert small.pids() == before and known.keys() <= before.keys()
    told = [event["generation"] for event in small.events("alice/ends", kind="exited")]
    assert told == sorted(set(told)) and told[-1] == small.bot("alice/ends")["generation"] - 1
    small.rpc("bots.stop", select=ids("alice/talks"))
    numbers = [int(line.split()[2]) for line in small.lines("alice/talks")]
    assert numbers == list(range(1, len(numbers) + 1)), "a line was lost"


def test_a_botd_that_dies_on_a_full_disk_comes_back_on_it(small):
    small.create("alice/runs", "sleep")
    small.create("alice/ends", "sleep")
    before = small.pids()
    fill(small)
    refusal(small)
    old = small.kill_daemon()
    assert small.persist("daemon.version")["pid"] != old
    assert {name: small.pids()[name] for name in before} == before
    ends = another_life(small, "alice/ends", small.bot("alice/ends"))
    again = small.kill_daemon()
    assert small.persist("daemon.version")["pid"] != again
    assert small.bot("alice/ends")["pid"] == ends["pid"], "the life that was begun without a record is kept"
    free(small)
    until(lambda: small.rpc("daemon.status")["database"]["state"] == "ok", "the database to be used again")
    until(lambda: small.rpc("daemon.status")["waiting_for_disk"] == 0, "everything to be on record")
    small.create("alice/after", "sleep")


@pytest.mark.parametrize("small", ["size=4m,nr_inodes=120"], indirect=True)
def test_without_an_inode_to_spare(small):
    small.create("alice/ends", "sleep")
    small.create("alice/runs", "sleep")
    runs = small.bot("alice/runs")
    use_inodes(small)
    another_life(small, "alice/ends", small.bot("alice/ends"))
    # It can be recorded, but no folder of its own can be made: told when it is started.
    done = small.botctl("create", "alice/new", "--start", "--timeout", "2", "--", "/bin/sleep", "100")
    assert done.returncode != 0 and "No space left" in done.stdout + done.stderr
    assert small.bot("alice/runs")["pid"] == runs["pid"]
    free(small)
    small.until_phase("alice/new", "running")
