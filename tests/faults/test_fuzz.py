"""Malformed messages by the thousand, from a seed: each is answered as the specification says, and nothing changes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from fleet_house import ALL, FAST, Fleet, alive, until
from fuzz import Fuzzer
from hostile_house import ANSWER_MAX_S, GROWTH_MAX, LONG, Administrator, report, resident

from botd.contract.errors import BotdError
from botd.contract.framing import decode
from botd.keeper import wire as keeper_wire

SEED = int(os.environ.get("BOTD_SEED", "20240501"))
MESSAGES = 100_000 if LONG else 4_000
CODES = {-32700, -32600, -32601, -32602, -32603, *range(-32099, -31999)}


@pytest.fixture(scope="module")
def victim():
    fleet = Fleet({**FAST, "monitoring": {"sampleInterval": 60_000}}).up()
    fleet.create("alice/one", "sleep")
    fleet.create("alice/two", "sleep", start=False)
    yield fleet
    fleet.close()


def picture(fleet):
    """What no message may have changed."""
    bots = fleet.rpc("bots.list", select=ALL, limit=2000)["items"]
    kept = ("id", "phase", "pid", "restarts", "reason", "labels", "health")
    return [{key: bot[key] for key in kept} for bot in bots]


def expected(line):
    """Whether something is to be answered: not to notifications, and not to nothing at all."""
    if not line.strip():
        return False
    try:
        message = decode(line)
    except BotdError:  # what it is answered with is the daemon's business, and looked at there
        return True
    batch = message if isinstance(message, list) else [message]
    return not batch or any(not _notification(one) for one in batch)


def _notification(one):
    return (
        isinstance(one, dict) and one.get("jsonrpc") == "2.0" and isinstance(one.get("method"), str) and "id" not in one
    )


def check(answer, line):
    for one in answer if isinstance(answer, list) else [answer]:
        assert one["jsonrpc"] == "2.0"
        assert ("result" in one) != ("error" in one)
        if "error" in one:
            error = one["error"]
            assert error["code"] in CODES, (line[:300], error)
            assert error["data"]["kind"] != "internal", (line[:300], error)
            assert "Traceback" not in error["message"]
            assert len(error["message"]) < 2000, (line[:300], error)


def test_messages_that_make_no_sense(victim):
    fuzzer, admin = Fuzzer(SEED), Administrator(victim)
    pid = victim.daemon_pid
    admin.ask(50)
    for _ in range(500):  # what is loaded and cached once is no growth
        _converse(victim, [fuzzer.next()])
    before, was = resident(pid), picture(victim)
    peak, done = before, 0
    while done < MESSAGES:
        _converse(victim, [fuzzer.next() for _ in range(200)])
        done += 200
        admin.ask()
        peak = max(peak, resident(pid))
    report(f"{done} malformed messages, seed {SEED}", admin, before, peak)
    assert picture(victim) == was
    assert victim.daemon_pid == pid
    assert peak - before < GROWTH_MAX
    assert admin.worst < ANSWER_MAX_S
    log = victim.daemon_log()
    assert "Traceback" not in log, log[-3000:]


def _converse(fleet, lines):
    """All of these over one connection, and a last one that is known to be answered."""
    with fleet.connect() as wire:
        owed = sum(map(expected, lines))
        last = b'{"jsonrpc":"2.0","id":"the last","method":"daemon.ping"}'
        sending = threading.Thread(target=wire.send, args=(b"".join(line + b"\n" for line in (*lines, last)),))
        sending.start()
        answers = []
        while len(answers) < owed + 1:
            answer = wire.line()
            assert answer is not None, f"hung up after {len(answers)} of {owed} answers"
            if isinstance(answer, list) or "method" not in answer:
                answers.append(answer)
        sending.join()
        for answer in answers:
            check(answer, b"")
        assert any(isinstance(answer, dict) and answer.get("id") == "the last" for answer in answers)


def test_the_keepers_socket(victim):
    """Whoever may talk to it is of the same user, and may be broken all the same."""
    chance = random.Random(SEED)
    keeper, before = victim.keeper_pid, victim.pids()
    ops = [
        "hello",
        "start",
        "stop",
        "signal",
        "ack",
        "adopt",
        "sync",
        "logs",
        "limits",
        "forget",
        "quit",
        "bye",
        "status",
        "",
    ]
    odd = [None, -1, 1 << 70, "", "x" * 300, [], {}, True, 1e300, "../..", "alice/none", ["a"] * 100]
    began = resident(keeper)
    for round_ in range(100 if LONG else 10):
        sock = until(lambda: _knock(victim), "the keeper's door")
        try:
            for _ in range(100):
                names = chance.sample(
                    ["id", "gen", "signal", "grace_s", "argv", "env", "cwd", "log", "limits", "fds"], 4
                )
                message = {"op": chance.choice(ops), **{name: chance.choice(odd) for name in names}}
                if message["op"] == "hello" and message.get("version") == keeper_wire.VERSION:
                    continue
                data = json.dumps(message).encode()
                if chance.random() < 0.3:
                    data = chance.randbytes(chance.randint(0, 2000))
                keeper_wire.send_bytes(sock, data, [0] * chance.choice((0, 0, 0, 1, 6)))
                _drain(sock)
        except OSError:
            pass  # it hung up: its right
        finally:
            sock.close()
        assert alive(keeper), round_
    assert victim.pids() == before
    assert victim.rpc("daemon.status")["keeper"]["pid"] == keeper
    assert resident(keeper) - began < GROWTH_MAX
    assert "Traceback" not in victim.keeper_log()


def _knock(fleet):
    try:
        return keeper_wire.connect(f"{fleet.home}/run/keeper.sock")
    except BlockingIOError:
        return None


def _drain(sock):
    buffer = bytearray(keeper_wire.PACKET_LIMIT)
    deadline = time.monotonic() + 0.002
    while time.monotonic() < deadline:
        try:
            if keeper_wire.receive(sock, buffer) is None:
                return
        except BlockingIOError:
            return


def mangled(data, chance):
    """A file after something happened to it."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) + 1)
        way = chance.randrange(4)
        if way == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            del out[at : at + chance.randint(1, 200)]
        elif way == 2:
            out[at:at] = chance.randbytes(chance.randint(1, 100))
        else:
            out[at:at] = chance.choice(
                (b"[" * 500, b"1" * 5000, b'"\\ud800"', b"NaN", b"\0" * 50, b"\n\n", b"\xff\xfe")
            )
    return bytes(out)


