"""Where and as whom a daemon may run: one per home, short socket paths, a home of its own, any user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fleet_house import FAST, NOBODY, ROOT, Fleet, alive, ids, until


def test_a_second_botd_refuses_and_names_the_first(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/a", "sleep")
    before = fleet.pids()
    first = fleet.daemon_pid
    for arguments in (("run",), ("run", "--detach")):
        done = fleet.botd(*arguments)
        assert done.returncode == 1
        assert f"pid {first}" in done.stderr
        assert "botctl daemon stop" in done.stderr
        assert "Traceback" not in done.stderr
    assert fleet.daemon_pid == first
    assert fleet.pids() == before


def test_of_several_started_at_once_one_serves(make_fleet):
    fleet = make_fleet()
    command = [sys.executable, "-m", "botd", "run", "--detach"]
    racers = [
        subprocess.Popen(command, env=fleet.environ, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ends = [(racer.communicate(timeout=60)[1], racer.returncode) for racer in racers]
    assert [status for _, status in ends].count(0) == 1, ends
    assert all("already running" in words for words, status in ends if status)
    assert fleet.rpc("daemon.ping")


def test_several_commands_at_once_start_one_daemon(make_fleet):
    fleet = make_fleet()
    from fleet_house import BOTCTL

    racers = [
        subprocess.Popen(
            [str(BOTCTL), "list", "-o", "json"],
            env=fleet.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ends = [(*racer.communicate(timeout=60), racer.returncode) for racer in racers]
    assert [status for *_, status in ends] == [0] * 4, ends
    daemons = [process for process in fleet.processes() if "-m botd run" in process[1]]
    assert len(daemons) == 1


def test_a_socket_path_that_no_kernel_holds_is_refused_before_anything_is_made(make_fleet):
    fleet = make_fleet()
    deep = Path(fleet.home, "x" * 60, "y" * 60)
    for done in (
        fleet.botd("run", BOTD_HOME=str(deep)),
        fleet.botctl("list", BOTD_HOME=str(deep)),
        fleet.botctl("daemon", "start", BOTD_HOME=str(deep)),
    ):
        assert done.returncode == 2, done.stderr
        assert "too long" in done.stderr
        assert "107" in done.stderr
        assert "BOTD_HOME" in done.stderr
    assert not deep.parent.exists()


@pytest.mark.root
def test_a_home_that_may_not_be_written_to(make_fleet):
    fleet = make_fleet(uid=NOBODY)
    os.chown(fleet.home, NOBODY, NOBODY)
    os.chmod(fleet.home, 0o500)
    try:
        done = fleet.botd("run", "--detach")
        assert done.returncode != 0
        assert fleet.home in done.stderr
        assert "Permission denied" in done.stderr
        assert "Traceback" not in done.stderr
        assert os.listdir(fleet.home) == ["bot_config.json"]
        started = fleet.botctl("list")
        assert started.returncode == 7
        assert "Permission denied" in started.stderr
    finally:
        os.chmod(fleet.home, 0o700)


@pytest.mark.root
def test_a_home_of_somebody_else(make_fleet):
    theirs = make_fleet(uid=NOBODY)
    mine = Fleet(None, home=theirs.home)  # as root, who could, but does not
    done = mine.botd("run", "--detach")
    assert done.returncode == 5
    assert f"uid {NOBODY}" in done.stderr
    assert os.listdir(theirs.home) == ["bot_config.json"]


def test_something_else_stands_where_the_socket_belongs(make_fleet):
    fleet = make_fleet()
    os.makedirs(f"{fleet.home}/run")
    Path(fleet.socket).write_text("precious")
    done = fleet.botd("run", "--detach")
    assert done.returncode != 0
    assert "no socket" in done.stderr
    assert Path(fleet.socket).read_text() == "precious"
    os.unlink(fleet.socket)


def test_a_socket_that_a_dead_daemon_left_is_in_nobodys_way(make_fleet):
    fleet = make_fleet(foreground=True).up()
    fleet.kill_daemon()
    assert Path(fleet.socket).exists()
    assert fleet.botctl("list").returncode == 0


def test_a_home_is_private_and_complete(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/a", "print hello + sleep")
    fleet.until_line("alice/a", "hello")
    for folder, folders, files in os.walk(fleet.home):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            assert mode & 0o077 == 0 or name == "bot_config.json", f"{path} {mode:o}"


@pytest.mark.root
@pytest.mark.parametrize("containment", ["auto", "tree"])
def test_everything_works_without_privileges(make_fleet, containment):
    """The whole story once as nobody, who has no writable cgroup and may lower nothing but itself."""
    fleet = make_fleet(uid=NOBODY, containment=containment).up()
    assert os.stat(f"/proc/{fleet.daemon_pid}").st_uid == NOBODY
    assert fleet.rpc("daemon.status")["keeper"]["containment"] == "tree"
    fleet.create("alice/runs", "print hello + sleep")
    fleet.create("alice/family", "fork stubborn", stop_grace_s=0.3)
    fleet.create("alice/loop", "crash 3", wait=False)
    fleet.create("alice/exits", "until go + crash 7", restart="never")
    assert fleet.until_phase("alice/loop", "failed")["restarts"] == 3
    fleet.until_line("alice/runs", "hello")
    pids = fleet.pids()
    assert os.stat(f"/proc/{pids['alice/runs']}").st_uid == NOBODY
    listed = fleet.botctl("list", "-o", "name")
    assert len(listed.stdout.splitlines()) == 4, listed.stderr
    family = fleet.forked("alice/family")
    fleet.kill_daemon()
    assert fleet.persist("bots.stop", select=ids("alice/family"))["summary"]["failed"] == 0
    until(lambda: not any(alive(pid) for pid in family.values()), f"an end of {family}")
    fleet.touch("alice/exits", "go")
    assert fleet.until_phase("alice/exits", "failed")["last_exit"]["code"] == 7
    fleet.kill_keeper()
    until(lambda: fleet.persist("daemon.status")["keeper"]["connected"], "another keeper")
    assert fleet.pids("alice/runs") == {"alice/runs": pids["alice/runs"]}
    stopped = fleet.rpc("bots.stop", select=ids("alice/runs"))
    assert stopped["summary"]["failed"] == 0, stopped
    assert not alive(pids["alice/runs"])
    assert fleet.botctl("doctor").returncode in (0, 1)


@pytest.mark.root
def test_as_root_the_danger_is_pointed_out(make_fleet):
    fleet = make_fleet().up()
    assert any("root" in warning["text"] for warning in fleet.rpc("daemon.status")["warnings"])
    shown = fleet.botctl("daemon", "status")
    assert "root" in shown.stdout + shown.stderr


def test_unknown_words_are_a_usage_error():
    for arguments in (["fly"], ["run", "--detch"], ["run", "--config"]):
        done = subprocess.run(
            [sys.executable, "-m", "botd", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
            timeout=30,
        )
        assert done.returncode == 2
        assert "botd --help" in done.stderr


def test_a_configuration_that_was_named_must_exist(make_fleet):
    fleet = make_fleet()
    done = fleet.botd("run", "--detach", "--config", "/no/such/bot_config.json")
    assert done.returncode == 9
    assert "/no/such/bot_config.json" in done.stderr


def test_two_fleets_do_not_know_each_other(make_fleet):
    one, two = make_fleet().up(), make_fleet(FAST).up()
    one.create("alice/a", "sleep")
    assert two.bots() == {}
    two.down(bots=True)
    assert one.bot("alice/a")["phase"] == "running"
