"""The power fails: the file system forgets everything that was not synced, the machine boots anew, botd starts.

An ext4 file system in a file is shut down as by the ioctl that its own tests use: no more writes, its log not flushed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from fleet_house import FAST, Fleet, ids, until

pytestmark = pytest.mark.root
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class Disk:
    """An ext4 of its own at `path`."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.image, self.path = f"{self.folder}/image", f"{self.folder}/m"
        os.mkdir(self.path)
        with open(self.image, "wb") as file:
            file.truncate(48 << 20)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4")
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True, stdin=subprocess.DEVNULL)
        self.mount()

    def mount(self):
        done = subprocess.run(["mount", "-o", "loop", self.image, self.path], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no loop device may be mounted here: {done.stderr.strip()}")

    def cut(self):
        """From now on nothing reaches the disk, not even what is in its log already."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            pytest.skip(f"this file system cannot be shut down: {error}")
        finally:
            os.close(fd)

    def remount(self):
        subprocess.run(["umount", self.path], check=True)
        self.mount()

    def close(self):
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def disk():
    made = Disk()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fleet(disk):
    home = f"{disk.path}/h"
    os.mkdir(home, 0o700)
    made = Fleet(FAST, home=home)
    # What the test itself has put there shall be there afterwards.
    for path in (f"{home}/bot_config.json", home, disk.path):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    try:
        yield made.up()
    finally:
        made.close()


def cut_power(fleet, disk):
    """Everything that runs is gone with it, and the next botd is told of another boot."""
    disk.cut()
    fleet.hang_up()
    # All at once, as it is: neither is there to bring the other back.
    until(fleet._kill_all, "an end of all processes")
    disk.remount()


def another_boot(fleet):
    """A real reboot has another boot id; here what is on record gets one that is not this machine's."""
    with contextlib.closing(sqlite3.connect(f"{fleet.home}/botd.db")) as database:
        database.execute("UPDATE observed SET boot_id = 'the boot before'")
        database.execute("UPDATE meta SET value = 'the boot before' WHERE key = 'boot_id'")
        database.commit()
    # What the keeper has in its journal is of that boot too.
    Path(fleet.home, "run", "keeper.journal").unlink(missing_ok=True)


def test_what_was_acknowledged_is_there_and_what_was_wanted_starts_again(fleet, disk):
    fleet.create("alice/runs", "sleep", secrets={"TOKEN": "kept"})
    fleet.create("alice/stopped", "sleep")
    fleet.rpc("bots.stop", select=ids("alice/stopped"))
    fleet.create("alice/gone", "sleep")
    fleet.rpc("bots.delete", select=ids("alice/gone"))
    answered = []
    for i in range(8):
        fleet.rpc("bots.create", spec={"id": f"bob/b{i}", "command": ["/bin/true"]}, request_id=f"r{i}")
        answered.append(f"bob/b{i}")
    fleet.rpc("bots.start", select=ids("bob/b3"), wait=False)
    last = fleet.rpc("bots.create", spec={"id": "bob/last", "command": ["/bin/sleep", "100"]}, start=True, wait=False)
    assert last["items"][0]["ok"]
    cut_power(fleet, disk)
    another_boot(fleet)
    fleet.up()
    bots = fleet.bots()
    assert bots.keys() == {"alice/runs", "alice/stopped", "bob/last", *answered}
    assert fleet.rpc("daemon.status")["database"]["state"] == "ok"
    runs = fleet.until_phase("alice/runs", "running")
    assert b"TOKEN=kept" in Path(f"/proc/{runs['pid']}/environ").read_bytes().split(b"\0")
    assert runs["last_exit"]["reason"] == "reboot"
    assert fleet.bot("alice/stopped")["phase"] == "stopped" and not fleet.bot("alice/stopped")["pid"]
    fleet.until_phase("bob/last", "running")
    # A request that was answered before is answered the same again, and not done twice.
    again = fleet.rpc("bots.create", spec={"id": "bob/b7", "command": ["/bin/true"]}, request_id="r7")
    assert again["items"][0]["id"] == "bob/b7"


def test_a_repair_and_a_snapshot_that_were_told_are_on_the_disk(fleet, disk):
    fleet.create("alice/runs", "sleep")
    fleet.create("alice/other", "sleep", start=False)
    fleet.down()
    assert Path(fleet.home, "botd.db.snapshot").exists()
    Path(fleet.home, "botd.db").write_bytes(b"garbage" * 4000)
    os.sync()
    fleet.up()
    report = fleet.rpc("daemon.repair")
    assert report["repaired"] and report["bots"] == 2
    cut_power(fleet, disk)
    kept = Path(fleet.home, os.path.basename(report["kept"]))
    assert kept.exists() and Path(fleet.home, "botd.db.snapshot").stat().st_size > 4096
    another_boot(fleet)
    fleet.up()
    assert fleet.bots().keys() == {"alice/runs", "alice/other"}
    assert fleet.rpc("daemon.status")["database"]["state"] == "ok"
