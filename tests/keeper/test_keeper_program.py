"""The keeper as a program: how it is called, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keeper_house import ENV, PROGRAM, alive, until

from botd.keeper import wire

ROOT = str(Path(wire.__file__).parents[2])
WAYS = {
    "by its path": [sys.executable, "-I", "-S", PROGRAM],
    "as a module": [sys.executable, "-m", "botd.keeper"],
}


def call(way: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [*WAYS[way], *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_life(house, way):
    command = [*WAYS[way], "--home", house.home]
    house.program = subprocess.Popen(command, cwd=ROOT, env=ENV, stdin=subprocess.DEVNULL, start_new_session=True)
    keeper = house.connect()
    assert keeper.hello["pid"] == house.program.pid
    keeper.start("u/bot", 1, ["sh", "-c", "echo hello; exit 3"])
    assert keeper.expect("exited", "u/bot", 1)["code"] == 3
    assert house.log("u/bot") == b"hello\n"
    second = call(way, "--home", house.home)
    assert second.returncode == 75
    assert house.home in second.stderr
    keeper.send({"op": "quit"})
    assert house.program.wait(20) == 0
    assert "ended" in house.keeper_log()


@pytest.mark.parametrize("way", WAYS)
def test_detached_it_listens_when_the_command_is_back(house, way):
    assert call(way, "--home", house.home, "--detach").returncode == 0
    pid = int(Path(house.path("run/keeper.lock")).read_text())
    try:
        assert house.connect().hello["pid"] == pid
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "the keeper to be gone")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--home"], ["--home", "/tmp/x", "--containment", "prison"], ["--home", "/tmp/x", "--without=luck"], ["now"]],
)
def test_wrong_arguments_get_the_usage(arguments):
    done = call("as a module", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: botd-keeper --home HOME")


def test_a_home_that_cannot_be_made(house):
    Path(house.path("file")).touch()
    done = call("as a module", "--home", house.path("file", "home"))
    assert done.returncode == 1
    assert "cannot start" in done.stderr
