"""The keeper and botd watch each other: stopped is woken, hung is ended, busy and starved is left alone."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from keeper_house import ENV, PYTHON, alive, until

from botd.keeper import wire
from botd.keeper.client import KeeperClient
from botd.keeper.vigil import DISK, FINE, HUNG, SILENT, STOPPED, TRACED, Sight, Vigil
from botd.keeper.watchdog import DEFAULT, figures, look

ROOT = str(Path(wire.__file__).parents[2])
QUICK = [0.05, 0.15, 0.4]
SLOW = [0.05, 0.15, 60]
"""Quick to look, slow to end: for tests in which nobody is to be ended."""


# --- the rules ----------------------------------------------------------------------------------------------


class Story:
    """A vigil with a clock: beats of 2 s, a look after 5, an end after 30."""

    def __init__(self, starting=False):
        self.now, self.vigil = 100.0, Vigil(2.0, 5.0, 30.0)
        self.vigil.begin(self.now, starting)
        self.waited = 0.0

    def beat(self, state="S", *, seconds=2.0, heard=False, traced=False, waited=0.0, cpu=0, told=True):
        """The verdict after one more beat; None when nobody looks."""
        self.now += seconds
        self.waited += waited
        if not self.vigil.tick(self.now, heard):
            return None
        return self.vigil.judge(Sight(state, traced, self.waited if told else None, cpu))

    def until_hung(self, **how):
        """The seconds of silence that it takes."""
        began = self.now
        while self.beat(**how) != HUNG:
            assert self.now - began < 100_000
        return self.now - began


def test_who_talks_is_not_looked_at():
    story = Story()
    assert {story.beat(heard=True) for _ in range(100)} == {None}
    assert [story.beat(), story.beat()] == [None, None]
    assert story.beat() == SILENT


def test_each_state_has_its_verdict():
    for state, verdict in (("T", STOPPED), ("t", TRACED), ("D", DISK), ("S", SILENT), ("R", SILENT)):
        story = Story()
        assert [story.beat(state) for _ in range(3)] == [None, None, verdict]
    story = Story()
    assert [story.beat("T", traced=True) for _ in range(3)] == [None, None, TRACED]


@pytest.mark.parametrize("state", ["T", "t", "D"])
def test_only_time_in_which_it_could_answer_counts(state):
    story = Story()
    assert HUNG not in {story.beat(state) for _ in range(1000)}
    assert story.until_hung() >= 30


def test_silence_of_its_own_making_ends_it():
    assert 30 <= Story().until_hung() <= 40
    assert 30 <= Story().until_hung(state="R", cpu=9) <= 40


def test_a_starved_one_gets_the_time_that_it_did_not_get():
    # Nine tenths of the time it waited for a processor.
    assert 300 <= Story().until_hung(state="R", waited=1.8) <= 340
    # Where the kernel does not tell, three times as long.
    assert 90 <= Story().until_hung(told=False) <= 110


def test_time_in_which_the_watcher_itself_did_not_run_does_not_count():
    story = Story()
    assert HUNG not in {story.beat(seconds=20) for _ in range(200)}
    assert story.until_hung() >= 28


def test_each_end_doubles_the_patience_and_a_good_time_restores_it():
    story = Story()
    took = []
    for _ in range(8):
        took.append(round(story.until_hung() / 30))
        story.vigil.killed()
        story.vigil.begin(story.now)
    assert took == [1, 2, 4, 8, 16, 32, 32, 32]
    for _ in range(200):
        story.beat(heard=True)
    assert 30 <= story.until_hung() <= 40


def test_one_that_starts_may_take_its_time_as_long_as_it_works():
    story = Story(starting=True)
    assert {story.beat(cpu=n) for n in range(1000)} == {None, SILENT, FINE}
    assert 60 <= story.until_hung(cpu=1000) <= 70


@pytest.mark.parametrize("text", ["1", "a,b,c", "5,2,30", "0,1,2", "1,2,nan", "1,2,1e9", "-1,2,3"])
def test_figures_that_make_no_sense_are_none(text):
    assert figures(text) is None
    assert figures(None) is figures({}) is figures([1, 2]) is figures([[], 2, 3]) is None
    assert figures(list(DEFAULT)) == DEFAULT


def test_a_look_at_a_process():
    sight = look(os.getpid())
    assert (sight.state, sight.traced) == ("R", False)
    assert sight.cpu >= 0 and (sight.waited_s is None or sight.waited_s >= 0)
    child = subprocess.Popen(["sleep", "100"])
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: look(child.pid).state == "T", "the child to be stopped")
    child.kill()
    until(lambda: look(child.pid) is None, "its end")
    child.wait()


# --- the keeper looks at botd ------------------------------------------------------------------------------

BOTD = """
import os, sys, time
home, root, how, watch = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
sys.path.append(root)
from botd.keeper import wire
with open(home + '/botd.starts', 'a') as starts:
    starts.write('%d\\n' % os.getpid())
