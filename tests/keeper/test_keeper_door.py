"""The socket: hostile packets, a deaf botd, two of them, none at all."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from keeper_house import ENV, PYTHON, House, alive, until

from botd.keeper import lean, wire


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"op": 7}',
        b'{"op": "nonsense"}',
        b'{"op": "start"}',
        b'{"op": "start", "id": "../../etc", "gen": 1}',
        b'{"op": "start", "id": "a/b", "gen": -1}',
        b'{"op": "start", "id": "a/b", "gen": true}',
        b'{"op": "stop", "id": "a/b", "gen": 1, "signal": 15, "grace_s": NaN}',
        b'{"op": "stop", "id": "a/b", "gen": 1, "signal": 4000, "grace_s": 1}',
        b'{"op": "stop", "id": "a/b", "gen": 1, "signal": 15, "grace_s": 1}',
        b'{"op": "adopt", "id": "a/b", "gen": 1}',
        b'{"op": "memfd"}',
        b'{"op": "hello", "version": 999}',
        b'{"op": "hello", "version": 1, "respawn": {"argv": []}}',
        b"[" * 100_000,
        b'{"op": "' + b"x" * 200_000 + b'"}',
        b'{"op": "ack", "id": "a/b", "gen": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda packet: packet[:40],
)
def test_a_bad_packet_gets_an_answer_and_harms_nothing(house, packet):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    keeper.sock.sendmsg([packet])
    if packet:
        error = keeper.expect_error()
        assert error["text"]
        assert keeper.ping()["live"] == 1
    else:
        # An empty packet looks like the end of the connection; a new one finds everything in place.
        keeper = house.connect()
        assert keeper.state("u/bot", 1)["live"]
    assert alive(started["pid"])


def test_descriptors_that_come_with_garbage_are_closed(house):
    keeper = house.up()
    before = len(os.listdir(f"/proc/{keeper.hello['pid']}/fd"))
    null = os.open("/dev/null", os.O_RDONLY)
    for message in ({"op": "nonsense"}, {"op": "adopt", "id": "a/b", "gen": 1}, {"op": "ping"}):
        for _ in range(20):
            wire.send(keeper.sock, message, [null, null, null])
    os.close(null)
    keeper.inbox.clear()
    while keeper.receive()["op"] != "pong":
        pass
    keeper.ping()
    until(lambda: len(os.listdir(f"/proc/{keeper.hello['pid']}/fd")) == before, "the descriptors to be closed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argv", []),
        ("argv", "sleep 1"),
        ("argv", ["sleep", 1]),
        ("argv", ["sleep", "\0"]),
        ("argv", ["\ud800"]),
        ("env", []),
        ("env", {"A=B": "c"}),
        ("env", {"A": 1}),
        ("cwd", "relative"),
        ("lock", "relative"),
        ("uid", 1000),
        ("uid", -1),
        ("nofile", "many"),
        ("log", {"dir": "logs", "max_bytes": 1, "keep": 1}),
        ("log", {"dir": "/tmp/x", "max_bytes": 0, "keep": 1}),
        ("log", None),
    ],
)
def test_an_impossible_start_is_refused_with_the_field(house, field, value):
    keeper = house.up()
    keeper.send({**house.spec("u/bot", 1, ["sleep", "1"]), field: value})
    refused = keeper.expect("refused", "u/bot", 1)
    assert refused["why"] == "invalid"
    assert refused["text"].startswith((field, "uid and gid", "dir", "max_bytes"))
    keeper.start("u/bot", 1, ["sleep", "100"])


def test_a_large_message_travels_in_a_memfd(house):
    keeper = house.up()
    env = {**ENV, **{f"V{n}": "x" * 50_000 for n in range(20)}}
    keeper.start("u/bot", 1, ["sh", "-c", "echo ${#V0} ${#V19}"], env=env)
    keeper.expect("exited", "u/bot", 1)
    assert house.log("u/bot") == b"50000 50000\n"


def test_environment_values_that_are_no_utf8_arrive_as_they_are(house):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sh", "-c", 'printf %s "$RAW"'], env={**ENV, "RAW": "a\udcffb"})
    keeper.expect("exited", "u/bot", 1)
    assert house.log("u/bot") == b"a\xffb"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_stranger_is_turned_away(house):
    keeper = house.up()
    os.chmod(house.home, 0o755)
    os.chmod(house.path("run"), 0o755)
    os.chmod(house.path("run/keeper.sock"), 0o777)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(house.path("run/keeper.sock"))
            sock.send(b'{"op": "ping"}')
            os._exit(0 if sock.recv(1000) else 7)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert keeper.ping()["live"] == 0


def test_a_connection_without_hello_may_only_ping(house):
    keeper = house.up()
    other = wire.connect(house.path("run/keeper.sock"))
    buffer = bytearray(wire.PACKET_LIMIT)

    def ask(message):
        wire.send(other, message)
        return until(lambda: _receive(other, buffer), "an answer")

    assert ask({"op": "ping"})["op"] == "pong"
    assert ask({"op": "quit"})["text"] == "say hello first"
    assert ask(house.spec("u/bot", 1, ["sleep", "1"]))["text"] == "say hello first"
    other.close()
    assert keeper.ping()["live"] == 0


def _receive(sock, buffer):
    try:
        return wire.receive(sock, buffer)[0]
    except BlockingIOError:
        return None


def test_a_new_botd_takes_over_and_asks_again_for_what_had_not_begun(house):
    first = house.up()
    first.start("u/bot", 1, ["sleep", "1000"])
    for n in range(20):
        first.ask_start(f"u/late{n}", 1, ["sleep", "1000"])
    second = house.connect()
    for n in range(20):
        if second.state(f"u/late{n}", 1) is None:
            second.start(f"u/late{n}", 1, ["sleep", "1000"])
    assert second.state("u/bot", 1)["live"]
    with pytest.raises(ConnectionError):
        while True:
            first.receive()
    first.close()


def test_a_botd_that_does_not_read_blocks_nobody(house):
    keeper = house.up()
    for n in range(30):
        keeper.start(f"u/bot{n}", 1, ["sleep", "1000"])
    # Far more answers than any socket buffer holds, and nobody reads them.
    for _ in range(3000):
        keeper.send({"op": "ack", "id": "u/none", "gen": "wrong"})
    keeper.ask_start("u/after", 1, ["sh", "-c", "echo alive; exec sleep 1000"])
    until(lambda: house.log("u/after") == b"alive\n", "a start that nobody listens to")
    for n in range(30):
        keeper.stop(f"u/bot{n}", 1, grace_s=0)
    pids = [keeper.held[f"u/bot{n}", 1][0]["pid"] for n in range(30)]
    until(lambda: not any(alive(pid) for pid in pids), "the stops to be done")
    for n in range(30):
        assert keeper.expect_past_errors("exited", f"u/bot{n}", 1)["signal"] == signal.SIGKILL


def test_wire_round_trip():
    message = {"op": "x", "text": "é\udcff\n", "n": 2**53, "f": 1.5, "none": None, "deep": [{"a": []}]}
    assert wire.decode(wire.encode(message)) == message
    assert lean._fallback()[1](lean._fallback()[0](message)) == message
    for bad in (float("nan"), float("inf"), b"bytes", object()):
        with pytest.raises((ValueError, TypeError)):
            wire.encode({"op": "x", "v": bad})


BOTD = """
import os, sys, time
sys.path.append(sys.argv[2])
from botd.keeper import wire
open(sys.argv[1] + '/botd.starts', 'a').write('%d\\n' % os.getpid())
if len(sys.argv) > 3: sys.exit(int(sys.argv[3]))
sock = wire.connect(sys.argv[1] + '/run/keeper.sock')
wire.send(sock, {'op': 'hello', 'version': wire.VERSION, 'pid': os.getpid(), 'respawn': None})
wire.send(sock, {'op': 'sync'})
time.sleep(1000)
"""
ROOT = str(Path(wire.__file__).parents[2])


def respawn(house: House, *more: str) -> dict:
    return {"argv": [*PYTHON, BOTD, house.home, ROOT, *more], "env": ENV, "cwd": "/"}


def starts(house: House) -> list[int]:
    path = Path(house.path("botd.starts"))
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class Elsewhere:
    """A botd in a process of its own, so that its death is real."""

    def __init__(self, house: House, recipe: dict | None, bye: bool = False) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                house.program = None  # not this process's child
                client = house.connect(respawn=recipe)
                if bye:
                    client.send({"op": "bye"})
                Path(house.path("connected")).touch()
                time.sleep(1000)
            finally:
                os._exit(1)
        until(lambda: os.path.exists(house.path("connected")), "the botd to be connected")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_botd_is_brought_back(house):
    house.launch()
    Elsewhere(house, respawn(house)).kill()
    (pid,) = until(lambda: starts(house), "botd to be started")
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/1") == house.path("run/botd.log")
    other = house.connect()
    assert other.hello["respawns"] == 1
    os.kill(pid, signal.SIGKILL)
    until(lambda: "botd" in house.keeper_log(), "a line in the log")
    last = until(lambda: house.connect().hello["last_botd_exit"], "the exit of botd")
    assert (last["signal"], last["exact"]) == (signal.SIGKILL, True)


def test_a_botd_that_keeps_dying_is_tried_again(house):
    house.launch()
    Elsewhere(house, respawn(house, "3")).kill()
    until(lambda: len(starts(house)) >= 3, "three starts")
    hello = house.connect().hello
    assert hello["last_botd_exit"]["code"] == 3
    assert hello["respawns"] >= 3


def test_the_distances_grow_and_begin_anew_after_a_good_life(monkeypatch):
    from types import SimpleNamespace

    from botd.keeper import respawn as module

    now, planned = [0.0], []
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    loop = SimpleNamespace(after=lambda seconds, call: planned.append((seconds, call)))
    brought = module.Respawner(loop, "/nowhere", {}, lambda: None, lambda: False, lambda _text: None)
    recipe = {"argv": ["/no/such/botd"], "env": {}, "cwd": "/"}

    def lose_after(lived: float) -> float:
        # A pid that cannot exist: the botd of this connection is surely gone.
        brought.arrived(2**22 + 1, recipe)
        now[0] += lived
        brought.lost()
        brought._planned = False
        return planned[-1][0]

    assert [lose_after(1) for _ in range(10)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert lose_after(60) == 0.2
    brought.leaving()
    count = len(planned)
    brought.lost()
    assert len(planned) == count


@pytest.mark.parametrize("how", ["bye", "no recipe", "reconnected"])
def test_botd_is_not_brought_back(house, how):
    house.launch()
    recipe = None if how == "no recipe" else respawn(house)
    botd = Elsewhere(house, recipe, bye=how == "bye")
    if how == "reconnected":
        client = house.connect(respawn=respawn(house))
    botd.kill()
    time.sleep(0.5)  # the one thing that cannot be awaited: that nothing happens
    assert starts(house) == []
    if how == "reconnected":
        assert client.ping()["live"] == 0
