"""Another keeper in the same process: no bot notices, no status and no line is lost, and a bad one never gets there."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from keeper_house import PROGRAM, House, alive, until
from test_keeper_door import respawn, starts
from test_keeper_recovery import crash_points

from botd.keeper import wire

ROOT = Path(PROGRAM).parents[2]
NEXT = "9.9.9"


@pytest.fixture
def newer():
    """`newer(module=(before, after), ...)`: the program of a copy of botd with that text in its keeper changed."""
    folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
    yield lambda **changes: copy_of_botd(f"{folder}/{len(os.listdir(folder))}", changes)
    shutil.rmtree(folder)


def copy_of_botd(folder: str, changes: dict) -> str:
    shutil.copytree(ROOT / "botd", f"{folder}/botd", ignore=shutil.ignore_patterns("__pycache__"))
    package = Path(folder, "botd", "__init__.py")
    package.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEXT}"', package.read_text()))
    for module, (before, after) in changes.items():
        path = Path(folder, "botd", "keeper", f"{module}.py")
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))
    return f"{folder}/botd/keeper/__main__.py"


def replace(house: House, program: str = PROGRAM, **more) -> None:
    """Ask for it; back when the connection has ended."""
    house.client.send({"op": "upgrade", "argv": [sys.executable, "-I", "-S", "-X", "utf8", program], **more})


def upgrade(house: House, program: str = PROGRAM, **options):
    """The client of the keeper that has taken over."""
    former = house.client
    replace(house, program)
    with pytest.raises(ConnectionError):
        while True:
            message = former.receive()
            assert message["op"] != "not-upgraded", message
            former.inbox.append(message)
    again = house.connect(adopt=former.hand_over(), **options)
    assert again.hello["pid"] == house.program.pid
    former.close()
    return again


def refused(house: House, program: str) -> str:
    replace(house, program)
    return house.client.expect("not-upgraded")["text"]


def test_bots_stay_children_and_their_ends_are_exact(each_house, newer):
    keeper = each_house.up()
    assert keeper.hello["handovers"] == 0
    go = each_house.path("go")
    started = {
        n: keeper.start(f"u/bot{n}", 1, ["sh", "-c", f"until [ -e {go} ]; do sleep 0.01; done; exit {n}"])
        for n in range(4)
    }
    again = upgrade(each_house, newer())
    assert (again.hello["release"], again.hello["handovers"], again.hello["handover_error"]) == (NEXT, 1, None)
    assert {s["id"]: s["pid"] for s in again.states} == {s["id"]: s["pid"] for s in started.values()}
    assert all(s["live"] and s["running"] and s["fds"] == ["pidfd", "out", "err"] for s in again.states)
    third = upgrade(each_house)
    assert third.hello["handovers"] == 2
    for s in started.values():
        assert int(Path(f"/proc/{s['pid']}/stat").read_text().rpartition(")")[2].split()[1]) == each_house.program.pid
    Path(go).touch()
    for n in range(4):
        ended = third.expect("exited", f"u/bot{n}", 1)
        assert (ended["code"], ended["exact"]) == (n, True)
        third.ack(f"u/bot{n}", 1)
    until(lambda: third.ping()["unacknowledged"] == 0, "an end of all")
    # Everything of a life still works: starts, refusals, the whole tree.
    third.ask_start("u/bot1", 1, ["sleep", "1"])
    assert third.expect("refused", "u/bot1", 1)["why"] == "released"
    third.start("u/bot1", 2, ["sh", "-c", "sleep 1000 & exec sleep 1000"])
    third.stop("u/bot1", 2, grace_s=0)
    assert third.expect("exited", "u/bot1", 2)["signal"] == signal.SIGKILL


def test_under_load_every_line_and_every_status(house, newer):
    """50 bots that flood, talk and end while one keeper after the other takes over."""
    program = newer()
    keeper = house.up()
    loop = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo {n} $i; echo {n} e$i >&2"
    flood = loop + "; [ $((i%40)) = 0 ] && sleep 0.02; done; exit {n}"
    for n in range(1, 51):
        house.client.ask_start(f"u/bot{n}", 1, ["sh", "-c", flood.format(n=n)])
    ended: dict[str, dict] = {}
    for turn in range(4):
        keeper = upgrade(house, program if turn % 2 == 0 else PROGRAM)
        states = {s["id"]: s for s in keeper.states}
        ended |= {name: s["final"] for name, s in states.items() if not s["live"]}
        for n in range(1, 51):
            # What botd does with starts that it has heard nothing of.
            if f"u/bot{n}" not in states:
                keeper.ask_start(f"u/bot{n}", 1, ["sh", "-c", flood.format(n=n)])
    for n in range(1, 51):
        final = ended.get(f"u/bot{n}") or keeper.expect("exited", f"u/bot{n}", 1)
        assert (final["code"], final["exact"]) == (n, True), final
        assert house.log(f"u/bot{n}").decode() == "".join(f"{n} {i}\n" for i in range(1, 401))
        assert house.log(f"u/bot{n}", "err").decode() == "".join(f"{n} e{i}\n" for i in range(1, 401))
    assert "unexpected" not in house.keeper_log(), house.keeper_log()


def test_ends_and_output_of_the_gap(house, newer):
    """While no program reads pipes or statuses: the former one is stopped right before the exec."""
    house.launch(crash_at="")
    keeper = house.connect()
    go = house.path("go")
    waits = f"until [ -e {go} ]; do sleep 0.01; done"
    keeper.start("u/ends", 1, ["sh", "-c", f"{waits}; echo last; exit 9"])
    keeper.start("u/floods", 1, ["sh", "-c", f"{waits}; seq 1 20000; exec sleep 1000"])
    slow = newer(
        resume=(
            '    crash_point("resume-begun")',
            f"    [__import__('time').sleep(0.01) for _ in iter(lambda: os.path.exists({house.path('on')!r}), True)]",
        )
    )
    replace(house, slow)
    with pytest.raises(ConnectionError):
        keeper.receive()
    Path(go).touch()
    pidfd = keeper.held["u/ends", 1][1][0]
    assert select.select([pidfd], [], [], 20)[0]
    Path(house.path("on")).touch()
    again = house.connect(adopt=keeper.hand_over())
    state = again.state("u/ends", 1)
    final = state["final"] if not state["live"] else again.expect("exited", "u/ends", 1)
    assert (final["code"], final["exact"]) == (9, True)
    assert house.log("u/ends") == b"last\n"
    whole = "".join(f"{n}\n" for n in range(1, 20001)).encode()
    until(lambda: house.log("u/floods") == whole, "all lines of the flood")
    keeper.close()


def test_deadlines_and_unacknowledged_ends_go_along(house):
    keeper = house.up()
    keeper.start("u/deaf", 1, ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
    keeper.start("u/ended", 1, ["sh", "-c", "exit 5"])
    told = keeper.expect("exited", "u/ended", 1)
    keeper.stop("u/deaf", 1, grace_s=1.0)
    keeper.ping()
    again = upgrade(house)
    assert again.state("u/ended", 1)["final"]["code"] == told["code"] == 5
    # Nobody says it again: the deadline is the one that the former program had.
    assert again.expect("exited", "u/deaf", 1)["signal"] == signal.SIGKILL
    again.ack("u/ended", 1)
    again.ack("u/deaf", 1)
    until(lambda: again.ping()["unacknowledged"] == 0, "an end of all")


def test_a_botd_that_dies_meanwhile_is_brought_back_and_stays_a_child(house):
    house.launch()
    botd = os.fork()
    if botd == 0:
        try:
            house.program = None  # not this process's child
            asking = house.connect(respawn=respawn(house))
            replace(house)
            asking.receive()
        except ConnectionError:
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(botd, 0)[1]) == -signal.SIGKILL
    (pid,) = until(lambda: starts(house), "botd, started by the program that took over")
    keeper = house.connect()
    assert (keeper.hello["respawns"], keeper.hello["handovers"]) == (1, 1)

    def replaced():
        # It may say hello only now, and take the connection from who asks.
        try:
            again = upgrade(house)
        except ConnectionError:
            house.connect()
            return None
        return again if again.hello["handovers"] == 2 else None

    keeper = until(replaced, "another program, with botd as its child")
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}"), "its end to be seen")
    keeper.close()
    last = until(lambda: house.connect().hello["last_botd_exit"], "its exit status")
    assert (last["pid"], last["signal"], last["exact"]) == (pid, signal.SIGTERM, True)


@pytest.mark.parametrize(
    ("module", "before", "after", "words"),
    [
        ("resume", "FORMAT, LOCK_FD", "NoSuchName, LOCK_FD", "cannot import name"),
        ("handover", "FORMAT = 1", "FORMAT = 0", "its format is 1, this program knows 0"),
        (
            "resume",
            '    if "--rehearse" in words:',
            '    if "--rehearse" in words:\n        os.kill(os.getpid(), 9)',
            "was killed",
        ),
    ],
)
def test_a_program_that_fails_its_rehearsal_is_not_put_in_place(house, newer, module, before, after, words):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    assert words in refused(house, newer(**{module: (before, after)}))
    # The former one goes on as if nothing had been.
    keeper.start("u/other", 1, ["sleep", "1000"])
    keeper.stop("u/bot", 1)
    assert keeper.expect("exited", "u/bot", 1)["pid"] == started["pid"]


def test_an_interpreter_that_is_not_there_and_words_that_are_none(house):
    keeper = house.up()
    keeper.send({"op": "upgrade", "argv": ["/no/such/python", PROGRAM]})
    assert "No such file" in keeper.expect("not-upgraded")["text"]
    for argv in (None, [], ["x"], ["x", 3], ["x", "a\0b"]):
        keeper.send({"op": "upgrade", "argv": argv})
        assert keeper.expect_error()["about"] == "upgrade"
    assert upgrade(house).hello["handovers"] == 1


def test_one_that_fails_after_its_rehearsal_gives_the_process_back(house, newer):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sh", "-c", "echo one; exec sleep 1000"])
    broken = newer(
        keeper=(
            "        self._socket = ",
            "        if former: raise RuntimeError('not today')\n        self._socket = ",
        )
    )
    again = upgrade(house, broken)
    assert again.hello["release"] != NEXT
    assert "not today" in again.hello["handover_error"]
    assert again.state("u/bot", 1)["pid"] == started["pid"]
    again.stop("u/bot", 1, grace_s=0)
    assert again.expect("exited", "u/bot", 1)["exact"]
    assert upgrade(house, newer()).hello["handover_error"] is None


@pytest.mark.parametrize("point", crash_points("handover", "resume"))
def test_killed_at_each_step(house, point):
    """Then it is as any other death of a keeper: bots run on, and the next one finds them."""
    house.launch(crash_at=point)
    keeper = house.connect()
    started = keeper.start(
        "u/bot", 1, ["sh", "-c", f"echo one; until [ -e {house.path('go')} ]; do sleep 0.01; done; echo two; exit 3"]
    )
    until(lambda: house.log("u/bot") == b"one\n", "its first line")
    replace(house)
    assert house.program.wait(20) == -signal.SIGKILL
    assert alive(started["pid"])
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    assert again.state("u/bot", 1)["pid"] == started["pid"]
    Path(house.path("go")).touch()
    ended = again.expect("exited", "u/bot", 1)
    assert ended["code"] == 3 or not again.hello["features"]["pidfd_info_exit"]
    assert house.log("u/bot") == b"one\ntwo\n"
    keeper.close()


def test_no_descriptor_of_the_keeper_reaches_a_bot_after_it(house):
    house.up().start("u/first", 1, ["sleep", "1000"])
    keeper = upgrade(house)
    pid = keeper.start("u/second", 1, ["sleep", "1000"])["pid"]
    assert sorted(map(int, os.listdir(f"/proc/{pid}/fd"))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        (1, 1, 1),
        (1, None, 1),
        (7, 1, 1),
        (7, None, None),
        (7, 2, None),
        (0, 0, None),
        ("1", 1, None),
        (None, None, None),
    ],
)
def test_which_protocol_is_spoken(newest, oldest, spoken):
    assert wire.agreed(newest, oldest) == spoken