words = int(os.environ.get('BOTD_RESPAWNED', -1))
if how == 'says':
    os.write(words, b'botd: there is no sense in it\\n')
    sys.exit(9)
if how == 'never':
    time.sleep(1000)
sock = wire.connect(home + '/run/keeper.sock')
again = [sys.executable, '-I', '-S', '-c', open(home + '/botd.py').read(), home, root, sys.argv[5], *sys.argv[4:]]
recipe = {'argv': again, 'env': {'PATH': os.environ['PATH']}, 'cwd': '/'}
wire.send(sock, {'op': 'hello', 'version': wire.VERSION, 'pid': os.getpid(), 'respawn': recipe, 'watch': watch})
wire.send(sock, {'op': 'sync'})
while how == 'beats':
    wire.send(sock, {'op': 'beat'})
    time.sleep(watch[0])
while how == 'spins':
    pass
time.sleep(1000)
"""


class Fake:
    """A botd of the given behaviour (beats, spins, hangs), and of which kind the keeper starts the next."""

    def __init__(self, house, how, then="beats", watch=QUICK):
        self.house = house
        house.up().close()
        Path(house.path("botd.py")).write_text(BOTD)
        self.first = subprocess.Popen([*PYTHON, BOTD, house.home, ROOT, how, repr(watch), then], env=ENV)
        until(self.starts, "the first botd")
        if how == "beats":
            until(lambda: ask_status(house)["botd"]["state"] == "connected", "its hello")

    def starts(self):
        path = Path(self.house.path("botd.starts"))
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def until_logged(self, *words):
        until(lambda: all(word in self.house.keeper_log() for word in words), f"{words} in the keeper's log")

    def close(self):
        self.house.kill_keeper()
        for pid in self.starts():
            if alive(pid) and b"botd.starts" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        self.first.wait()


@pytest.fixture
def fake(house):
    made = []

    def make(*args, **options):
        made.append(Fake(house, *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask_status(house):
    """What a stranger at the keeper's door is told."""
    sock = wire.connect(house.path("run/keeper.sock"))
    try:
        sock.setblocking(True)
        wire.send(sock, {"op": "status"})
        data, _fds = wire.receive_bytes(sock, bytearray(wire.PACKET_LIMIT), blocking=True)
        return json.loads(data)
    finally:
        sock.close()


def test_a_stopped_botd_is_woken_and_nothing_else_happens_to_it(fake):
    botd = fake("beats", watch=SLOW)
    botd.until_logged("started")
    for times in (1, 2):
        os.kill(botd.first.pid, signal.SIGSTOP)
        until(lambda times=times: botd.house.keeper_log().count("the keeper woke it") == times, "it to be woken")
    botd.until_logged(f"botd (pid {botd.first.pid}) is stopped (SIGSTOP)")
    assert botd.starts() == [botd.first.pid]
    assert botd.first.poll() is None


@pytest.mark.parametrize("how", ["hangs", "spins"])
def test_a_hung_botd_is_ended_and_another_one_started(fake, how):
    botd = fake(how)
    assert botd.first.wait(20) == -signal.SIGKILL
    _, second = until(lambda: len(botd.starts()) == 2 and botd.starts(), "the next botd")
    until(lambda: ask_status(botd.house)["botd"]["state"] == "connected", "it to be connected")
    assert "hangs: it had not answered for" in botd.house.keeper_log()
    told = ask_status(botd.house)["botd"]
    assert told["pid"] == second
    assert "was ended by the keeper" in told["said"]
    assert alive(second)


def test_a_botd_that_hangs_before_its_hello_is_ended_too(fake):
    botd = fake("beats", then="never")
    botd.first.kill()
    until(lambda: len(botd.starts()) >= 3, "a third botd", within=60)
    assert "hangs:" in botd.house.keeper_log()


