"""The raw socket: a line answers, garbage of every kind gets its error, and the daemon lives."""

from __future__ import annotations

import json
import socket
import time

import pytest
from fleet_house import Wire, until

PARSE, REQUEST, METHOD, PARAMS = -32700, -32600, -32601, -32602


@pytest.fixture
def wire(shared_fleet):
    with shared_fleet.connect() as connection:
        yield connection


@pytest.fixture(autouse=True)
def same_daemon(shared_fleet):
    """Whatever a test sends: afterwards the same daemon answers, and its log has no traceback."""
    pid = shared_fleet.daemon_pid
    yield
    assert shared_fleet.daemon_pid == pid
    assert "Traceback" not in shared_fleet.daemon_log()


def line(**members):
    return json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n"


PING = line(id=1, method="daemon.ping")


def pongs(connection):
    connection.send(line(id="still there?", method="daemon.ping"))
    answer = connection.line()
    return answer == {"jsonrpc": "2.0", "id": "still there?", "result": {"pong": True}}


def test_one_line_by_hand(shared_fleet):
    """As with socat: one line in, one line out, the end of the input ends the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(shared_fleet.socket)
        sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\n')
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(20)
        data = b""
        while piece := sock.recv(4096):
            data += piece
    assert json.loads(data) == {"jsonrpc": "2.0", "id": 1, "result": {"pong": True}}
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1


def test_a_slow_answer_survives_the_end_of_the_input(shared_fleet):
    """`echo ... | socat`: the sender is done long before the answer is there."""
    shared_fleet.create("alice/slow", "sleep", start=False)
    with shared_fleet.connect() as wire:
        wire.send(line(id=1, method="bots.start", params={"select": {"any": [{"id": "alice/slow"}]}}))
        wire.sock.shutdown(socket.SHUT_WR)
        answer = wire.line()
    shared_fleet.clear()
    assert answer is not None
    assert answer["result"]["items"][0]["ok"]


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":' + b"[" * 70 + b"]" * 70 + b"}"
GARBAGE = {
    "words": (b"hello, are you there?", PARSE),
    "not utf-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', PARSE),
    "utf-16": ('{"jsonrpc":"2.0"}'.encode("utf-16"), PARSE),
    "nul bytes": (b"\0\0\0\0", PARSE),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"x":NaN}}', PARSE),
    "Infinity": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"x":-Infinity}}', PARSE),
    "1e999": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"x":1e999}}', PARSE),
    "66 bits": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"x":73786976294838206464}}', PARSE),
    "5000 digits": (b'{"jsonrpc":"2.0","id":1,"params":{"x":' + b"9" * 5000 + b"}}", PARSE),
    "duplicate keys": (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"daemon.ping"}', PARSE),
    "duplicate keys inside": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"a":{"b":1,"b":2}}}', PARSE),
    "lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.\\ud800"}', PARSE),
    "nested over 64": (DEEP, PARSE),
    "nested 400,000 times": (b"[" * 400_000, PARSE),
    "two on a line": (PING.strip() + PING.strip(), PARSE),
    "half": (b'{"jsonrpc":"2.0","id":1,', PARSE),
    "a number": (b"42", REQUEST),
    "a string": (b'"daemon.ping"', REQUEST),
    "null": (b"null", REQUEST),
    "an empty object": (b"{}", REQUEST),
    "no version": (b'{"id":1,"method":"daemon.ping"}', REQUEST),
    "version 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"daemon.ping"}', REQUEST),
    "a number as version": (b'{"jsonrpc":2.0,"id":1,"method":"daemon.ping"}', REQUEST),
    "no method": (b'{"jsonrpc":"2.0","id":1}', REQUEST),
    "a number as method": (b'{"jsonrpc":"2.0","id":1,"method":7}', REQUEST),
    "a list as id": (b'{"jsonrpc":"2.0","id":[1],"method":"daemon.ping"}', REQUEST),
    "an object as id": (b'{"jsonrpc":"2.0","id":{"a":1},"method":"daemon.ping"}', REQUEST),
    "true as id": (b'{"jsonrpc":"2.0","id":true,"method":"daemon.ping"}', REQUEST),
    "an empty batch": (b"[]", REQUEST),
    "a huge batch": (b"[" + b",".join([b"1"] * 1001) + b"]", REQUEST),
    "a list as params": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":[1]}', PARAMS),
    "a word as params": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":"all"}', PARAMS),
    "null as params": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":null}', PARAMS),
    "unknown params": (b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping","params":{"x":1}}', PARAMS),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_gets_its_error_and_the_connection_goes_on(wire, kind):
    data, code = GARBAGE[kind]
    wire.send(data + b"\n")
    answer = wire.line()
    assert answer["error"]["code"] == code, answer
    assert answer["error"]["message"]
    assert len(json.dumps(answer)) < 1000
    assert answer["error"]["data"]["kind"] == "invalid"
    assert answer["id"] in (None, 1)
    assert pongs(wire)


def test_ids_come_back_as_they_were(wire):
    for given in (0, -1, 1.5, "", "ü", "x" * 1000, 2**63, None):
        wire.send(line(id=given, method="daemon.ping"))
        assert wire.line()["id"] == given


def test_an_unknown_method_names_the_nearest(wire):
    error = wire.ask("bots.lst")["error"]
    assert error["code"] == METHOD
    assert "bots.list" in error["data"]["hint"]
    error = wire.ask("x" * 5000)["error"]
    assert error["code"] == METHOD
    assert len(error["message"]) < 200
    assert "rpc.discover" in error["data"]["hint"]


@pytest.mark.parametrize(
    ("method", "params", "path", "hint"),
    [
        ("bots.list", {"limt": 5}, "limt", "limit"),
        ("bots.list", {"limit": 0}, "limit", ""),
        ("bots.list", {"limit": "5"}, "limit", ""),
        ("bots.list", {"limit": True}, "limit", ""),
        ("bots.list", {"fields": ["id", "pidd"]}, "fields", "pid"),
        ("bots.start", {}, "select", ""),
        ("bots.start", {"select": "alice/a"}, "select", ""),
        ("bots.start", {"select": {"any": [{"phse": "failed"}]}}, "select.any[0]", "phase"),
        ("bots.start", {"select": {"any": [{"id": "../etc"}]}}, "select.any[0].id", ""),
        ("bots.start", {"select": {"all": False}}, "select", ""),
        (
            "bots.create",
            {"spec": {"id": "alice/x", "command": ["x"], "probe": {"kind": "exec"}}},
            "spec.probe.kind",
            "",
        ),
        ("bots.bulk", {"op": "start", "select": {"all": True}, "batch": "0"}, "batch", ""),
        ("bots.wait", {"select": {"all": True}, "for": "happy"}, "for", "healthy"),
        ("bots.logs", {"select": {"all": True}, "lines": -1}, "lines", ""),
        ("events.list", {"after": -1}, "after", ""),
        ("bots.stop", {"select": {"all": True}, "request_id": ""}, "request_id", ""),
        ("bots.stop", {"select": {"all": True}, "timeout_s": 1e9}, "timeout_s", ""),
    ],
)
def test_wrong_params_name_their_path(wire, method, params, path, hint):
    error = wire.ask(method, **params)["error"]
    assert error["code"] in (PARAMS, -32007)
    assert path in error["message"]
    assert hint in error["data"]["hint"] + error["message"]
    assert error["data"]["exit"] == 2


def test_a_notification_is_not_answered(wire):
    wire.send(line(method="daemon.ping") + line(method="no.such.method") + line(method="bots.list", params={"x": 1}))
    assert pongs(wire)  # the next thing said is the answer to what came after


def test_a_batch_has_one_answer_with_all_answers(wire):
    wire.send(
        b"["
        + b",".join(
            [
                b'{"jsonrpc":"2.0","id":"a","method":"daemon.ping"}',
                b'{"jsonrpc":"2.0","method":"daemon.ping"}',
                b"7",
                b'{"jsonrpc":"2.0","id":"b","method":"no.such"}',
                b'{"jsonrpc":"2.0","id":"c","method":"bots.list"}',
            ]
        )
        + b"]\n"
    )
    answers = {answer["id"]: answer for answer in wire.line()}
    assert set(answers) == {"a", None, "b", "c"}
    assert answers["a"]["result"] == {"pong": True}
    assert answers[None]["error"]["code"] == REQUEST
    assert answers["b"]["error"]["code"] == METHOD
    assert answers["c"]["result"]["items"] == []


def test_a_batch_of_notifications_is_not_answered(wire):
    wire.send(b"[" + b",".join([PING.replace(b'"id": 1, ', b"").strip()] * 3) + b"]\n")
    assert pongs(wire)


def test_a_line_over_a_mebibyte_is_told_and_ends_the_connection(wire):
    wire.sock.settimeout(20)
    try:
        wire.send(b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * (2 << 20))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up before it had read everything, as it should
    answer = wire.line()
    assert answer["error"]["code"] == REQUEST
    assert "1048576" in answer["error"]["message"]
    assert wire.line() is None


def test_a_line_of_just_a_mebibyte_is_read(wire):
    head = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"'
    wire.send(head + b" " * ((1 << 20) - len(head) - 1) + b"}\n")
    assert wire.line()["result"] == {"pong": True}


def test_half_a_line_and_gone(shared_fleet):
    for piece in (b"", b"{", PING[:-1], b"\xff", b"[[[", b"\n\n\n"):
        connection = shared_fleet.connect()
        connection.send(piece) if piece else None
        connection.close()
    assert shared_fleet.rpc("daemon.ping")


def test_empty_lines_are_nothing(wire):
    wire.send(b"\n  \n\r\n\t\n")
    assert pongs(wire)


def test_a_line_in_single_bytes_and_many_lines_at_once(wire):
    for byte in PING:
        wire.send(bytes([byte]))
    assert wire.line()["result"] == {"pong": True}
    wire.send(b"".join(line(id=i, method="daemon.ping") for i in range(500)))
    assert [wire.line()["id"] for _ in range(500)] == list(range(500))


def test_a_flood_of_garbage_lines_is_answered_line_by_line_while_others_are_served(shared_fleet, wire):
    """A quarter of a million bad lines: every one answered, and a neighbour is served in between."""
    lines = 100_000
    wire.sock.setblocking(False)
    data, sent, got = b"1\n" * lines, 0, 0
    with shared_fleet.connect() as neighbour:
        deadline = time.monotonic() + 60
        worst = 0.0
        while got < lines:
            assert time.monotonic() < deadline
            try:
                sent += wire.sock.send(data[sent : sent + 65536]) if sent < len(data) else 0
            except BlockingIOError:
                pass
            began = time.monotonic()
            assert neighbour.rpc("daemon.ping")
            worst = max(worst, time.monotonic() - began)
            try:
                got += wire.sock.recv(1 << 20).count(b"\n")
            except BlockingIOError:
                pass
    assert got == lines
    # No timing is judged here, only that nobody is locked out for as long as the flood takes.
    assert worst < 10


def test_two_hundred_idle_connections_harm_nobody(shared_fleet):
    idle = []
    try:
        idle.extend(Wire(shared_fleet.socket) for _ in range(200))
        with shared_fleet.connect() as wire:
            assert wire.rpc("daemon.ping")
        assert all(pongs(connection) for connection in idle)
    finally:
        for connection in idle:
            connection.close()


def test_of_more_connections_than_there_are_places_the_oldest_idle_one_goes_and_is_told_so(shared_fleet):
    crowd = []
    shared_fleet.hang_up()
    try:
        crowd.extend(Wire(shared_fleet.socket) for _ in range(2))
        crowd[1].rpc("events.subscribe")
        crowd.extend(Wire(shared_fleet.socket) for _ in range(1100))
        assert pongs(crowd[-1])
        last = crowd[0].line()
        assert last["error"]["data"]["kind"] == "unavailable"
        assert "make room" in last["error"]["message"]
        assert crowd[0].line() is None
        assert pongs(crowd[1])  # it listens: older, and not idle
    finally:
        for connection in crowd:
            connection.close()
    until(lambda: _served(shared_fleet), "places that are free again")


def _served(fleet):
    with fleet.connect() as wire:
        wire.send(PING)
        return "result" in (wire.line() or {})


def test_many_waiting_calls_of_one_connection(shared_fleet):
    """More calls than may be in flight: each gets its answer in the end."""
    shared_fleet.create("alice/later", "sleep", start=False)
    try:
        with shared_fleet.connect() as wire:
            wait = {"select": {"any": [{"id": "alice/later"}]}, "for": "running", "timeout_s": 30}
            wire.send(b"".join(line(id=i, method="bots.wait", params=wait) for i in range(150)))
            shared_fleet.rpc("bots.start", select={"any": [{"id": "alice/later"}]})
            answered = {wire.line()["id"] for _ in range(150)}
        assert answered == set(range(150))
    finally:
        shared_fleet.clear()
