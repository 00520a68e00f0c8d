"""Starting, ending, stopping: one bot at a time, with real processes."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
from keeper_house import ENV, PYTHON, House, alive, until


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("kill -KILL $$", None, signal.SIGKILL),
        ("kill -SEGV $$", None, signal.SIGSEGV),
    ],
)
def test_exit_status_is_exact(each_house, script, code, number):
    keeper = each_house.up()
    started = keeper.start("u/bot", 1, sh(script))
    ended = keeper.expect("exited", "u/bot", 1)
    assert (ended["code"], ended["signal"], ended["exact"]) == (code, number, True)
    assert ended["pid"] == started["pid"]
    assert ended["at"]["boottime"] >= started["at"]["boottime"]
    assert ended["cpu_s"] >= 0 and ended["max_rss"] > 0


@pytest.mark.parametrize(
    ("change", "step", "errno_words"),
    [
        ({"argv": ["no-such-program"]}, "exec", "No such file"),
        ({"argv": ["/etc/passwd"]}, "exec", "Permission denied"),
        ({"argv": ["/"]}, "exec", "Permission denied"),
        ({"cwd": "/nowhere/at/all"}, "chdir", "No such file"),
        ({"lock": "/nowhere/lock"}, "lock", "No such file"),
        ({"log": {"dir": "/proc/1/nothing", "max_bytes": 1, "keep": 1}}, "logs", "No such file"),
    ],
)
def test_a_failing_step_is_named(house, change, step, errno_words):
    keeper = house.up()
    spec = {**house.spec("u/bot", 1, ["sleep", "1"]), **change}
    keeper.send(spec)
    failed = keeper.expect("failed", "u/bot", 1)
    assert failed["step"] == step
    assert errno_words in failed["text"]
    assert failed["errno"] > 0
    keeper.ack("u/bot", 1)
    keeper.start("u/bot", 2, ["sleep", "100"])
    assert keeper.ping()["live"] == 1


def test_script_without_interpreter_line_is_an_exec_format_error(house):
    program = Path(house.home, "program")
    program.write_text("echo hello\n")
    program.chmod(0o755)
    keeper = house.up()
    keeper.ask_start("u/bot", 1, [str(program)])
    assert "format" in keeper.expect("failed", "u/bot", 1)["text"].lower()


def test_a_bot_finds_a_clean_room(house):
    """Descriptors, signals, session, umask, limits: what a program expects at its start, and nothing more."""
    report = """
