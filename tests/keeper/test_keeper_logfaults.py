"""Output while disks fail and files are cut, moved, removed and replaced by somebody: what is in the pipe stays."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from keeper_house import PYTHON, until
from test_keeper_rotation import Bot

from botd.keeper.logs import Full
from botd.keeper.pacing import FLOOD_BYTES, FLOOD_PACE, REST_S, SHORTEST_S, Flood

COUNT = "import sys\nfor n in range(int(sys.argv[1])): print('%07d' % n, 'x' * (n % 90))"
ON_DEMAND = "import sys\nfor line in open(sys.argv[1], buffering=1): print(line, end='', flush=True)"
"""Says what somebody writes into a fifo."""


def numbers(data: bytes) -> list[int]:
    return [int(line[:7]) for line in data.splitlines()]


@pytest.fixture
def bot(tmp_path):
    made = Bot(tmp_path / "logs", max_bytes=1 << 20)
    yield made
    made.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM])
def test_an_error_leaves_the_bytes_in_the_pipe(bot, monkeypatch, number):
    bot.say(b"before\n")
    real = os.splice

    def failing(*_args, **_more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "splice", failing)
    with pytest.raises((Full, OSError)):
        bot.say(b"kept\n")
    monkeypatch.setattr(os, "splice", real)
    bot.flow()
    assert bot.files() == {"out.log": b"before\nkept\n"}


def test_a_file_that_was_emptied_goes_on_from_its_beginning(bot):
    bot.say(b"before\n")
    os.truncate(bot.folder / "out.log", 0)
    bot.say(b"after\n")
    assert bot.files() == {"out.log": b"after\n"}
    assert (bot.folder / "out.idx").stat().st_size == 16


def test_a_file_that_was_cut_goes_on_from_there(bot):
    for text in (b"one\n", b"two\n", b"three\n"):
        bot.say(text)
        bot.sink.close()  # so that each has a record in the index
    bot.say(b"four\n")
    assert (bot.folder / "out.idx").stat().st_size == 4 * 16
    os.truncate(bot.folder / "out.log", 8)
    bot.say(b"after\n")
    assert bot.files() == {"out.log": b"one\ntwo\nafter\n"}
    assert (bot.folder / "out.idx").stat().st_size == 3 * 16


def test_what_others_append_is_not_overwritten(bot):
    bot.say(b"before\n")
    with open(bot.folder / "out.log", "ab") as file:
        file.write(b"a note by hand\n")
    bot.say(b"after\n")
    assert bot.files() == {"out.log": b"before\na note by hand\nafter\n"}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_was_removed_is_made_again(bot, what):
    bot.say(b"before\n")
    shutil.rmtree(bot.folder) if what == "folder" else (bot.folder / "out.log").unlink()

    def is_made_again():
        bot.say(b"after\n")
        return (bot.folder / "out.log").exists() and bot.files()["out.log"]

    until(is_made_again, "a line in a new file")
    assert bot.files() == {"out.log": b"after\n"}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_was_moved_away_takes_bytes_for_a_moment_at_most(bot, what):
    bot.say(b"0\n")
    moved = bot.folder.parent / "moved"
    (bot.folder if what == "folder" else bot.folder / "out.log").rename(moved)
    said = 0

    def is_made_again():
        nonlocal said
        said += 1
        bot.say(b"%d\n" % said)
        return (bot.folder / "out.log").exists()

    until(is_made_again, "a new file")
    former = (moved / "out.log" if what == "folder" else moved).read_bytes()
    assert former + bot.files()["out.log"] == b"".join(b"%d\n" % n for n in range(said + 1))


def test_a_file_moved_away_is_not_rotated(tmp_path):
    bot = Bot(tmp_path / "logs", max_bytes=4)
    bot.say(b"one\n")
    moved = bot.folder / "mine"
    (bot.folder / "out.log").rename(moved)
    (bot.folder / "out.log").write_bytes(b"foreign\n")
    until(lambda: bot.say(b"two\n") or "out.log.1" in bot.files(), "a rotation")
    files = bot.files()
    assert files["out.log.1"].startswith(b"foreign\n")
    both = files["mine"] + files["out.log.1"] + files["out.log"]
    assert both.count(b"one\n") == 1
    bot.close()


def strange(kind: str, path: Path, foreign: Path) -> None:
    if kind == "link":
        path.symlink_to(foreign)
    elif kind == "second name":
        os.link(foreign, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
@pytest.mark.parametrize("name", ["out.log", "out.idx"])
def test_something_else_in_a_files_place_is_set_aside(bot, kind, name):
    foreign = bot.folder.parent / "foreign"
    foreign.write_bytes(b"mine")
    bot.folder.mkdir()
    strange(kind, bot.folder / name, foreign)
    bot.say(b"line\n")
    assert (bot.folder / "out.log").read_bytes() == b"line\n"
    assert foreign.read_bytes() == b"mine"
    assert (bot.folder / f"{name}.strange").exists() or kind == "link"
    assert bot.sink.strange == (name == "out.log")


def test_copytruncate_from_outside_leaves_no_holes(house):
    keeper = house.up()
    os.mkfifo(house.path("asked"))
    keeper.start("u/bot", 1, [*PYTHON, ON_DEMAND, house.path("asked")])
    log = Path(house.path("logs/u/bot/out.log"))
    copied = b""
    with open(house.path("asked"), "wb", buffering=0) as asked:
        for n in range(20):
            line = b"%07d\n" % n
            asked.write(line)
            until(lambda line=line: house.log("u/bot").endswith(line), f"line {n}")
            if n % 3 == 0:
                copied += log.read_bytes()
                os.truncate(log, 0)
    assert numbers(copied + log.read_bytes()) == list(range(20))


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_replaced_by_something_else_makes_the_bytes_wait(house, kind):
    keeper = house.up()
    os.mkfifo(house.path("asked"))
    elsewhere = Path(house.path("elsewhere"))
    elsewhere.mkdir()
    keeper.start("u/bot", 1, [*PYTHON, ON_DEMAND, house.path("asked")])
    folder = Path(house.path("logs/u/bot"))
    with open(house.path("asked"), "wb", buffering=0) as asked:
        asked.write(b"before\n")
        until(lambda: house.log("u/bot") == b"before\n", "a line")
        folder.rename(house.path("moved"))
        folder.symlink_to(elsewhere) if kind == "link" else folder.write_bytes(b"")
        said = 0

        def waits():
            nonlocal said
            asked.write(b"%07d\n" % said)
            said += 1
            time.sleep(0.01)  # a new line now and then: only bytes make it look
            return "waits" in house.keeper_log()

        until(waits, "the keeper to complain")
        assert not os.listdir(elsewhere)
        folder.unlink()
        until(lambda: "flows again" in house.keeper_log(), "the keeper to try again")
        asked.write(b"%07d\n" % said)
        until(lambda: house.log("u/bot").endswith(b"%07d\n" % said), "the last line")
    moved = Path(house.path("moved/out.log")).read_bytes().removeprefix(b"before\n")
    assert numbers(moved + house.log("u/bot")) == list(range(said + 1))


def test_a_keeper_that_finds_a_broken_folder_still_finds_the_bot(house):
    keeper = house.up()
    started = keeper.start("u/bot", 1, ["sleep", "1000"])
    house.kill_keeper()
    os.rename(house.path("logs/u/bot"), house.path("moved"))
    os.symlink(house.path("moved"), house.path("logs/u/bot"))
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    state = again.state("u/bot", 1)
    assert (state["live"], state["pid"]) == (True, started["pid"])
    keeper.close()


def test_the_users_folder_may_be_no_link_either(house):
    os.makedirs(house.path("elsewhere/bot"))
    os.mkdir(house.path("logs"))
    os.symlink(house.path("elsewhere"), house.path("logs/u"))
    keeper = house.up()
    keeper.ask_start("u/bot", 1, ["echo", "secret"])
    assert keeper.expect("failed", "u/bot", 1)["step"] == "logs"
    assert not os.listdir(house.path("elsewhere/bot"))


def test_a_limit_on_the_size_of_files_rotates_sooner(house):
    """What would send SIGXFSZ ends nothing."""
    house.launch()
    resource.prlimit(house.program.pid, resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    keeper = house.connect()
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 1 << 20, "keep": 100}
    keeper.start("u/bot", 1, [*PYTHON, COUNT, "10000"], log=log)
    keeper.expect("exited", "u/bot", 1)
    assert numbers(house.log("u/bot")) == list(range(10_000))
    rotated = list(Path(log["dir"]).glob("out.log.*"))
    assert len(rotated) > 10
    assert all(path.read_bytes().endswith(b"\n") for path in rotated)


def test_no_file_may_have_a_byte(house):
    keeper = house.up()
    keeper.start("u/first", 1, ["sh", "-c", "echo one; exec sleep 1000"])
    until(lambda: house.log("u/first") == b"one\n", "the first line")
    os.mkfifo(house.path("asked"))
    keeper.start("u/bot", 1, [*PYTHON, ON_DEMAND, house.path("asked")])
    resource.prlimit(house.program.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    with open(house.path("asked"), "wb", buffering=0) as asked:
        asked.write(b"kept\n")
        until(lambda: keeper.ping() and os.path.exists(house.path("logs/u/bot/out.log")), "the keeper to try")
        resource.prlimit(house.program.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: house.log("u/bot") == b"kept\n", "the line")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_becomes_read_only_and_comes_back(house):
    disk = house.path("disk")
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        keeper = house.up()
        os.mkfifo(house.path("asked"))
        log = {"dir": disk + "/logs/u", "max_bytes": 1 << 20, "keep": 1}
        keeper.start("u/bot", 1, [*PYTHON, ON_DEMAND, house.path("asked")], log=log)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with open(house.path("asked"), "wb", buffering=0) as asked:
            asked.write(b"kept\n")
            until(lambda: "waits" in house.keeper_log(), "the keeper to complain")
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            until(lambda: "flows again" in house.keeper_log(), "bytes to flow")
        assert Path(log["dir"], "out.log").read_bytes() == b"kept\n"
    finally:
        house.kill_keeper()
        until(
            lambda: subprocess.run(["umount", disk], stderr=subprocess.DEVNULL, check=False).returncode == 0, "umount"
        )


def test_a_flood_stays_within_its_files_at_every_instant(house):
    keeper = house.up()
    size, keep = 200_000, 3
    log = {"dir": house.path("logs/u/flood"), "max_bytes": size, "keep": keep}
    flood = "import os\nblock = (b'y' * 199 + b'\\n') * 500\nfor n in range(600): os.write(1, block)"
    keeper.start("u/flood", 1, [*PYTHON, flood], log=log)
    most = 0

    def over():
        nonlocal most
        sizes = []
        for entry in os.scandir(log["dir"]):
            if ".log" in entry.name:
                try:
                    sizes.append((entry.inode(), entry.stat().st_size))
                except FileNotFoundError:
                    pass  # it was just moved
        # A file that moved while we looked may be seen under two names.
        most = max(most, sum(dict(sizes).values()))
        return any(m["op"] == "exited" for m in keeper.inbox) or keeper.ping()["live"] == 0

    until(over, "the end of the flood")
    keeper.expect("exited", "u/flood", 1)
    assert size * keep < most <= size * (keep + 1) + 2 * (65536 + 4096)


def test_a_start_and_a_line_beside_a_flood(house):
    """Everything is done while somebody floods; how fast is for the benchmarks."""
    keeper = house.up()
    keeper.start("u/flood", 1, ["yes", "y" * 199])
    until(lambda: os.path.exists(house.path("logs/u/flood/out.log.1")), "a rotation")
    for n in range(10):
        keeper.start(f"u/bot{n}", 1, ["sh", "-c", f"echo {n}; exec sleep 1000"])
        until(lambda n=n: house.log(f"u/bot{n}") == b"%d\n" % n, "the line")
        keeper.stop(f"u/bot{n}", 1)
        keeper.expect("exited", f"u/bot{n}", 1)
    keeper.stop("u/flood", 1, grace_s=0)
    keeper.expect("exited", "u/flood", 1)


def test_a_flood_is_moved_at_its_pace():
    flood, now, moved = Flood(), 100.0, 0
    while now < 110.0:
        moved += FLOOD_BYTES
        now += 0.0005 + flood.rest(FLOOD_BYTES, FLOOD_BYTES, now + 0.0005)
    assert FLOOD_PACE * 9.8 < moved < FLOOD_PACE * 10.2


def test_who_was_late_catches_up():
    flood = Flood()
    flood.rest(FLOOD_BYTES, FLOOD_BYTES, 100.0)
    assert [flood.rest(FLOOD_BYTES, FLOOD_BYTES, 100.05) for _ in range(10)] == [0.0] * 10


@pytest.mark.parametrize("rate", [100e6, 200e6, 400e6])
def test_below_that_pace_its_pipe_does_not_fill(rate):
    flood, now, rest = Flood(), 100.0, REST_S
    full = 0
    for n in range(200):
        now += rest
        moved = min(FLOOD_BYTES, int(rate * max(rest, 0.0001)))
        full += n > 10 and moved == FLOOD_BYTES
        rest = flood.rest(moved, FLOOD_BYTES, now)
        assert rest == 0.0 or SHORTEST_S <= rest <= REST_S
    assert full == 0
    assert moved > FLOOD_BYTES / 3
