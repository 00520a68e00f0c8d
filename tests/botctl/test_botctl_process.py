"""botctl as a process: signals, closed and full streams, cron, connections that fail."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from botctl_fake import DEADLINE_S, bot, clean_environ, notify, on_terminal, page, spawn, verdict, verdicts

from botctl import client
from botd.contract.errors import BotdError
from botd.contract.paths import Paths


def _line(text):
    return {"id": "a/b", "stream": "stdout", "at": "2026-01-02T03:04:05Z", "line": text}


def test_from_cron_without_home_locale_or_terminal(fake):
    fake.script["bots.list"] = page(bot(), bot("bob/x", phase="failed", reason="naïve – gave up"))
    process = spawn(fake, "list", environ={"LC_ALL": "C"})
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    assert "x failed" in out
    assert "* running" in out


def test_a_character_that_the_encoding_has_not_is_escaped(fake):
    fake.script["bots.list"] = page(bot(reason="→ \ud800"))
    process = spawn(fake, "list", environ={"PYTHONIOENCODING": "latin-1"})
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    assert "\\u2192 \\ud800" in out


def test_interrupted_while_waiting(fake):
    called = threading.Event()

    def never(params, connection):
        called.set()
        fake.closing.wait(DEADLINE_S)
        return b""

    fake.script["bots.stop"] = never
    process = spawn(fake, "stop", "a/b")
    assert called.wait(DEADLINE_S)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_following_logs_until_interrupted(fake):
    def follow(params, connection):
        # One that overtakes the answer must not be lost, nor come before the older ones.
        notify(connection, "logs.line", {"subscription": 1, **_line("two")})
        return {"items": [_line("one")], "truncated": False, "subscription": 1}

    fake.script["bots.logs"] = follow
    process = spawn(fake, "logs", "-f", "a/b", "-n", "1")
    assert [process.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
    notify(fake._open[0], "logs.missed", {"subscription": 1, "missed": 5})
    assert "5 lines were missed" in process.stderr.readline()
    notify(fake._open[0], "logs.line", {"subscription": 1, **_line("three")})
    assert process.stdout.readline() == "three\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130


def test_a_follower_whose_daemon_goes_away_says_so(fake):
    fake.script["bots.logs"] = {"items": [_line("one")], "subscription": 1}
    process = spawn(fake, "logs", "-f", "a/b", "-o", "jsonl")
    assert json.loads(process.stdout.readline())["line"] == "one"
    fake._open[0].shutdown(socket.SHUT_RDWR)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 7
    assert "closed the connection" in err


def test_events_follow(fake):
    def subscribe(params, connection):
        event = {"seq": 8, "at": "2026-01-02T03:04:05Z", "id": "a/b", "kind": "exited", "text": "status 1"}
        notify(connection, "events.event", {"subscription": 1, "event": event})
        return {"items": [event | {"seq": 7, "kind": "started", "text": ""}], "subscription": 1}

    fake.script["events.subscribe"] = subscribe
    process = spawn(fake, "events", "-f", "-o", "jsonl")
    assert [json.loads(process.stdout.readline())["seq"] for _ in range(2)] == [7, 8]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130


@pytest.mark.parametrize("argv", [("list",), ("list", "-ojsonl")], ids=["quick", "typer"])
def test_a_reader_that_goes_away_is_no_error(fake, argv):
    fake.script["bots.list"] = page(*(bot(f"a/b{i}") for i in range(5000)))
    process = spawn(fake, *argv)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(DEADLINE_S) == 141


def test_a_full_disk_behind_the_redirection(fake):
    fake.script["bots.list"] = page(bot())
    with open("/dev/full", "w") as full:
        process = spawn(fake, "list", stdout=full)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert err == "botctl: cannot write the output: No space left on device\n"


def test_closed_streams(fake):
    fake.script["bots.start"] = verdicts(verdict())
    command = f'{sys.executable} -P -m botctl start a/b "$@" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], env=clean_environ(fake), check=False).returncode == 0


def _botd_that_says(stderr, calls, status=7):
    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, status, "", stderr)

    return run


class TestUnreachable:
    def test_nobody_there(self, run, monkeypatch):
        monkeypatch.setenv("BOTD_SOCKET", "/tmp/no-such-folder/s")
        for argv in (("list",), ("list", "--no-autostart"), ("is-active", "a/b"), ("daemon", "status")):
            ran = run(*argv)
            assert ran.status == 7
            assert "try: botctl daemon start" in ran.err
        assert run("daemon", "stop") == (0, "= botd is not running\n", "")
        assert run("version").status == 0

    def test_a_socket_without_a_listener(self, run, monkeypatch, fake):
        path = f"{fake.folder}/dead"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        monkeypatch.setenv("BOTD_SOCKET", path)
        assert run("list").status == 7

    def test_autostart_only_where_it_is_allowed(self, run, monkeypatch):
        started = []
        monkeypatch.setattr("subprocess.run", _botd_that_says("noise\nbotd: it broke\n  try: mend it\n", started))
        monkeypatch.setenv("BOTD_SOCKET", "/tmp/no-such-folder/s")
        monkeypatch.delenv("BOTCTL_AUTOSTART")
        ran = run("list")
        assert ran.status == 7
        assert ran.err == "botctl: botd could not be started: it broke\n  try: mend it\n"
        assert [command[1:] for command in started] == [["-P", "-m", "botd", "run", "--detach"]]
        for argv in (("list", "--no-autostart"), ("is-active", "a/b"), ("daemon", "status"), ("version",), ("doctor",)):
            run(*argv)
        assert run("completion", "bash").status == 0
        # What the doctor starts only looks into the database.
        assert [command[4] for command in started if command[4] != "repair"] == ["run"]

    def test_started_on_demand(self, run, monkeypatch, fake):
        hidden = f"{fake.folder}/later"
        monkeypatch.setenv("BOTD_SOCKET", hidden)
        monkeypatch.delenv("BOTCTL_AUTOSTART")
        monkeypatch.setattr("botctl.autostart.start_daemon", lambda *_: os.rename(fake.path, hidden))
        fake.script["bots.list"] = page(bot())
        assert run("list").status == 0

    def test_started_by_somebody_else_in_the_same_moment(self, run, monkeypatch, fake):
        hidden = f"{fake.folder}/later"
        monkeypatch.setenv("BOTD_SOCKET", hidden)
        monkeypatch.delenv("BOTCTL_AUTOSTART")
        fake.script["bots.list"] = page(bot())

        def refused(command, **_):
            # It holds the lock already and listens a moment later.
            threading.Timer(0.1, os.rename, (fake.path, hidden)).start()
            return subprocess.CompletedProcess(command, 1, "", "botd: botd is already running\n")

        monkeypatch.setattr("subprocess.run", refused)
        assert run("list").status == 0
        monkeypatch.setattr("botctl.autostart.OTHERS_PATIENCE_S", 0.05)
        monkeypatch.setenv("BOTD_SOCKET", f"{fake.folder}/never")
        monkeypatch.setattr("subprocess.run", _botd_that_says("botd: botd is already running\n", [], 1))
        ran = run("list")
        assert ran.status == 7
        assert "botd is already running" in ran.err

    @pytest.mark.parametrize(
        ("stderr", "status", "told"),
        [
            ("botd: x.json: no such key\n", 9, "x.json: no such key"),
            ("Traceback\nImportError: no botd\n", 7, "ImportError: no botd"),
            ("", 7, "it ended with status 7"),
        ],
    )
    def test_why_it_does_not_start(self, run, monkeypatch, stderr, status, told):
        monkeypatch.setenv("BOTD_SOCKET", "/tmp/no-such-folder/s")
        monkeypatch.setattr("subprocess.run", _botd_that_says(stderr, [], status))
        ran = run("daemon", "start", "--config", "x.json")
        assert ran.status == status
        assert f"botd could not be started: {told}\n" in ran.err

    def test_not_permitted_names_who_may(self, monkeypatch, fake):
        def denied(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(client, "_connect", denied)
        with pytest.raises(BotdError) as caught:
            client.connect(Paths(fake.folder, fake.path), autostart=False)
        assert caught.value.exit == 5
        assert "it is for root alone" in caught.value.message or "it is for " in caught.value.message

    def test_a_path_too_long_for_a_socket(self, run, monkeypatch):
        monkeypatch.delenv("BOTD_SOCKET")
        monkeypatch.setenv("BOTD_HOME", "/tmp/" + "x" * 120)
        ran = run("list")
        assert ran.status == 2
        assert "too long" in ran.err


@pytest.mark.parametrize(
    "answer",
    [b"not json\n", b"[1]\n", b"\xff\xfe\n", b"[" * 200_000 + b"\n", b'{"jsonrpc":"2.0","id":1,"result":[]}\n'],
)
def test_something_else_that_answers_on_the_socket(run, fake, answer):
    fake.script["bots.list"] = lambda params, connection: answer
    ran = run("list")
    assert ran.status in (1, 7)
    assert "Traceback" not in ran.err
    assert ran.err.startswith("botctl: ")


def test_an_answer_of_many_megabytes(run, fake):
    fake.script["bots.list"] = page(bot(reason="x" * (3 << 20)))
    assert len(run("list").out) > 3 << 20


def test_an_error_sent_before_the_question_was_read(run, fake):
    def refuse(params, connection):
        error = {"code": -32005, "message": "slow down", "data": {"kind": "rate_limited", "exit": 6}}
        return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n"

    fake.script["bots.list"] = refuse
    ran = run("list", "-o", "json")
    assert ran.status == 6
    assert json.loads(ran.out)["error"]["message"] == "slow down"


def test_a_daemon_that_never_answers_times_out(fake):
    connection = client.connect(Paths(fake.folder, fake.path), autostart=False)
    silent = []
    fake.script["daemon.ping"] = lambda params, connection: b""
    with pytest.raises(BotdError) as caught:
        connection.call("daemon.ping", {}, timeout=0.05, on_silence=lambda: silent.append(1), silence=0.01)
    connection.close()
    assert caught.value.exit == 124
    assert silent == [1]


def test_signs_of_life_extend_the_patience(fake):
    def slow(params, connection):
        for _ in range(5):
            threading.Event().wait(0.3)
            notify(connection, "progress", {})
        return {"pong": True}

    fake.script["daemon.ping"] = slow
    connection = client.connect(Paths(fake.folder, fake.path), autostart=False)
    assert connection.call("daemon.ping", {}, timeout=1.0) == {"pong": True}
    connection.close()


def test_a_bug_is_one_line_and_its_traceback_only_on_request(run, fake, monkeypatch):
    fake.script["bots.list"] = page(bot())
    monkeypatch.setattr("botctl.commands.bots._table", lambda *_: 1 / 0)
    ran = run("list")
    assert ran.status == 1
    assert "ZeroDivisionError" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in run("list", "--debug").err
    assert "Traceback" not in run("create", "a/b", "--", "x", "--debug").err


def test_a_silent_call_shows_a_spinner_on_a_terminal(fake):
    def slow(params, connection):
        threading.Event().wait(1.2)
        return verdicts(verdict())

    fake.script["bots.stop"] = slow
    assert "stopping" in on_terminal(fake, "stop", "a/b").out