import os, resource, signal, json, fcntl
fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))[:-1]
status = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)
print(json.dumps({
    'fds': fds, 'sid': os.getsid(0) == os.getpid(), 'umask': os.umask(0), 'env': dict(os.environ), 'cwd': os.getcwd(),
    'ignored': int(status['SigIgn'], 16), 'blocked': int(status['SigBlk'], 16), 'nnp': status['NoNewPrivs'],
    'nofile': resource.getrlimit(resource.RLIMIT_NOFILE), 'in': os.read(0, 1).decode(),
    'modes': [fcntl.fcntl(fd, fcntl.F_GETFL) & 3 for fd in (1, 2)],
    'nonblock': [os.get_blocking(fd) for fd in (1, 2)], 'lock': os.readlink('/proc/self/fd/3'),
}))
"""
    import json
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    keeper = house.up()
    keeper.start("u/bot", 1, ["/usr/bin/env", *PYTHON, report])
    keeper.expect("exited", "u/bot", 1)
    seen = json.loads(house.log("u/bot"))
    # Python itself ignores SIGPIPE and SIGXFSZ in the reporting program.
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    # 32 and 33 belong to the C library: no program can reset them, and some that start us ignore them.
    reserved = 1 << 31 | 1 << 32
    assert seen["ignored"] & ~python_ignores & ~reserved == 0
    assert seen["blocked"] == 0
    assert seen["fds"] == [0, 1, 2, 3]
    assert seen["lock"] == house.spec("u/bot", 1, [])["lock"]
    assert seen["sid"] is True
    assert seen["umask"] == 0o077
    assert seen["nnp"].strip() == "1"
    assert seen["nofile"] == [soft, hard]
    assert seen["in"] == ""
    assert seen["modes"] == [os.O_RDWR, os.O_RDWR]
    assert seen["nonblock"] == [True, True]
    assert {k: v for k, v in seen["env"].items() if k != "LC_CTYPE"} == ENV
    assert seen["cwd"] == house.home


@pytest.mark.parametrize("without", ["", "nursery"])
def test_what_is_inherited_does_not_depend_on_who_forks(without):
    """Asked of a program that, unlike Python, changes none of it by itself."""
    house = House(without=without)
    try:
        keeper = house.up()
        keeper.start("u/bot", 1, ["grep", "-E", "^(NoNewPrivs|SigIgn|SigBlk|Umask):", "/proc/self/status"])
        keeper.expect("exited", "u/bot", 1)
        seen = dict(line.split(":\t") for line in house.log("u/bot").decode().splitlines())
        reserved = 1 << 31 | 1 << 32
        assert int(seen.pop("SigIgn"), 16) & ~reserved == 0
        assert seen == {"NoNewPrivs": "1", "SigBlk": "0" * 16, "Umask": "0077"}
    finally:
        house.close()


def test_sigpipe_is_back_to_its_default(house):
    keeper = house.up()
    keeper.start("u/bot", 1, sh("sh -c 'kill -PIPE $$'; exit $?"))
    assert keeper.expect("exited", "u/bot", 1)["code"] == 128 + signal.SIGPIPE


def test_descriptor_limit_can_be_given(house):
    keeper = house.up()
    keeper.start("u/bot", 1, sh("ulimit -n"), nofile=77)
    keeper.expect("exited", "u/bot", 1)
    assert house.log("u/bot") == b"77\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_user(house):
    os.chmod(house.home, 0o755)
    keeper = house.up()
    keeper.start("u/bot", 1, sh("id -u; id -g; id -G; echo again > /dev/stdout"), uid=65534, gid=65533)
    keeper.expect("exited", "u/bot", 1)
    assert house.log("u/bot") == b"65534\n65533\n65533\nagain\n"


def test_files_are_private(house):
    keeper = house.up()
    keeper.start("u/bot", 1, sh("echo hello"))
    keeper.expect("exited", "u/bot", 1)
    for name in ("run", "logs", "logs/u/bot"):
        assert stat.S_IMODE(os.stat(house.path(name)).st_mode) == 0o700
    for name in ("run/keeper.sock", "run/keeper.lock", "run/keeper.journal", "run/keeper.log", "logs/u/bot/out.log"):
        assert stat.S_IMODE(os.stat(house.path(name)).st_mode) == 0o600
    assert int(Path(house.path("run/keeper.lock")).read_text()) == keeper.hello["pid"]


def test_stop_asks_and_the_status_is_the_bots_own(each_house):
    keeper = each_house.up()
    keeper.start("u/bot", 1, sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"))
    until(lambda: b"ready" in each_house.log("u/bot"), "the bot to be ready")
    keeper.stop("u/bot", 1)
    assert keeper.expect("exited", "u/bot", 1)["code"] == 5


def test_stop_kills_what_ignores_the_signal(each_house):
    keeper = each_house.up()
    keeper.start("u/bot", 1, sh("trap '' TERM; echo ready; while :; do sleep 1; done"))
    until(lambda: b"ready" in each_house.log("u/bot"), "the bot to be ready")
    keeper.stop("u/bot", 1, grace_s=0.05)
    assert keeper.expect("exited", "u/bot", 1)["signal"] == signal.SIGKILL


def test_a_second_stop_shortens_the_grace(house):
    keeper = house.up()
    keeper.start("u/bot", 1, sh("trap '' TERM; echo ready; while :; do sleep 1; done"))
    until(lambda: b"ready" in house.log("u/bot"), "the bot to be ready")
    keeper.stop("u/bot", 1, grace_s=3600)
    assert keeper.ping()["live"] == 1
    keeper.stop("u/bot", 1, grace_s=0)
    assert keeper.expect("exited", "u/bot", 1)["signal"] == signal.SIGKILL


def test_a_stopped_process_hears_its_signal(house):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "100"])
    os.kill(started["pid"], signal.SIGSTOP)
    keeper.stop("u/bot", 1, grace_s=3600)
    assert keeper.expect("exited", "u/bot", 1)["signal"] == signal.SIGTERM


def test_stop_of_a_start_that_still_waits_aborts_it(house):
    keeper = house.up()
    for n in range(30):
        keeper.ask_start(f"u/bot{n}", 1, ["sleep", "100"])
    for n in range(30):
        keeper.stop(f"u/bot{n}", 1, grace_s=0)
    ends = []
    while len(ends) < 30:
        message = keeper.receive()
        if message["op"] in ("exited", "failed"):
            ends.append(message)
    aborted = [m for m in ends if m["op"] == "failed"]
    assert aborted and all(m["step"] == "stopped" for m in aborted)
    assert keeper.ping()["live"] == 0


def test_signal_is_only_delivered(house):
    keeper = house.up()
    keeper.start("u/bot", 1, sh("trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done"))
    until(lambda: b"ready" in house.log("u/bot"), "the bot to be ready")
    keeper.send({"op": "signal", "id": "u/bot", "gen": 1, "signal": signal.SIGHUP})
    until(lambda: b"hup" in house.log("u/bot"), "the bot to have heard")
    assert keeper.ping()["live"] == 1


ESCAPEES = """
import os, subprocess, sys, time
def note(): open(sys.argv[1], 'a').write('%d\\n' % os.getpid())
note()
if os.fork() == 0:                      # a plain child
    note(); time.sleep(1000)
