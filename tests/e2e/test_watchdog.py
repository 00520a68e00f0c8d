"""botd or the keeper stopped, dead, or unable to start: what comes back by itself, and what people are told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from fleet_house import ROOT, Fleet, alive, gone, kill, until

from botd import comeback

PATIENT = {"BOTD_WATCHDOG": "0.1,0.3,120"}
"""Quick to look, slow to end: nobody is to be ended here, also on a machine that stands still for seconds."""


@pytest.fixture(scope="module")
def watched():
    """A fleet of three witnesses, which know by a lock and numbers of their own whether they ran twice."""
    fleet = Fleet(environ=PATIENT).up()
    for name in ("one", "two", "three"):
        fleet.create(f"alice/{name}", "witness 0.05")
    yield fleet
    fleet.close()


def unharmed(fleet, before):
    assert fleet.pids() == before
    assert {bot["generation"] for bot in fleet.bots().values()} == {1}
    assert all(alive(pid) for pid in before.values())
    for name in before:
        numbers = [int(line.split()[2]) for line in fleet.lines(name)]
        assert numbers == list(range(1, len(numbers) + 1))


def seen(fleet, *words):
    """Whether an event of the keeper holds all these words."""
    return any(all(word in event["text"] for word in words) for event in fleet.events(kind="keeper"))


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopped_botd_is_woken_by_the_keeper(watched):
    before, daemon = watched.pids(), watched.daemon_pid
    os.kill(daemon, signal.SIGSTOP)
    # Whoever asks meanwhile waits for a moment, and gets an answer.
    done = watched.botctl("list", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert {bot["id"]: bot["pid"] for bot in json.loads(done.stdout)["items"]} == before
    assert watched.daemon_pid == daemon
    until(lambda: seen(watched, f"botd (pid {daemon}) was stopped", "the keeper woke it"), "the event")
    unharmed(watched, before)


def test_a_stopped_keeper_is_woken_by_botd(watched):
    before, keeper = watched.pids(), watched.keeper_pid
    os.kill(keeper, signal.SIGSTOP)
    # A start waits for the keeper, and then happens once.
    assert watched.create("alice/four", "witness 0.05")["ok"]
    before["alice/four"] = watched.pids()["alice/four"]
    assert watched.keeper_pid == keeper
    until(lambda: seen(watched, f"the keeper (pid {keeper}) was stopped", "botd woke it"), "the event")
    unharmed(watched, before)


def test_both_stopped_are_woken_by_the_next_command(watched):
    before, daemon, keeper = watched.pids(), watched.daemon_pid, watched.keeper_pid
    while {state_of(daemon), state_of(keeper)} != {"T"}:
        # Whichever stands last may just have woken the other.
        os.kill(daemon, signal.SIGSTOP)
        os.kill(keeper, signal.SIGSTOP)
    done = watched.botctl("list", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert f"botd (pid {daemon}) and its keeper (pid {keeper}) are stopped (SIGSTOP)" in done.stderr
    assert {bot["id"]: bot["pid"] for bot in json.loads(done.stdout)["items"]} == before
    assert (watched.daemon_pid, watched.keeper_pid) == (daemon, keeper)
    unharmed(watched, before)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
def test_a_dump_for_support(watched, number):
    dumps = watched.daemon_log().count("state: phases")
    os.kill(watched.daemon_pid, number)
    until(lambda: watched.daemon_log().count("state: phases") > dumps, "the dump")
    assert "most recent call first" in watched.daemon_log()
    assert watched.rpc("daemon.ping")


def test_a_botd_that_nobody_wakes_is_named_and_the_command_ends(make_fleet, monkeypatch):
    from botctl import client
    from botd.contract.errors import BotdError
    from botd.contract.paths import Paths

    fleet = make_fleet(environ={"BOTD_WATCHDOG": "60,600,600"}).up()
    daemon = fleet.daemon_pid
    monkeypatch.setattr(client, "LOOK_S", 0.1)
    os.kill(daemon, signal.SIGSTOP)
    try:
        caller = client.connect(Paths(fleet.home), autostart=False)
        with pytest.raises(BotdError) as caught:
            caller.call("daemon.status", {}, timeout=1)
        caller.close()
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert caught.value.exit == 124
    assert f"botd (pid {daemon}) is stopped (SIGSTOP); the keeper wakes it in a moment" in caught.value.message


def test_a_botd_in_the_foreground_comes_back_unless_somebody_else_sees_to_it(make_fleet):
    fleet = make_fleet()
    with open(f"{fleet.home}/botd.out", "ab") as log:
        command = [sys.executable, "-m", "botd", "run"]
        child = subprocess.Popen(command, env=fleet.environ, cwd=ROOT, stdout=log, stderr=log)
    fleet._children.append(child)
    until(fleet._answers, "botd")
    fleet.create("alice/one", "sleep")
    before = fleet.pids()
    fleet.hang_up()
    for _ in range(2):  # the one that came back does so, too
        kill(old := until(fleet._answers, "botd") and fleet.daemon_pid)
        fleet.hang_up()
        child.poll()
        until(lambda old=old: fleet._answers() and fleet.daemon_pid != old, "another botd")
        assert fleet.pids() == before
        fleet.hang_up()
    for words in (fleet.botctl("daemon", "status").stdout, fleet.botctl("doctor").stdout):
        assert "botd has died 2 times in a row soon after its start; the last time: killed by signal 9" in words
    assert "brought back by the keeper; the one before: killed by signal 9" in fleet.events(kind="daemon")[-1]["text"]
    # Asked to end, it stays away.
    os.kill(daemon := fleet.daemon_pid, signal.SIGTERM)
    fleet.hang_up()
    gone(daemon)
    told = fleet.botctl("daemon", "status")
    assert told.returncode == 7
    assert "1 bot runs on under the keeper" in told.stderr
    assert "down since" not in told.stderr


def test_who_brings_botd_back():
    assert comeback.wanted({}, detached=True)
    assert comeback.wanted({}, detached=False)
    assert comeback.wanted({"BOTD_RESPAWN": "1", "NOTIFY_SOCKET": "/s"}, detached=False)
    assert not comeback.wanted({"BOTD_RESPAWN": "0"}, detached=True)
    for manager in ({"NOTIFY_SOCKET": "/s"}, {"SYSTEMD_EXEC_PID": str(os.getpid())}):
        assert not comeback.wanted(manager, detached=False)
    assert comeback.wanted({"SYSTEMD_EXEC_PID": "1"}, detached=False)  # inherited from far above


# --- botd cannot start ------------------------------------------------------------------------------------------


def broken(fleet, spoil):
    """Kill botd, and spoil its next start before there is one; the pids of the bots."""
    fleet.create("alice/one", "sleep")
    before, daemon, keeper = fleet.pids(), fleet.daemon_pid, fleet.keeper_pid
    fleet.hang_up()
    os.kill(keeper, signal.SIGSTOP)
    try:
        kill(daemon)
        spoil()
    finally:
        os.kill(keeper, signal.SIGCONT)
    return before


def told(fleet):
    """The details of `daemon status` once the keeper has tried in vain."""

    def ask():
        done = fleet.botctl("daemon", "status", "-o", "json")
        assert done.returncode == 7, done.stdout + done.stderr
        details = json.loads(done.stdout)["error"]["details"]
        return details if details.get("said") and details["state"] == "waiting" else None

    return until(ask, "a start that failed")


def test_a_botd_that_cannot_start_is_told_about_by_the_keeper(make_fleet):
    fleet = make_fleet(environ=PATIENT).up()

    def spoil():
        os.unlink(fleet.socket)
        Path(fleet.socket).write_text("precious")

    before = broken(fleet, spoil)
    facts = told(fleet)
    assert "exists and is no socket" in facts["said"]
    status = facts["last_exit"]["code"]
    assert status
    assert facts["bots_running"] == 1
    # Between two attempts: during one it names that instead.
    shown = until(lambda: "tries again in" in (s := fleet.botctl("daemon", "status").stderr) and s, "a pause")
    for word in ("botd is down since", "(attempt", f"its last end: exit status {status}", "is no socket"):
        assert word in shown
    sick = fleet.botctl("doctor")
    assert sick.returncode == 1
    assert "botd is down since" in sick.stdout
    # A person who tries now is told at once.
    refused = fleet.botctl("daemon", "start")
    assert refused.returncode == 7, refused.stderr
    assert "exists and is no socket" in refused.stderr
    os.unlink(fleet.socket)
    # Mended: this command does not wait for the keeper's next attempt.
    assert fleet.botctl("daemon", "start").returncode == 0
    assert fleet.pids() == before


def test_a_configuration_that_has_become_bad_is_no_reason_to_stay_away(make_fleet):
    fleet = make_fleet(environ=PATIENT).up()
    good = Path(fleet.home, "bot_config.json").read_text()
    before = broken(fleet, lambda: fleet.configure("{ not json"))
    until(fleet._answers, "botd with the last good configuration")
    assert fleet.pids() == before
    assert fleet.rpc("config.show")["config"]["botRecovery"]["restartDelay"] == 20
    assert any("bot_config.json" in warning["text"] for warning in fleet.rpc("daemon.status")["warnings"])
    # Who starts it by hand is there to read that it is bad.
    fleet.down()
    assert fleet.botctl("daemon", "start").returncode == 9
    fleet.configure(good)
    fleet.up()


def test_the_socket_is_taken_by_a_program_of_somebody_else(make_fleet):
    fleet = make_fleet()
    os.makedirs(f"{fleet.home}/run")
    with socket.socket(socket.AF_UNIX) as taker:
        taker.bind(fleet.socket)
        taker.listen()
        refused = fleet.botd("run", "--detach")
        assert refused.returncode == 1
        assert f"is in use: another program (pid {os.getpid()}, " in refused.stderr
        assert Path(fleet.socket).is_socket()
        taker.setblocking(False)
        assert taker.accept()  # it was asked, not pushed aside
    # It was asked for, and got as far as the keeper: that tries again until the path is free.
    until(fleet._answers, "botd")


def test_the_python_of_botd_is_gone(make_fleet):
    fleet = make_fleet(None, environ=PATIENT)
    # An environment of its own, as `python -m venv` makes it.
    venv = Path(fleet.home, "venv")
    packages = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "ours.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (venv / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    fleet.python = str(venv / "bin" / "python")
    fleet.up()
    before = broken(fleet, lambda: venv.rename(f"{venv}.gone"))
    facts = told(fleet)
    assert "could not be started" in facts["said"]
    assert "No such file" in facts["said"]
    assert facts["last_exit"]["code"] == 127
    # botctl of another environment brings botd back with its own Python.
    fleet.python = sys.executable
    assert fleet.botctl("daemon", "start").returncode == 0
    assert fleet.pids() == before
