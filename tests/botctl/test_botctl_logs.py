"""botctl logs: bytes as they are for programs, safe for terminals, and -f that outlives a botd."""

import base64
import json
import os
import signal
import socket

from botctl_fake import DEADLINE_S, notify, on_terminal, spawn

from botctl.commands import logs as command
from botd.contract.errors import BotdError

EVIL = b"\xff\x1b]0;owned\x07caf\xe9"


def _line(text, id="a/b", **more):
    return {"id": id, "stream": "stdout", "at": "2026-01-02T03:04:05Z", "line": text, **more}


def _binary(data):
    return _line(data.decode("utf-8", "replace"), raw=base64.b64encode(data).decode())


def _finish(process):
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=DEADLINE_S)


def test_bytes_that_are_no_text_reach_a_pipe_as_they_are(fake):
    fake.script["bots.logs"] = {"items": [_line("before"), _binary(EVIL), _line("after")]}
    process = spawn(fake, "logs", "a/b", text=False)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert out == b"before\n" + EVIL + b"\nafter\n"
    process = spawn(fake, "logs", "a/*", "-t", text=False)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert out.split(b"\n")[1] == b"a/b | 2026-01-02 03:04:05 " + EVIL


def test_they_are_visible_and_harmless_on_a_terminal(fake):
    fake.script["bots.logs"] = {"items": [_binary(EVIL)]}
    assert on_terminal(fake, "logs", "a/b").out == "\ufffd\\x1b]0;owned\\x07caf\ufffd\n"


def test_programs_get_both_forms(fake):
    fake.script["bots.logs"] = {"items": [_binary(EVIL), _line("text")]}
    out, _ = spawn(fake, "logs", "a/b", "-o", "jsonl").communicate(timeout=DEADLINE_S)
    first, second = map(json.loads, out.splitlines())
    assert base64.b64decode(first["raw"]) == EVIL
    assert first["line"] == "\ufffd\x1b]0;owned\x07caf\ufffd"
    assert "raw" not in second


def test_what_could_not_be_read_is_said_beside_the_lines(run, fake):
    fake.script["bots.logs"] = {"items": [_line("one")], "notes": ["a/b: out.log.3.gz cannot be read: \x1b[2J"]}
    ran = run("logs", "a/b")
    assert (ran.status, ran.out) == (0, "one\n")
    assert ran.err == "botctl: a/b: out.log.3.gz cannot be read: \\x1b[2J\n"


def test_each_bot_keeps_its_colour(fake):
    items = [_line("1", "a/x"), _line("2", "a/yy"), _line("3", "a/x")]
    fake.script["bots.logs"] = {"items": items}
    assert on_terminal(fake, "logs", "a/*").out.splitlines() == [
        "\x1b[36ma/x  |\x1b[0m 1",
        "\x1b[33ma/yy |\x1b[0m 2",
        "\x1b[36ma/x  |\x1b[0m 3",
    ]
    assert on_terminal(fake, "logs", "a/*", NO_COLOR="1").out == "a/x  | 1\na/yy | 2\na/x  | 3\n"


def test_following_goes_on_after_botd_was_away(fake):
    def answer(params, connection):
        if params.get("resume") is None:
            return {"items": [_line("one", id="a/b")], "subscription": 1, "positions": {"a/b": {"stdout": "1.4.0"}}}
        notify(connection, "logs.line", {"subscription": 1, **_line("three", next="1.e.0")})
        return {"items": [], "subscription": 1, "positions": params["resume"]}

    fake.script["bots.logs"] = answer
    process = spawn(fake, "logs", "-f", "a/b", "-n", "1")
    assert process.stdout.readline() == "one\n"
    notify(fake._open[0], "logs.line", {"subscription": 1, **_line("two", next="1.8.0")})
    assert process.stdout.readline() == "two\n"
    fake._open[0].shutdown(socket.SHUT_RDWR)
    assert process.stdout.readline() == "three\n"
    fake._open[1].shutdown(socket.SHUT_RDWR)
    assert process.stdout.readline() == "three\n"
    assert _finish(process) == ("", "")
    assert process.returncode == 130
    resumed = [params.get("resume") for params in fake.called("bots.logs")]
    assert resumed == [None, {"a/b": {"stdout": "1.8.0"}}, {"a/b": {"stdout": "1.e.0"}}]


def test_a_refusal_after_the_return_ends_it(fake):
    def answer(params, connection):
        if params.get("resume") is None:
            return {"items": [_line("one")], "subscription": 1, "positions": {"a/b": {}}}
        return BotdError("not_found", "no bot matches a/b")

    fake.script["bots.logs"] = answer
    process = spawn(fake, "logs", "-f", "a/b")
    assert process.stdout.readline() == "one\n"
    fake._open[0].shutdown(socket.SHUT_RDWR)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 4
    assert "no bot matches" in err


def test_a_botd_that_stays_away_is_not_waited_for_for_ever(run, fake, monkeypatch):
    monkeypatch.setattr(command, "PATIENCE_S", 0.1)

    def hang_up(params, connection):
        os.unlink(fake.path)
        result = {"items": [_line("one")], "subscription": 1, "positions": {}}
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() + b"\n")
        connection.shutdown(socket.SHUT_RDWR)
        return b""

    fake.script["bots.logs"] = hang_up
    ran = run("logs", "-f", "a/b")
    assert (ran.status, ran.out) == (7, "one\n")
    assert "botd is not running" in ran.err


def test_it_ends_with_the_last_bot_that_was_named(run, fake):
    def deleted(params, connection):
        notify(connection, "logs.ended", {"subscription": 1, "id": "a/b", "left": 0})
        return {"items": [_line("one")], "subscription": 1, "positions": {"a/b": {}}}

    fake.script["bots.logs"] = deleted
    assert run("logs", "-f", "a/b") == (0, "one\n", "")


def test_what_was_missed_is_counted_as_far_as_it_can_be(fake):
    fake.script["bots.logs"] = {"items": [_line("one")], "subscription": 1}
    process = spawn(fake, "logs", "-f", "a/b")
    assert process.stdout.readline() == "one\n"
    for missed, more, words in (
        (5, False, "... 5 lines were missed of a/b: too many to keep up with\n"),
        (1, False, "... 1 line was missed of a/b: too many to keep up with\n"),
        (5, True, "... more than 5 lines were missed of a/b: too many to keep up with\n"),
        (0, True, "... some lines were missed of a/b: too many to keep up with\n"),
    ):
        notify(fake._open[0], "logs.missed", {"subscription": 1, "id": "a/b", "missed": missed, "more": more})
        assert process.stderr.readline() == words
    _finish(process)