def test_a_botd_that_does_not_ask_for_it_is_not_watched(fake):
    botd = fake("hangs", watch=None)
    time.sleep(4 * QUICK[2])  # the one thing that cannot be awaited: that nothing happens
    assert botd.first.poll() is None


def test_a_botd_in_a_debugger_is_left_alone(fake):
    botd = fake("beats")
    libc = ctypes.CDLL(None, use_errno=True)
    attach, detach = 16, 17
    if libc.ptrace(attach, botd.first.pid, None, None) != 0:
        pytest.skip("ptrace is not permitted here")
    os.waitpid(botd.first.pid, 0)
    botd.until_logged("is held by a debugger")
    time.sleep(4 * QUICK[2])  # that nothing happens
    libc.ptrace(detach, botd.first.pid, None, None)
    botd.until_logged("answers again")
    assert botd.first.poll() is None


# --- what the keeper says of a botd that is away --------------------------------------------------------------


def test_a_stranger_is_told_why_botd_is_away_and_when_it_is_tried_again(fake):
    botd = fake("beats", then="says")
    assert ask_status(botd.house)["live"] == 0
    botd.first.kill()
    botd.first.wait()
    status = until(lambda: (s := ask_status(botd.house)["botd"])["attempt"] >= 3 and s["next_s"] and s, "the third try")
    assert status["state"] == "waiting"
    assert status["said"] == "botd: there is no sense in it"
    assert (status["last_exit"]["code"], status["last_exit"]["exact"]) == (9, True)
    assert status["since"].endswith("Z")
    hello = botd.house.connect().hello
    assert hello["row"] >= 2
    assert hello["said"] == "botd: there is no sense in it"


@pytest.mark.parametrize("gone", ["argv", "cwd"])
def test_a_botd_whose_program_is_gone(house, gone):
    house.launch()
    recipe = {"argv": ["/bin/true"], "env": ENV, "cwd": "/"}
    recipe[gone] = ["/no/such/venv/bin/python"] if gone == "argv" else "/no/such/venv"
    house.connect(respawn=recipe).close()
    # The peer is this very process, which lives: only what its connection said is gone.
    assert ask_status(house)["botd"]["state"] in ("waiting", "connected")
    pid = os.fork()
    if pid == 0:
        house.program = None
        house.connect(respawn=recipe)
        os._exit(0)
    os.waitpid(pid, 0)
    status = until(lambda: (s := ask_status(house)["botd"])["said"] and s, "the reason")
    assert "/no/such/venv" in status["said"]
    assert "No such file" in status["said"]
    assert status["last_exit"]["code"] == 127


def test_an_attempt_under_way_ends_with_the_bye_of_a_botd_that_was_quicker(fake):
    botd = fake("beats", then="never", watch=SLOW)
    botd.first.kill()
    _, attempt = until(lambda: len(botd.starts()) == 2 and botd.starts(), "the attempt")
    quicker = botd.house.connect()
    assert alive(attempt)
    quicker.send({"op": "bye"})
    until(lambda: not alive(attempt), "the end of the attempt")


def test_nobody_wants_back_what_said_bye(house):
    keeper = house.up()
    keeper.send({"op": "bye"})
    keeper.close()
    status = until(lambda: (s := ask_status(house)["botd"])["state"] == "unasked" and s, "the end of the connection")
    assert status["since"]


# --- signals ---------------------------------------------------------------------------------------------------


def test_asked_to_end_the_keeper_stays_until_the_last_bot_has_ended(house):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sh", "-c", "trap 'echo last words; exit 4' TERM; echo up; while :; do sleep 0.05; done"])
    until(lambda: house.log("u/bot") == b"up\n", "the bot")
    house.program.send_signal(signal.SIGTERM)
    until(lambda: "it stays until the last has ended" in house.keeper_log(), "its word")
    assert keeper.ping()["live"] == 1
    keeper.stop("u/bot", 1)
    assert keeper.expect("exited", "u/bot", 1)["code"] == 4
    assert house.program.wait(20) == 0
    assert house.log("u/bot") == b"up\nlast words\n"