if os.fork() == 0:                      # in a session of its own
    os.setsid(); note(); time.sleep(1000)
if os.fork() == 0:                      # double-forked, session of its own, no descriptor kept: a daemon
    os.setsid()
    if os.fork() == 0:
        for fd in range(20):
            try: os.close(fd)
            except OSError: pass
        if os.fork() == 0:
            os.setsid(); note(); os.execve('/usr/bin/env', ['env', '-i', 'sleep', '1000'], {})
        os._exit(0)
    os._exit(0)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("end", ["stop", "by itself", "killed"])
def test_the_whole_tree_ends(each_house, end):
    keeper = each_house.up()
    neighbour = keeper.start("u/neighbour", 1, sh("sleep 1000 & sleep 1000"))
    pids_file = Path(each_house.path("pids"))
    life = "0.3" if end == "by itself" else "1000"
    started = keeper.start("u/bot", 1, [*PYTHON, ESCAPEES, str(pids_file), life])
    pids = until(lambda: (p := pids_file.exists() and pids_file.read_text().split()) and len(p) == 4 and p, "4 pids")
    assert all(alive(int(p)) for p in pids)
    if end == "stop":
        keeper.stop("u/bot", 1, grace_s=0)
    elif end == "killed":
        os.kill(started["pid"], signal.SIGKILL)
    ended = keeper.expect("exited", "u/bot", 1)
    assert not any(alive(int(p)) for p in pids)
    if end != "stop":
        assert ended["leftovers"] >= 3
    assert alive(neighbour["pid"])
    assert keeper.ping()["live"] == 1
    keeper.stop("u/neighbour", 1, grace_s=0)
    keeper.expect("exited", "u/neighbour", 1)