def test_the_journal_of_the_keeper(tmp_path):
    from botd.keeper.journal import Journal

    chance, path = random.Random(SEED), str(tmp_path / "journal")
    journal = Journal(path)
    for gen in range(20):
        journal.write("START", f"u/bot{gen}", gen, pid=gen, boot="b", log={"dir": "/x"})
        journal.write("GO", f"u/bot{gen}", gen)
    good = (tmp_path / "journal").read_bytes()
    for _ in range(20_000 if LONG else 500):
        (tmp_path / "journal").write_bytes(mangled(good, chance))
        again = Journal(path)
        assert set(again.open) <= {(f"u/bot{gen}", gen) for gen in range(20)}
        again.write("START", "u/next", 9, pid=9)


def test_the_index_of_a_log(tmp_path):
    from botd.storage import logs

    chance = random.Random(SEED)
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "out.log").write_bytes(b"".join(b"line %d\n" % n for n in range(1000)))
    for _ in range(5000 if LONG else 200):
        (folder / "out.idx").write_bytes(mangled(b"\0" * 160, chance))
        found = logs.read({"u/bot": str(folder)}, logs.Query(lines=10))
        assert [line.text for line in found.lines] == [f"line {n}" for n in range(990, 1000)]


def test_configurations_and_manifests(tmp_path):
    """Every one is read or refused in words; no traceback reaches a person."""
    chance = random.Random(SEED)
    config = json.dumps({"resourceManagement": {"maxBotsPerUser": 5}, "security": {"socketAccess": "owner"}}).encode()
    path = tmp_path / "bot_config.json"
    for _ in range(100 if LONG else 4):
        path.write_bytes(mangled(config, chance))
        done = subprocess.run(
            [sys.executable, "-m", "botd", "config", "check", str(path)], capture_output=True, timeout=60, check=False
        )
        assert done.returncode in (0, 9), done.stderr
        assert b"Traceback" not in done.stderr
    from botctl import manifests

    text = (
        b'schema = 1\n[[bot]]\nid = "alice/shop"\ncommand = ["x", "y"]\nenv = { A = "b" }\nmemory_mb = 256\n'
        b'[bot.probe]\nkind = "http"\nurl = "http://127.0.0.1:1/"\n'
    )
    target = tmp_path / "fleet.toml"
    for _ in range(20_000 if LONG else 1000):
        target.write_bytes(mangled(text, chance))
        try:
            manifests.read(str(target))
        except BotdError as error:
            assert error.exit == 9
