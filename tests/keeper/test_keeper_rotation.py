"""Rotation: files of both forms, the folder's lock, age, and a kill between any two steps."""

from __future__ import annotations

import fcntl
import gzip
import os
import struct
import time
from pathlib import Path

import pytest
from keeper_house import PYTHON, until
from test_keeper_recovery import crash_points

from botd.keeper import logs
from botd.keeper.logs import Busy, Sink
from botd.keeper.source import Source


class Bot:
    """A pipe and the sink it flows into; `say` writes and moves."""

    def __init__(self, folder: Path, max_bytes: int = 40, keep: int = 3, max_age_s: float = 0.0) -> None:
        self.folder = folder
        self.sink = Sink(str(folder), "out", max_bytes, keep, max_age_s)
        self.reading, self.writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.source = Source(self.reading, self.sink)

    def say(self, data: bytes) -> None:
        os.write(self.writing, data)
        self.flow()

    def flow(self) -> None:
        try:
            while self.sink.move(self.source) > 0:
                pass
        except BlockingIOError:
            pass  # empty

    def files(self) -> dict[str, bytes]:
        """name -> content of everything but indexes, in clear."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            if ".idx" not in path.name:
                data = path.read_bytes()
                found[path.name] = gzip.decompress(data) if path.suffix == ".gz" else data
        return found

    def pack(self, number: int) -> None:
        """What botd does with a rotated file."""
        plain = self.folder / f"out.log.{number}"
        Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    def close(self) -> None:
        self.sink.close()
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def bot(tmp_path):
    made = Bot(tmp_path / "logs")
    yield made
    made.close()


def line(n: int) -> bytes:
    return b"%039d\n" % n


@pytest.fixture
def holder(bot):
    """A descriptor that holds the folder's lock."""
    bot.say(b"first\n")
    fd = os.open(bot.folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


def test_compressed_files_move_up_and_count(bot):
    for n in range(4):
        bot.say(line(n))
    bot.pack(2)
    bot.pack(3)
    assert bot.files() == {
        "out.log": line(3), "out.log.1": line(2), "out.log.2.gz": line(1), "out.log.3.gz": line(0)
    }  # fmt: skip
    bot.say(line(4))
    assert bot.files() == {
        "out.log": line(4), "out.log.1": line(3), "out.log.2": line(2), "out.log.3.gz": line(1)
    }  # fmt: skip


def test_of_two_forms_the_compressed_one_is_the_truth(bot):
    for n in range(3):
        bot.say(line(n))
    half = bot.folder / "out.log.2"
    Path(f"{half}.gz").write_bytes(gzip.compress(line(0)))
    half.write_bytes(b"what a crash left of it")
    bot.say(line(3))
    assert bot.files() == {
        "out.log": line(3), "out.log.1": line(2), "out.log.2": line(1), "out.log.3.gz": line(0)
    }  # fmt: skip


def test_a_gap_is_filled_and_nothing_goes(bot):
    for n in range(4):
        bot.say(line(n))
    (bot.folder / "out.log.2").unlink()
    bot.say(line(4))
    assert bot.files() == {
        "out.log": line(4), "out.log.1": line(3), "out.log.2": line(2), "out.log.3": line(0)
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 1])
def test_few_are_kept(tmp_path, keep):
    bot = Bot(tmp_path / "logs", keep=keep)
    for n in range(4):
        bot.say(line(n))
    assert bot.files() == {"out.log": line(3)} | ({"out.log.1": line(2)} if keep else {})
    bot.close()


def test_indexes_move_with_their_files(bot):
    for n in range(6):
        bot.say(line(n))
    names = {path.name for path in bot.folder.iterdir()}
    assert names == {f"out.{what}{suffix}" for what in ("log", "idx") for suffix in ("", ".1", ".2", ".3")}


def test_while_the_folder_is_held_bytes_go_on_flowing(bot, holder):
    bot.say(line(1) + line(2))
    bot.say(line(3))
    assert bot.files() == {"out.log": b"first\n" + line(1) + line(2) + line(3)}
    assert bot.sink.rotated == 0
    fcntl.flock(holder, fcntl.LOCK_UN)
    bot.say(line(4))
    assert bot.files() == {"out.log": line(4), "out.log.1": b"first\n" + line(1) + line(2) + line(3)}
    assert bot.sink.rotated == 6 + 3 * 40


def test_a_folder_that_is_held_for_long_bounds_the_file_and_then_nothing(bot, holder, monkeypatch):
    monkeypatch.setattr(logs, "LONGEST_LINE", 400)
    with pytest.raises(Busy):
        for n in range(1000):
            bot.say(line(n))
    size = (bot.folder / "out.log").stat().st_size
    assert 480 <= size < 480 + 4096
    monkeypatch.setattr(logs, "LOCK_PATIENCE_S", 0.0)
    bot.flow()
    assert set(bot.files()) == {"out.log", "out.log.1"}