def test_a_keeper_without_bots_ends_at_once_and_a_closed_terminal_means_nothing(house):
    keeper = house.up()
    house.program.send_signal(signal.SIGHUP)
    assert keeper.ping()["live"] == 0
    house.program.send_signal(signal.SIGTERM)
    assert house.program.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
def test_a_dump_for_support(house, number):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sleep", "1000"])
    house.program.send_signal(number)
    until(lambda: "life: u/bot 1 pid" in house.keeper_log(), "the dump")
    assert '"live":1' in house.keeper_log()
    assert keeper.ping()["live"] == 1


@pytest.mark.parametrize("without", ["", "nursery", "clone3"])
def test_bots_inherit_neither_blocked_signals_nor_protection(house, without):
    house.without = without
    keeper = house.up()
    show = "import os; print(open('/proc/self/oom_score_adj').read(), open('/proc/self/status').read(), flush=True)"
    keeper.start("u/bot", 1, [sys.executable, "-I", "-S", "-c", show])
    assert keeper.expect("exited", "u/bot", 1)["code"] == 0
    text = house.log("u/bot").decode()
    facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(facts["SigBlk"], 16) == 0
    ours = int(Path(f"/proc/{house.program.pid}/oom_score_adj").read_text())
    before = int(Path("/proc/self/oom_score_adj").read_text())
    if ours == -900:
        assert int(text.split()[0]) == max(0, before)
    else:
        assert ours == before
        assert int(text.split()[0]) == (before + 100 if before >= 0 else 0)


# --- botd looks at the keeper ------------------------------------------------------------------------------------

MUTE = """
import fcntl, os, sys, time
sys.path.append(sys.argv[2])
from botd.keeper import wire
os.makedirs(sys.argv[1] + '/run', exist_ok=True)
lock = os.open(sys.argv[1] + '/run/keeper.lock', os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, b'%d' % os.getpid(), 0)
door = wire.listener(sys.argv[1] + '/run/keeper.sock')
door.setblocking(True)
peer = wire.accept(door)
peer.setblocking(True)
print('up', flush=True)
if sys.argv[3] != 'mute':
    for name in ('hello', 'synced'):
        wire.receive_bytes(peer, bytearray(wire.PACKET_LIMIT), blocking=True)
        wire.send(peer, {'op': name, 'pid': os.getpid(), 'features': {'beat': True}})
while sys.argv[3] == 'spins':
    pass
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["mute", "hangs", "spins"])
def test_a_hung_keeper_is_ended_and_replaced(house, how):
    mute = subprocess.Popen([*PYTHON, MUTE, house.home, ROOT, how], env=ENV)
    until(lambda: os.path.exists(house.path("run/keeper.sock")), "the mute keeper")
    seen = []

    async def main():
        lost = asyncio.Event()
        client = KeeperClient(
            house.home,
            on_messages=lambda _messages: None,
            on_lost=lost.set,
            watch=tuple(QUICK),
            on_watched=seen.append,
        )
        try:
            await client.connect_or_start()
            if how != "mute":
                await asyncio.wait_for(lost.wait(), 20)
                await client.reconnect()
            assert client.hello["pid"] != mute.pid
            assert (await client.ping())["live"] == 0
        finally:
            await client.quit()
            client.close()

    try:
        asyncio.run(main())
        assert mute.wait(20) == -signal.SIGKILL
    finally:
        mute.kill()
        mute.wait()
    assert any("hangs: it had not answered" in text for text in seen)


@pytest.mark.parametrize("when", ["greeting", "later"])
def test_a_stopped_keeper_is_woken(house, when):
    house.up().close()
    seen = []

    async def main():
        woken = asyncio.Event()

        def take(text):
            seen.append(text)
            if "woke it" in text:
                woken.set()

        client = KeeperClient(
            house.home, on_messages=lambda _messages: None, on_lost=woken.set, watch=tuple(SLOW), on_watched=take
        )
        try:
            if when == "greeting":
                os.kill(house.program.pid, signal.SIGSTOP)
            await client.connect_or_start()
            if when == "later":
                os.kill(house.program.pid, signal.SIGSTOP)
                await asyncio.wait_for(woken.wait(), 20)
            assert (await client.ping())["pid"] == house.program.pid
            assert client.connected
        finally:
            client.close()

    asyncio.run(main())
    assert any("is stopped (SIGSTOP)" in text for text in seen)
    assert house.program.poll() is None
