"""When the keeper runs out of descriptors: a start fails with words, and everything that lives goes on."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
from keeper_house import alive, until

from botd.keeper.descriptors import Reserve


def used(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def leave(pid: int, room: int) -> None:
    """Let a process have `room` more descriptors than it has."""
    taken, limit = used(pid), 0
    while room or limit in taken:
        room -= limit not in taken
        limit += 1
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))


def free(pid: int) -> None:
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def quiet(keeper) -> set[int]:
    """What the keeper has open when it has done everything that it was asked for."""
    keeper.ping()
    return used(keeper.hello["pid"])


def test_a_start_fails_with_words_whichever_descriptor_is_missing(each_house):
    keeper = each_house.up()
    pid = keeper.hello["pid"]
    before = quiet(keeper)
    outcomes = []
    for room in range(24):
        leave(pid, room)
        keeper.ask_start(f"u/bot{room}", 1, ["sleep", "1000"])
        while (message := keeper.receive())["op"] == "started":
            pass
        outcomes.append(message["op"])
        if message["op"] == "failed":
            assert message["errno"] == errno.EMFILE, message
            assert message["step"] and "open files" in message["text"]
        else:
            assert message["op"] == "running"
            keeper.stop(f"u/bot{room}", 1, grace_s=0)
            assert keeper.expect("exited", f"u/bot{room}", 1)["signal"] == signal.SIGKILL
        keeper.ack(f"u/bot{room}", 1)
        assert quiet(keeper) == before, f"with room for {room}"
    assert outcomes == sorted(outcomes), "more room must not be worse"
    assert outcomes[0] == "failed"
    assert outcomes[-1] == "running"
    free(pid)
    keeper.start("u/bot", 1, ["sleep", "1000"])


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_lives_and_ends_go_on(each_house, room):
    """With hardly a descriptor left, or none: orphans are found and killed, and statuses are exact."""
    keeper = each_house.up()
    pid = keeper.hello["pid"]
    go, left = each_house.path("go"), each_house.path("left")
    script = f"sleep 1000 & echo $! >> {left}; until [ -e {go} ]; do sleep 0.02; done; exit 5"
    for n in range(8):
        keeper.start(f"u/ends{n}", 1, ["sh", "-c", script])
    stopped = keeper.start("u/stopped", 1, ["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"])
    stays = keeper.start("u/stays", 1, ["sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done; echo on; exec sleep 999"])
    until(lambda: Path(left).exists() and len(Path(left).read_text().split()) == 8, "the orphans")
    leave(pid, room)
    Path(go).touch()
    for n in range(8):
        ended = keeper.expect("exited", f"u/ends{n}", 1)
        assert (ended["code"], ended["exact"]) == (5, True)
    assert not any(alive(int(line)) for line in Path(left).read_text().split())
    keeper.stop("u/stopped", 1, grace_s=0)
    assert keeper.expect("exited", "u/stopped", 1)["signal"] == signal.SIGKILL
    assert not alive(stopped["pid"])
    assert alive(stays["pid"])
    until(lambda: each_house.log("u/stays") == b"on\n", "the output")
    free(pid)
    keeper.start("u/again", 1, ["sleep", "1000"])


def test_a_start_does_not_take_what_the_ends_need(each_house):
    """Descriptors that the ends used up are taken back before anything is started."""
    keeper = each_house.up()
    pid = keeper.hello["pid"]
    keeper.start("u/bot", 1, ["sleep", "1000"])
    leave(pid, 0)
    keeper.stop("u/bot", 1, grace_s=0)
    keeper.expect("exited", "u/bot", 1)
    leave(pid, 2)
    keeper.ask_start("u/next", 1, ["sleep", "1000"])
    failed = keeper.expect("failed", "u/next", 1)
    assert (failed["step"], failed["errno"]) == ("descriptors", errno.EMFILE)
    free(pid)
    keeper.start("u/next", 2, ["sleep", "1000"])


def test_botd_comes_in_when_descriptors_are_out(house):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    leave(keeper.hello["pid"], 0)
    again = house.connect()
    assert again.state("u/bot", 1)["pid"] == started["pid"]
    keeper.close()


@pytest.mark.parametrize("room", [0, 1, 3, 6])
def test_a_keeper_without_room_does_not_take_lives_for_dead(each_house, room):
    """A new keeper that cannot look finds them as soon as it can."""
    keeper = each_house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    each_house.kill_keeper()
    keeper.close()
    each_house.launch()
    again = each_house.connect(sync=False)
    leave(again.hello["pid"], room)
    again.sync()
    assert alive(started["pid"])
    assert again.state("u/bot", 1) is None or again.state("u/bot", 1)["live"]
    free(again.hello["pid"])
    if again.state("u/bot", 1) is None:
        assert again.expect("started", "u/bot", 1)["pid"] == started["pid"]
    again.stop("u/bot", 1, grace_s=0)
    assert again.expect("exited", "u/bot", 1)["pid"] == started["pid"]


def test_the_reserve_is_given_and_taken_back():
    before = len(used(os.getpid()))
    reserve = Reserve()
    assert len(used(os.getpid())) - before == len(reserve._fds) > 8
    assert not any(os.get_inheritable(fd) for fd in reserve._fds)
    reserve.give()
    assert len(used(os.getpid())) == before
    assert reserve.whole()
    reserve.give()
