"""kill -9 of the keeper at any instant: no bot stops, none lives twice, no exit status is invented, no line is lost."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from keeper_house import PROGRAM, House, alive, until


def crash_points(*prefixes: str) -> list[str]:
    """The names in the code itself, so that a new point is tested without anybody remembering to."""
    found = set()
    for source in Path(PROGRAM).parent.glob("*.py"):
        for name in re.findall(r'crash_point\(f?"([^"]+)"\)', source.read_text()):
            found |= {name.replace("{name[-3:]}", "log"), name.replace("{name[-3:]}", "idx")}
    return sorted(name for name in found if name.startswith(prefixes))


def started_twice(house: House) -> bool:
    return os.path.exists(house.path("witness.double"))


def test_bots_outlive_the_keeper_and_are_adopted(each_house):
    keeper = each_house.up()
    started = {n: keeper.start(f"u/bot{n}", 1, ["sleep", "1000"]) for n in range(5)}
    each_house.kill_keeper()
    assert all(alive(s["pid"]) for s in started.values())
    each_house.launch()
    again = each_house.connect(adopt=keeper.hand_over())
    assert {(s["id"], s["pid"]) for s in again.states} == {(s["id"], s["pid"]) for s in started.values()}
    assert all(s["live"] and s["running"] for s in again.states)
    for n in range(5):
        again.stop(f"u/bot{n}", 1)
        ended = again.expect("exited", f"u/bot{n}", 1)
        assert ended["pid"] == started[n]["pid"]
        if again.hello["features"]["pidfd_info_exit"]:
            assert (ended["signal"], ended["exact"]) == (signal.SIGTERM, True)
        again.ack(f"u/bot{n}", 1)
    assert again.ping()["unacknowledged"] == 0
    keeper.close()


@pytest.mark.parametrize("adopted", [True, False])
def test_exit_while_no_keeper_lives(house, adopted):
    """With botd's pidfd the status is exact where the kernel keeps it; without anybody's it may be unknown."""
    keeper = house.up()
    exact = keeper.hello["features"]["pidfd_info_exit"]
    keeper.start("u/bot", 1, ["sh", "-c", f"until [ -e {house.path('go')} ]; do sleep 0.01; done; echo last; exit 7"])
    pidfd = keeper.held["u/bot", 1][1][0]
    house.kill_keeper()
    Path(house.path("go")).touch()
    wait_for_pidfd(pidfd)
    house.launch()
    again = house.connect(adopt=keeper.hand_over() if adopted else {})
    state = again.state("u/bot", 1)
    final = state["final"] if not state["live"] else again.expect("exited", "u/bot", 1)
    if adopted and exact:
        assert (final["code"], final["signal"], final["exact"]) == (7, None, True)
    else:
        # Where nobody has reaped it yet it can still be read.
        assert (final["code"], final["signal"], final["exact"]) in ((7, None, True), (None, None, False))
    if adopted:
        assert house.log("u/bot") == b"last\n"
    keeper.close()


def test_without_the_kernels_help_a_status_is_unknown_and_never_guessed():
    house = House(without="pidfd_info,zombie_stat")
    try:
        keeper = house.up()
        assert keeper.hello["features"]["pidfd_info_exit"] is False
        keeper.start("u/bot", 1, ["sleep", "1000"])
        house.kill_keeper()
        house.launch()
        again = house.connect(adopt=keeper.hand_over())
        again.stop("u/bot", 1, grace_s=0)
        ended = again.expect("exited", "u/bot", 1)
        assert (ended["code"], ended["signal"], ended["exact"]) == (None, None, False)
        keeper.close()
    finally:
        house.close()


def test_without_unique_pidfd_inodes_the_other_marks_identify():
    house = House(without="unique_inodes")
    try:
        keeper = house.up()
        started = keeper.start("u/bot", 1, ["sleep", "1000"])
        house.kill_keeper()
        house.launch()
        again = house.connect()
        assert again.state("u/bot", 1)["pid"] == started["pid"]
        assert again.state("u/bot", 1)["live"]
    finally:
        house.close()


def test_both_died_and_the_bots_are_found_again_with_their_pipes(each_house):
    keeper = each_house.up()
    script = (
        f"echo one; until [ -e {each_house.path('go')} ]; do sleep 0.01; done; echo two; echo e >&2; exec sleep 1000"
    )
    keeper.start("u/bot", 1, ["sh", "-c", script])
    until(lambda: each_house.log("u/bot") == b"one\n", "the first line")
    each_house.kill_keeper()
    keeper.close()
    each_house.launch()
    again = each_house.connect()
    assert again.state("u/bot", 1)["fds"] == ["pidfd", "out", "err"]
    Path(each_house.path("go")).touch()
    until(lambda: each_house.log("u/bot") == b"one\ntwo\n", "the second line")
    until(lambda: each_house.log("u/bot", "err") == b"e\n", "the error line")
    again.stop("u/bot", 1, grace_s=0)
    again.expect("exited", "u/bot", 1)


def test_lives_flow_on_without_any_botd(house):
    keeper = house.up()
    script = f"until [ -e {house.path('go')} ]; do sleep 0.01; done; echo late; exec sleep 1000"
    started = keeper.start("u/bot", 1, ["sh", "-c", script])
    house.kill_keeper()
    keeper.close()
    house.launch()
    Path(house.path("go")).touch()
    until(lambda: house.log("u/bot") == b"late\n", "the line, moved with nobody connected")
    assert house.connect().state("u/bot", 1)["pid"] == started["pid"]


def test_the_tree_of_an_adopted_bot_ends(each_house):
    keeper = each_house.up()
    note = each_house.path("pids")
    script = f"setsid sh -c 'echo $$ > {note}; exec sleep 1000' & exec sleep 1000"
    keeper.start("u/bot", 1, ["sh", "-c", script])
    child = int(until(lambda: os.path.exists(note) and Path(note).read_text().strip(), "the child"))
    each_house.kill_keeper()
    each_house.launch()
    again = each_house.connect(adopt=keeper.hand_over())
    os.kill(keeper.held["u/bot", 1][0]["pid"], signal.SIGKILL)
    again.expect("exited", "u/bot", 1)
    until(lambda: not alive(child), "the child to be gone")
    keeper.close()


def test_exits_are_told_until_they_are_acknowledged(house):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sh", "-c", "exit 9"])
    keeper.expect("exited", "u/bot", 1)
    keeper.close()
    again = house.connect()
    assert again.state("u/bot", 1)["final"]["code"] == 9
    house.kill_keeper()
    house.launch()
    third = house.connect()
    assert third.state("u/bot", 1)["final"]["code"] == 9
    third.ack("u/bot", 1)
    third.ping()
    house.kill_keeper()
    house.launch()
    fourth = house.connect()
    assert fourth.states == []
    fourth.ask_start("u/bot", 1, ["sleep", "1"])
    assert fourth.expect("refused", "u/bot", 1)["why"] == "released"
    again.close()


def test_a_reused_pid_is_not_taken_for_the_bot(house):
    """The journal names a pid that now belongs to another process (here: this test); it is never touched."""
    from botd.keeper import proc
    from botd.keeper.journal import Journal

    house.up()
    house.client.send({"op": "quit"})
    house.program.wait()
    mine = {"pid": os.getpid(), "start_ticks": proc.start_ticks(os.getpid()) - 1, "pidfd_inode": 1}
    log = {"dir": house.path("logs"), "max_bytes": 1000, "keep": 1}
    journal = Journal(house.path("run/keeper.journal"))
    journal.write(
        "START", "u/bot", 1, boot=proc.boot_id(), cgroup=None, out=1, err=2, lock="/x", log=log, at={}, **mine
    )
    journal.write("GO", "u/bot", 1)
    house.launch()
    keeper = house.connect()
    final = keeper.state("u/bot", 1)["final"]
    assert (final["op"], final["exact"]) == ("exited", False)


def test_lives_of_a_former_boot_are_over(house):
    from botd.keeper.journal import Journal

    os.mkdir(house.path("run"))
    log = {"dir": house.path("logs"), "max_bytes": 1000, "keep": 1}
    facts = {"pid": 1, "start_ticks": 1, "pidfd_inode": 1, "cgroup": None, "out": 1, "err": 2, "lock": "/x", "log": log}
    journal = Journal(house.path("run/keeper.journal"))
    journal.write("START", "u/bot", 1, boot="another boot", **facts)
    journal.write("GO", "u/bot", 1)
    keeper = house.up()
    assert keeper.state("u/bot", 1)["final"]["exact"] is False


@pytest.mark.parametrize("point", crash_points("start", "exit", "ack", "compact"))
def test_killed_at_a_crash_point(house, point):
    """One bot through a whole life while the keeper dies at `point`; then everything is consistent and goes on."""
    crashing = house.launch(crash_at=point)
    try:
        keeper = house.connect()
        keeper.start("u/bot", 1, house.witness(1))
        until(lambda: house.log("u/bot") == b"up 1\n", "the bot to be up")
        keeper.stop("u/bot", 1, grace_s=0)
        keeper.expect("exited", "u/bot", 1)
        keeper.ack("u/bot", 1)
        keeper.ping()
        held = keeper.hand_over()
    except (ConnectionError, BrokenPipeError, AssertionError):
        held = house.client.hand_over() if house.client else {}
    assert crashing.wait(10) == -signal.SIGKILL, "the point was not passed"

    house.launch()
    keeper = house.connect(adopt=held)
    gen = 1
    gate_closed = (125,) if point == "start-go" else ()
    state = keeper.state("u/bot", 1)
    if state is not None and state["live"]:
        keeper.stop("u/bot", 1, grace_s=0)
        ended = keeper.expect("exited", "u/bot", 1)
        # 125: released in the journal, but the keeper died before it opened the gate.
        assert ended["exact"] is False or ended["signal"] == signal.SIGKILL or ended["code"] in gate_closed
        keeper.ack("u/bot", 1)
    elif state is not None:
        # What was never released is told as failed, what lived as exited; a status is exact or unknown.
        final = state["final"]
        lived = os.path.exists(house.path("witness.lives"))
        assert final["op"] == "exited" or not lived
        if final["op"] == "exited":
            known = (final["code"], final["signal"], final["exact"])
            assert known in ((None, signal.SIGKILL, True), (None, None, False), *((n, None, True) for n in gate_closed))
        keeper.ack("u/bot", 1)
    while True:
        gen += 1
        keeper.ask_start("u/bot", gen, house.witness(gen))
        answer = until(lambda gen=gen: next_about(keeper, gen), "an answer")
        if answer["op"] == "started":
            break
        assert answer["why"] == "busy" and gen < 1000
    until(lambda: f"up {gen}\n".encode() in house.log("u/bot"), "the next generation to be up")
    assert not started_twice(house)
    lives = Path(house.path("witness.lives")).read_text().split()
    assert len(set(lives)) == len(lives), "a generation ran twice"
    written = house.log("u/bot").decode().splitlines()
    assert sorted(written) == sorted({*written}), "a line was doubled"
    assert set(written) <= {f"up {n}" for n in lives}


def next_about(keeper, gen):
    message = keeper.receive()
    return message if message.get("gen") == gen and message["op"] in ("started", "refused") else None


def test_compaction_while_running_keeps_every_fact(house):
    from botd.keeper.journal import Journal

    path = house.path("journal")
    journal = Journal(path)
    journal._bound = 2000
    for gen in range(1, 60):
        journal.write("START", "u/bot", gen, pid=gen)
        journal.write("GO", "u/bot", gen)
        journal.write("EXIT", "u/bot", gen, what={"code": gen})
        if gen % 2:
            journal.write("ACK", "u/bot", gen)
        journal._bound = min(journal._bound, os.path.getsize(path) + 500)
    journal.write("START", "u/other", 3, pid=5)
    again = Journal(path)
    assert again.spent == {"u/bot": 59, "u/other": 3}
    assert list(again.open) == [("u/other", 3)]
    assert sorted(gen for _, gen in again.ended) == list(range(2, 60, 2))
    assert again.damaged == 0


@pytest.mark.parametrize("damage", ["torn", "middle", "binary", "empty lines", "foreign json"])
def test_a_damaged_journal_loses_only_the_damaged_lines(house, damage):
    from botd.keeper.journal import Journal

    path = house.path("journal")
    journal = Journal(path)
    for gen in (1, 2, 3):
        journal.write("START", f"u/bot{gen}", gen, pid=gen)
    data = Path(path).read_bytes()
    lines = data.splitlines(keepends=True)
    changed, survivors, count = {
        "torn": (data[:-5], {1, 2}, 1),
        "middle": (lines[0] + lines[1].replace(b"bot2", b"bot7") + lines[2], {1, 3}, 1),
        "binary": (lines[0] + b"\x00\xff" * 50 + b"\n" + lines[2], {1, 3}, 1),
        "empty lines": (lines[0] + b"\n\n" + lines[1] + lines[2], {1, 2, 3}, 0),
        "foreign json": (lines[0] + b"2da5f15c [1,2]\n" + lines[2], {1, 3}, 1),
    }[damage]
    Path(path).write_bytes(changed)
    again = Journal(path)
    assert {gen for _, gen in again.open} == survivors
    assert again.damaged == count
    again.write("START", "u/next", 9, pid=9)
    assert ("u/next", 9) in Journal(path).open


def test_a_torn_journal_does_not_stop_the_keeper(house):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    house.kill_keeper()
    with open(house.path("run/keeper.journal"), "ab") as journal:
        journal.write(b'0123abcd {"rec": "EXI')
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    assert again.state("u/bot", 1)["pid"] == started["pid"]
    assert again.ping()["journal_damaged"] == 1
    keeper.close()


def test_a_lost_journal_is_made_up_for_by_what_botd_holds(house):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    house.kill_keeper()
    os.unlink(house.path("run/keeper.journal"))
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    assert again.state("u/bot", 1)["pid"] == started["pid"]
    again.ask_start("u/bot", 2, ["sleep", "1000"])
    assert again.expect("refused", "u/bot", 2)["why"] == "busy"
    keeper.close()


def test_a_second_keeper_does_not_start(house):
    import subprocess
    import sys

    house.up()
    second = [sys.executable, "-I", "-S", PROGRAM, "--home", house.home]
    done = subprocess.run(second, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 75
    assert "another keeper" in done.stderr
    assert house.client.ping()["live"] == 0


def wait_for_pidfd(pidfd: int) -> None:
    import select

    assert select.select([pidfd], [], [], 20)[0]
