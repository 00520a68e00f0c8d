"""The scripted bot is what other tests trust, so it is held to its own words here."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

SCRIPTED = Path(__file__).with_name("scripted.py")


@pytest.fixture
def bot(tmp_path):
    """`bot("crash 3")` starts one; all of them, and what they forked, are gone after the test."""
    started = []

    def start(script, **env):
        env = {"PATH": os.environ["PATH"], "BOT_DATA": str(tmp_path), "SCRIPTED_LIFETIME_S": "30", **env}
        command = [sys.executable, "-I", "-S", str(SCRIPTED), *script.split()]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
    for pid in pids_in(tmp_path).values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.communicate()


def pids_in(folder):
    file = folder / "pids"
    if not file.exists():
        return {}
    return {kind: int(pid) for kind, pid in (line.split() for line in file.read_text().splitlines())}


def ended(process):
    out, err = process.communicate(timeout=20)
    return process.returncode, out.decode(), err.decode()


def eventually(check):
    deadline = time.monotonic() + 20
    while not (result := check()):
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)
    return result


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("print x", 0),
        ("crash 3", 3),
        ("crash 4 after 0.01", 4),
        ("signal SEGV", -signal.SIGSEGV),
        ("signal SIGKILL", -signal.SIGKILL),
        ("signal TERM", -signal.SIGTERM),
        ("nonsense", 64),
        ("crash", 64),
        ("crash seven", 64),
        ("signal SIGNOTHING", 64),
        ("print x +", 64),
    ],
)
def test_ends_as_told(bot, script, status):
    assert ended(bot(script))[0] == status


def test_a_script_with_an_unknown_step_does_nothing_at_all(bot):
    status, out, err = ended(bot("print hello + dance"))
    assert (status, out) == (64, "")
    assert "no such step: dance" in err


def test_lines_and_flood_count_on(bot):
    _, out, err = ended(bot("lines 3 0 + err no + flood 2000 40 + lines 1 0"))
    assert [int(line.rstrip(".")) for line in out.splitlines()] == list(range(1, 2005))
    assert {len(line) for line in out.splitlines()[3:2003]} == {39}
    assert err == "no\n"


def test_steps_as_json_and_from_the_environment(bot):
    script = json.dumps([["print", "a", "b"], "crash 5"], separators=(",", ":")).replace(" ", "\\u0020")
    assert ended(bot(script))[:2] == (5, "a b\n")
    assert ended(bot("", BOT_SCRIPT="print c + crash 6"))[:2] == (6, "c\n")


def test_fails_in_its_first_lives_only(bot):
    assert [ended(bot("fail-first 2 9"))[0] for _ in range(4)] == [9, 9, 0, 0]


def test_what_it_needs_and_has_not(bot):
    assert ended(bot("touch x", BOT_DATA=""))[0] == 78
    assert ended(bot("serve"))[0] == 78


@pytest.mark.parametrize(
    ("script", "status"),
    [("touch up + sleep", -signal.SIGTERM), ("term-after 0.05 + touch up + sleep", 0)],
)
def test_answers_to_sigterm(bot, tmp_path, script, status):
    process = bot(script)
    eventually((tmp_path / "up").exists)
    process.terminate()
    assert process.wait(20) == status


def ignores_sigterm(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    return ignored >> (signal.SIGTERM - 1) & 1


def test_hang_does_not_answer_to_sigterm(bot):
    process = bot("hang")
    eventually(lambda: ignores_sigterm(process))
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)


def test_what_fork_leaves_behind(bot, tmp_path):
    process = bot("fork stubborn")
    pids = eventually(lambda: pids_in(tmp_path))
    assert list(pids) == ["main", "child", "setsid", "daemon", "env-i"]
    assert pids["main"] == process.pid
    assert os.getsid(pids["child"]) == os.getsid(pids["main"])
    assert os.getsid(pids["setsid"]) == pids["setsid"]
    assert os.getpgid(pids["daemon"]) != pids["daemon"], "a double-forked daemon leads no session"
    eventually(lambda: os.readlink(f"/proc/{pids['env-i']}/exe").endswith(("sleep", "busybox", "coreutils")))
    assert Path(f"/proc/{pids['env-i']}/environ").read_bytes() == b""


@pytest.mark.parametrize("last", ["main", "child", "setsid", "daemon", "env-i"])
def test_the_witness_tells_on_whoever_is_left(bot, tmp_path, last):
    process = bot("lock + fork stubborn")
    pids = eventually(lambda: pids_in(tmp_path))
    for kind, pid in pids.items():
        if kind != last:
            os.kill(pid, signal.SIGKILL)
    if last != "main":
        process.wait(20)
        os.kill(pids[last], signal.SIGTERM)
    assert bot("lock").wait(20) == 99
    os.kill(pids[last], signal.SIGKILL)
    eventually(lambda: bot("lock + crash 0").wait(20) == 0)


def test_witness_counts_its_lives(bot):
    assert ended(bot("witness 0 3"))[1] == "witness 1 1\nwitness 1 2\nwitness 1 3\n"
    assert ended(bot("witness 0 1 + crash 2"))[:2] == (2, "witness 2 1\n")


def test_leak_is_really_there(bot, tmp_path):
    process = bot("leak 1000 64 + touch full + sleep")
    eventually((tmp_path / "full").exists)
    resident_pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    assert resident_pages * os.sysconf("SC_PAGESIZE") >= 64 << 20


def test_serve_changes_its_mood(bot, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    bot("serve", PORT=str(port))

    def get():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=0.5) as response:
                return response.status, json.load(response)["status"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["status"]
        except (TimeoutError, urllib.error.URLError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            return type(reason).__name__

    assert eventually(lambda: (answer := get()) != "ConnectionRefusedError" and answer) == (200, "ok")
    for mood, expected in [
        ("unhealthy", (503, "unhealthy")),
        ("silent", "TimeoutError"),
        ("reset", ("RemoteDisconnected", "ConnectionResetError")),
        ("ok", (200, "ok")),
    ]:
        (tmp_path / "health").write_text(mood)
        answer = get()
        assert answer == expected or answer in expected


def test_notify(bot):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel picks an abstract address
        receiver.settimeout(20)
        address = "@" + receiver.getsockname()[1:].decode()
        assert bot("notify READY=1 STATUS=here", NOTIFY_SOCKET=address).wait(20) == 0
        assert receiver.recv(100) == b"READY=1\nSTATUS=here"


def test_nothing_lives_longer_than_its_lifetime(bot):
    assert bot("hang", SCRIPTED_LIFETIME_S="1").wait(20) == -signal.SIGALRM
