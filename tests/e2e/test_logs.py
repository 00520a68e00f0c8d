"""Logs from the bot's pipe to the terminal: rotated, compressed, followed while botd is killed."""

import os
import subprocess
from pathlib import Path

import pytest
from fleet_house import BOTCTL, FAST, ids, until

PATIENCE_S = 180.0


@pytest.fixture
def follow():
    """`follow(fleet, ARGS)`: a botctl that follows; ended with the test."""
    running = []

    def start(fleet, *args):
        command = [str(BOTCTL), "logs", "-f", *args]
        running.append(
            subprocess.Popen(
                command, env=fleet.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_following_outlives_botd_and_loses_and_doubles_nothing(make_fleet, follow):
    fleet = make_fleet({**FAST, "output": {"maxLogSize": 1, "keepLogs": 9}}).up()
    fleet.create("alice/a", "lines 100 0.01 + flood 15000 100 + lines 100 0.01 + print last + sleep")
    process = follow(fleet, "-n", "100000", "alice/a")
    got = []
    for line in process.stdout:
        got.append(line.decode()[:8])
        if len(got) in (50, 9000):
            fleet.kill_daemon()
        if line == b"last\n":
            break
    assert got[:-1] == [f"{i:08d}" for i in range(1, 15_201)]
    assert process.poll() is None


def test_it_ends_when_the_bot_is_deleted(make_fleet, follow):
    fleet = make_fleet().up()
    fleet.create("alice/a", "print one + sleep")
    process = follow(fleet, "alice/a")
    assert process.stdout.readline() == b"one\n"
    fleet.rpc("bots.delete", select=ids("alice/a"))
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 0


def test_what_the_keeper_rotates_is_compressed_and_kept_within_the_budget(make_fleet):
    fleet = make_fleet({**FAST, "output": {"maxLogSize": 1, "keepLogs": 20, "maxPerUser": 6}}).up()
    fleet.create("alice/a", "flood 30000 100 + until go + flood 90000 100 + sleep")
    folder = Path(fleet.home, "logs", "alice", "a")
    # The process that compresses takes what others leave of the processor: beside many hogs that is little.
    packed, plain = folder / "out.log.2.gz", folder / "out.log.2"
    until(lambda: packed.exists() and not plain.exists(), "a compressed log", within=PATIENCE_S)
    assert len(fleet.lines("alice/a")) == 30_000
    # Lines of chance do not get smaller, so that the budget is passed.
    for number in range(10, 17):
        (folder / f"out.log.{number}.gz").write_bytes(os.urandom(1 << 20))
        os.utime(folder / f"out.log.{number}.gz", (1, 1))
    fleet.touch("alice/a", "go")
    (event, *_) = until(lambda: fleet.events("alice/a", kind="logs"), "an event", within=PATIENCE_S)
    assert "oldest log file" in event["text"]
    assert "of 6 MiB (output.maxPerUser)" in event["text"]
    (item,) = fleet.rpc("users.resources", user="alice")["items"]
    assert item["log_limit_bytes"] == 6 << 20
    assert item["logs_removed"]["files"] >= 1