def test_a_file_grows_old_by_its_first_byte(tmp_path):
    bot = Bot(tmp_path / "logs", max_bytes=1 << 20, max_age_s=3600)
    bot.say(b"old\n")
    bot.say(b"half")
    bot.sink.close()
    born = time.time() - 3601
    (bot.folder / "out.idx").write_bytes(struct.pack("<dQ", born, 0) + struct.pack("<dQ", time.time(), 4))
    # A restarted keeper: nothing but the index knows.
    bot.sink = bot.source.sink = Sink(str(bot.folder), "out", 1 << 20, 3, 3600)
    bot.flow()
    assert set(bot.files()) == {"out.log"}, "nothing was written"
    bot.say(b" and half\nnew\n")
    assert bot.files() == {"out.log": b"new\n", "out.log.1": b"old\nhalf and half\n"}
    bot.say(b"more\n")
    assert bot.files()["out.log"] == b"new\nmore\n"
    bot.close()


@pytest.mark.parametrize("damage", [struct.pack("<dQ", 4e9, 0), struct.pack("<dQ", float("nan"), 0)])
def test_a_time_that_cannot_be_makes_a_new_file_once(tmp_path, damage):
    bot = Bot(tmp_path / "logs", max_bytes=1 << 20, max_age_s=3600)
    bot.folder.mkdir()
    (bot.folder / "out.log").write_bytes(b"before\n")
    (bot.folder / "out.idx").write_bytes(damage)
    for n in range(3):
        bot.say(b"%d\n" % n)
    assert bot.files() == {"out.log": b"0\n1\n2\n", "out.log.1": b"before\n"}
    bot.close()


def test_botd_hears_of_rotations_once_a_second_at_most(house):
    keeper = house.up()
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 10_000, "keep": 900}
    script = "import os\nfor n in range(2000): os.write(1, b'%0199d\\n' % n)\nimport time; time.sleep(1000)"
    keeper.start("u/bot", 1, [*PYTHON, script], log=log)
    told = 0
    messages = 0
    rotated = lambda: sum(p.stat().st_size for p in Path(log["dir"]).glob("out.log.*"))  # noqa: E731
    while told < 350_000:
        message = keeper.expect("rotated", "u/bot")
        assert (message["name"], message["dir"]) == ("out", log["dir"])
        told += message["bytes"]
        messages += 1
    until(lambda: rotated() == told, "as much as was told to be in rotated files")
    assert messages < 10, "it rotated some 40 times"


def test_age_is_a_limit_like_the_others(house):
    keeper = house.up()
    refused = house.spec("u/bot", 1, ["true"], log={"dir": "/x", "max_bytes": 1, "keep": 1, "max_age_s": -1})
    keeper.send(refused)
    assert keeper.expect_error()["text"].startswith("max_age_s")
    keeper.start("u/bot", 1, ["cat", "/dev/null"])
    keeper.expect("exited", "u/bot", 1)
    started = keeper.start("u/bot", 2, ["sleep", "1000"])
    assert started["log"]["max_age_s"] == 0
    keeper.send({"op": "logs", "id": "u/bot", "max_bytes": 100, "keep": 2, "max_age_s": 60})
    keeper.sync()
    assert keeper.state("u/bot", 2)["log"] == {**started["log"], "max_bytes": 100, "keep": 2, "max_age_s": 60}


COUNT = "import os\nfor n in range(3000): os.write(1, b'%07d\\n' % n)"


@pytest.mark.parametrize("point", crash_points("rotate", "log"))
def test_killed_between_two_steps_with_compressed_files_about(house, point):
    """Every number is taken, some by compressed files, one by both forms; each line is there once."""
    folder = Path(house.path("logs/u/bot"))
    folder.mkdir(parents=True)
    keep = 7
    for number in range(1, keep + 1):
        data = b"former %d\n" % number
        packed = gzip.compress(data)
        if number in (3, 4, keep):
            (folder / f"out.log.{number}.gz").write_bytes(packed)
        if number not in (3, keep):
            (folder / f"out.log.{number}").write_bytes(data)
        (folder / f"out.idx.{number}").write_bytes(struct.pack("<dQ", 1.6e9 - number, 0))
    crashing = house.launch(crash_at=point)
    keeper = house.connect()
    log = {"dir": str(folder), "max_bytes": 16_000, "keep": keep}
    keeper.start("u/bot", 1, [*PYTHON, COUNT], log=log)
    crashing.wait(20)
    assert crashing.returncode == -9, "the point was not passed"
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    if again.state("u/bot", 1)["live"]:
        again.expect("exited", "u/bot", 1)
    keeper.close()
    content = b""
    times = []
    for number in range(keep, 0, -1):
        plain, packed = folder / f"out.log.{number}", folder / f"out.log.{number}.gz"
        assert plain.exists() != packed.exists(), f"exactly one form of {number}"
        content += gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
        times.append(struct.unpack("<d", (folder / f"out.idx.{number}").read_bytes()[:8])[0])
    content += (folder / "out.log").read_bytes()
    assert content == b"".join(b"former %d\n" % n for n in range(6, 0, -1)) + b"".join(
        b"%07d\n" % n for n in range(3000)
    )
    assert times == sorted(times)
    assert not [n for n in os.listdir(folder) if "cut" in n or "tail" in n]