def test_orphans_leave_no_zombies_with_the_keeper(each_house):
    keeper = each_house.up()
    keeper.start("u/bot", 1, sh("for i in 1 2 3 4 5; do (setsid sleep 1000 &) ; done; sleep 0.1"))
    keeper.expect("exited", "u/bot", 1)
    pid = keeper.hello["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: all(alive(int(child)) for child in children.read_text().split()), "every zombie to be reaped")


def test_a_generation_is_started_once(house):
    keeper = house.up()
    keeper.start("u/bot", 5, ["sleep", "100"])
    keeper.ask_start("u/bot", 5, ["sleep", "100"])
    assert keeper.expect("refused", "u/bot", 5)["why"] == "released"
    keeper.stop("u/bot", 5, grace_s=0)
    keeper.expect("exited", "u/bot", 5)
    keeper.ack("u/bot", 5)
    for gen in (5, 4):
        keeper.ask_start("u/bot", gen, ["sleep", "100"])
        assert keeper.expect("refused", "u/bot", gen)["why"] == "released"
    keeper.start("u/bot", 6, ["sleep", "100"])


def test_what_waits_for_its_start_is_forgotten_when_another_botd_comes(house):
    """It sees no life there, and acts on that: what it gave up must not begin, what it asks for again must."""
    keeper = house.up()
    bots = [f"u/bot{n:02}" for n in range(40)]
    for bot in bots:
        keeper.ask_start(bot, 1, ["sleep", "1000"])
    keeper.close()
    again = house.connect()
    assert again.ping()["waiting"] == 0
    missing = [bot for bot in bots if again.state(bot, 1) is None]
    assert missing, "all were started before anybody else came"
    for bot in missing[1:]:
        again.start(bot, 1, ["sleep", "1000"])
    assert again.ping()["live"] == len(bots) - 1
    assert not [message for message in again.inbox if message["op"] in ("refused", "failed")]


def test_two_generations_never_live_together(house):
    keeper = house.up()
    keeper.start("u/bot", 1, house.witness(1))
    keeper.ask_start("u/bot", 2, house.witness(2))
    assert keeper.expect("refused", "u/bot", 2)["why"] == "busy"
    assert not os.path.exists(house.path("witness.double"))


def test_a_lock_that_somebody_holds_is_busy(house):
    import fcntl

    keeper = house.up()
    with open(house.spec("u/bot", 1, [])["lock"], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keeper.ask_start("u/bot", 1, ["sleep", "100"])
        assert keeper.expect("refused", "u/bot", 1)["why"] == "busy"
    keeper.start("u/bot", 1, ["sleep", "100"])


def test_a_link_in_place_of_the_lock_is_not_followed(house):
    keeper = house.up()
    os.symlink("/etc/passwd", house.spec("u/bot", 1, [])["lock"])
    keeper.ask_start("u/bot", 1, ["sleep", "100"])
    assert keeper.expect("failed", "u/bot", 1)["step"] == "lock"


def test_forget(house):
    keeper = house.up()
    keeper.start("u/bot", 3, ["sleep", "100"])
    keeper.send({"op": "forget", "id": "u/bot"})
    assert keeper.expect("refused", "u/bot")["why"] == "busy"
    keeper.stop("u/bot", 3, grace_s=0)
    keeper.expect("exited", "u/bot", 3)
    keeper.send({"op": "forget", "id": "u/bot"})
    keeper.expect("forgotten", "u/bot")
    assert not os.path.exists(house.spec("u/bot", 1, [])["lock"])
    keeper.start("u/bot", 1, ["sleep", "100"])


def test_quit_only_when_nothing_lives(house):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sleep", "100"])
    keeper.send({"op": "quit"})
    assert keeper.expect("busy")["live"] == 1
    keeper.stop("u/bot", 1, grace_s=0)
    keeper.expect("exited", "u/bot", 1)
    keeper.send({"op": "quit"})
    assert house.program.wait(10) == 0
    assert not os.path.exists(house.path("run/keeper.sock"))


def test_many(house):
    """200 at once: every one runs, every one ends with its own status."""
    keeper = house.up()
    os.mkfifo(house.path("gate"))
    for n in range(200):
        # One newline for each reader; opened for reading and writing, so that nobody waits in open.
        keeper.ask_start(f"u/bot{n}", 1, sh(f"exec 4<>{house.path('gate')}; read x <&4; exit {n % 100}"))
    for n in range(200):
        keeper.expect("running", f"u/bot{n}", 1)
    assert keeper.ping()["live"] == 200
    with open(house.path("gate"), "r+b", buffering=0) as gate:
        gate.write(b"\n" * 200)
        ends = [keeper.expect("exited", f"u/bot{n}", 1) for n in range(200)]
    assert [end["code"] for end in ends] == [n % 100 for n in range(200)]
    for n in range(200):
        keeper.ack(f"u/bot{n}", 1)
    pong = keeper.ping()
    assert (pong["live"], pong["unacknowledged"]) == (0, 0)


def test_the_grace_of_a_former_bot_does_not_reach_the_next_one_of_its_name(house):
    """Deleted and made again, a bot begins with the same generation; what was to happen to the first is over."""
    keeper = house.up()
    keeper.start("u/bot", 1, ["/bin/sleep", "600"])
    keeper.stop("u/bot", 1, grace_s=0.5)
    keeper.expect("exited", "u/bot", 1)
    keeper.ack("u/bot", 1)
    keeper.send({"op": "forget", "id": "u/bot"})
    keeper.expect("forgotten", "u/bot")
    keeper.start("u/bot", 1, ["/bin/sleep", "600"])
    # A deaf neighbour is killed when its own, later grace is over: by then the first one's would have struck.
    keeper.start("u/deaf", 1, ["/bin/sleep", "600"])
    keeper.stop("u/deaf", 1, signal.SIGCONT, grace_s=0.8)
    keeper.expect("exited", "u/deaf", 1)
    assert keeper.ping()["live"] == 1
