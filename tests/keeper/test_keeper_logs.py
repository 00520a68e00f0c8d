"""Output: every byte once and in order, over rotation, floods, full disks and killed keepers."""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path

import pytest
from keeper_house import PYTHON, until
from test_keeper_recovery import crash_points

from botd.keeper import logs
from botd.keeper.logs import Full, Sink
from botd.keeper.source import Source

COUNT = """
import sys
for n in range(int(sys.argv[1])):
    print('%07d' % n, 'x' * (n % 90))
"""


def numbers(data: bytes) -> list[int]:
    assert data.endswith(b"\n")
    return [int(line[:7]) for line in data.splitlines()]


@pytest.fixture
def pipe():
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(write, True)
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass  # the test closed it


@pytest.fixture
def sink(tmp_path):
    made = Sink(str(tmp_path / "logs"), "out", 1000, 3)
    yield made
    made.close()


def flow(sink: Sink, source: Source) -> None:
    try:
        while sink.move(source) > 0:
            pass
    except BlockingIOError:
        pass  # empty


def test_lines_arrive_at_once(house):
    keeper = house.up()
    keeper.start("u/bot", 1, ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"])
    until(lambda: house.log("u/bot") == b"out\n", "the line on stdout")
    until(lambda: house.log("u/bot", "err") == b"err\n", "the line on stderr")


def test_a_lone_line_needs_no_other_one_to_push_it(house):
    """Small writes are moved together after a rest; the last of them must not wait for a next one."""
    keeper = house.up()
    os.mkfifo(house.path("asked"))
    script = "for line in open(sys.argv[1], buffering=1): print(line, end='', flush=True)"
    keeper.start("u/bot", 1, [*PYTHON, f"import sys\n{script}", house.path("asked")])
    expected = b""
    with open(house.path("asked"), "wb", buffering=0) as asked:
        for n in range(100):
            # Now and then two at once: the second comes while the pipe rests.
            lines = b"".join(b"%d %d\n" % (n, part) for part in range(1 + (n % 3 == 0)))
            asked.write(lines)
            expected += lines
            until(lambda wanted=expected: house.log("u/bot") == wanted, f"line {n}")


def test_rotation_at_newlines_keeps_every_line(house):
    keeper = house.up()
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 50_000, "keep": 500}
    keeper.start("u/bot", 1, [*PYTHON, COUNT, "100000"], log=log)
    keeper.expect("exited", "u/bot", 1)
    assert numbers(house.log("u/bot")) == list(range(100_000))
    files = sorted(Path(house.path("logs/u/bot")).glob("out.log.*"))
    assert len(files) > 50
    for file in files:
        data = file.read_bytes()
        assert data.endswith(b"\n")
        assert 50_000 <= len(data) < 50_000 + 200
        assert Path(str(file).replace("out.log", "out.idx")).exists()


def test_only_so_many_rotated_files_stay(house):
    keeper = house.up()
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 10_000, "keep": 2}
    keeper.start("u/bot", 1, [*PYTHON, COUNT, "5000"], log=log)
    keeper.expect("exited", "u/bot", 1)
    names = sorted(p.name for p in Path(house.path("logs/u/bot")).glob("out.log*"))
    assert names == ["out.log", "out.log.1", "out.log.2"]
    kept = numbers(house.log("u/bot"))
    assert kept == list(range(kept[0], 5000))


def test_limits_can_change_while_it_runs(house):
    keeper = house.up()
    script = "import time\nfor n in range(10**9):\n print('%07d' % n, flush=True); time.sleep(0.0005)"
    keeper.start("u/bot", 1, [*PYTHON, script])
    until(lambda: len(house.log("u/bot")) > 500, "some output")
    keeper.send({"op": "logs", "id": "u/bot", "max_bytes": 100, "keep": 900})
    until(lambda: os.path.exists(house.path("logs/u/bot/out.log.5")), "rotation")
    keeper.stop("u/bot", 1, grace_s=0)
    keeper.expect("exited", "u/bot", 1)
    data = house.log("u/bot")
    seen = numbers(data[: data.rindex(b"\n") + 1])
    assert seen == list(range(len(seen)))


def test_a_flood_starves_nobody_and_loses_nothing(house):
    keeper = house.up()
    flood = "import os\nblock = b'y' * 65535 + b'\\n'\nfor n in range(1600): os.write(1, block)"
    keeper.start(
        "u/flood", 1, [*PYTHON, flood], log={"dir": house.path("logs/u/flood"), "max_bytes": 1 << 40, "keep": 1}
    )
    keeper.start("u/quiet", 1, ["sh", "-c", "echo hello; exec sleep 1000"])
    until(lambda: house.log("u/quiet") == b"hello\n", "the quiet bot's line")
    keeper.expect("exited", "u/flood", 1)
    assert os.path.getsize(house.path("logs/u/flood/out.log")) == 1600 * 65536


def test_output_survives_the_death_of_the_keeper(house):
    """Lines written before, during and after: all there, once, in order."""
    keeper = house.up()
    script = "import time\nfor n in range(3000):\n print('%07d' % n, flush=True); time.sleep(0.0002)"
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 3000, "keep": 100}
    keeper.start("u/bot", 1, [*PYTHON, script], log=log)
    held = keeper.hand_over()
    for _ in range(4):
        size = len(house.log("u/bot"))
        until(lambda size=size: len(house.log("u/bot")) > size + 1500, "more output")
        house.kill_keeper()
        house.launch()
        house.connect(adopt=held)
    house.client.expect("exited", "u/bot", 1)
    assert numbers(house.log("u/bot")) == list(range(3000))
    keeper.close()


FULL = {"rotate-oldest-gone", "rotate-packed"}
"""Passed only where every number is taken: test_keeper_rotation.py."""


@pytest.mark.parametrize("point", [name for name in crash_points("rotate", "log") if name not in FULL])
def test_killed_in_the_middle_of_a_rotation(house, point):
    crashing = house.launch(crash_at=f"{point}:2")
    keeper = house.connect()
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 20_000, "keep": 500}
    keeper.start("u/bot", 1, [*PYTHON, COUNT, "20000"], log=log)
    crashing.wait(10)
    assert crashing.returncode == -9, "the point was not passed"
    house.launch()
    again = house.connect(adopt=keeper.hand_over())
    state = again.state("u/bot", 1)
    if state["live"]:
        again.expect("exited", "u/bot", 1)
    assert numbers(house.log("u/bot")) == list(range(20_000))
    names = {p.name for p in Path(house.path("logs/u/bot")).iterdir()}
    assert not [n for n in names if "cut" in n or "tail" in n]
    keeper.close()


def test_a_line_without_end_is_cut(house):
    keeper = house.up()
    script = "import os\nfor n in range(50): os.write(1, b'z' * 65536)"
    log = {"dir": house.path("logs/u/bot"), "max_bytes": 1000, "keep": 50}
    keeper.start("u/bot", 1, [*PYTHON, script], log=log)
    keeper.expect("exited", "u/bot", 1)
    assert house.log("u/bot") == b"z" * (50 * 65536)
    sizes = [p.stat().st_size for p in Path(house.path("logs/u/bot")).glob("out.log.*")]
    assert sizes and all(size <= logs.LONGEST_LINE + 1000 + 65536 for size in sizes)


def test_who_never_prints_leaves_no_files(house):
    keeper = house.up()
    keeper.start("u/silent", 1, ["true"])
    keeper.expect("exited", "u/silent", 1)
    keeper.start("u/closing", 1, ["sh", "-c", "exec >&- 2>&-; exec sleep 1000"])
    keeper.stop("u/closing", 1)
    keeper.expect("exited", "u/closing", 1)
    assert os.listdir(house.path("logs/u/silent")) == os.listdir(house.path("logs/u/closing")) == []


def test_a_file_is_made_by_its_first_byte(sink, pipe):
    read, write = pipe
    source = Source(read, sink)
    with pytest.raises(BlockingIOError):
        sink.move(source)
    assert not os.path.exists(sink.folder)
    os.write(write, b"late\n")
    os.close(write)
    assert sink.move(source) == 5
    assert sink.move(source) == 0
    assert Path(sink.folder, "out.log").read_bytes() == b"late\n"
    sink.close()  # it may have the number of the end that was closed


@pytest.mark.parametrize("final", [True, False])
def test_the_end_of_an_empty_pipe_makes_no_file(sink, pipe, final):
    read, write = pipe
    source = Source(read, sink)
    source.final = final
    if not final:
        os.close(write)
    assert sink.move(source) == 0
    assert not os.path.exists(sink.folder)


def test_a_rotation_cut_short_is_finished_without_another_byte(sink):
    os.makedirs(sink.folder)
    Path(sink.folder, "out.log").write_bytes(b"one\ntwo\n")
    Path(sink.folder, "out.log.cut-4").write_bytes(b"two\n")
    sink.mend()
    assert {p.name: p.read_bytes() for p in Path(sink.folder).iterdir()} == {
        "out.log": b"two\n",
        "out.log.1": b"one\n",
    }
    sink.mend()
    assert Path(sink.folder, "out.log").read_bytes() == b"two\n"


def test_the_index_leads_to_the_lines_of_a_time(sink, pipe):
    read, write = pipe
    source = Source(read, sink)
    before = time.time()
    os.write(write, b"first\n")
    flow(sink, source)
    sink._index._noted = 0.0
    os.write(write, b"second\n")
    flow(sink, source)
    records = list(struct.iter_unpack("<dQ", Path(sink.folder, "out.idx").read_bytes()))
    assert [offset for _, offset in records] == [0, 6]
    assert before <= records[0][0] <= records[1][0] <= time.time()


def test_a_torn_index_is_repaired(sink, pipe):
    read, write = pipe
    os.makedirs(sink.folder)
    Path(sink.folder, "out.log").write_bytes(b"old\n")
    Path(sink.folder, "out.idx").write_bytes(struct.pack("<dQ", time.time(), 0) + b"torn")
    source = Source(read, sink)
    os.write(write, b"line\n")
    flow(sink, source)
    assert Path(sink.folder, "out.idx").stat().st_size == 32


def test_a_full_disk_keeps_the_bytes_in_the_pipe(sink, pipe, monkeypatch):
    read, write = pipe
    source = Source(read, sink)
    os.write(write, b"kept\n")
    real = os.splice

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "splice", full)
    with pytest.raises(Full):
        sink.move(source)
    monkeypatch.setattr(os, "splice", real)
    assert sink.move(source) == 5
    assert Path(sink.folder, "out.log").read_bytes() == b"kept\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk(house):
    import subprocess

    disk = house.path("disk")
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        keeper = house.up()
        log = {"dir": disk + "/logs", "max_bytes": 1 << 30, "keep": 1}
        keeper.start("u/bot", 1, [*PYTHON, COUNT, "6000"], log=log)
        until(lambda: "waits" in house.keeper_log(), "the keeper to complain")
        keeper.start("u/other", 1, ["sh", "-c", "echo fine"])
        keeper.expect("exited", "u/other", 1)
        assert house.log("u/other") == b"fine\n"
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        keeper.expect("exited", "u/bot", 1)
        expected = b"".join(b"%07d %s\n" % (n, b"x" * (n % 90)) for n in range(6000))
        until(lambda: Path(disk, "logs/out.log").read_bytes() == expected, "all lines")
        assert house.keeper_log().count("waits") == 1
    finally:
        house.kill_keeper()
        until(
            lambda: subprocess.run(["umount", disk], stderr=subprocess.DEVNULL, check=False).returncode == 0, "umount"
        )


def test_what_a_dead_life_left_comes_before_the_next_one(house):
    keeper = house.up()
    for gen in (1, 2, 3):
        keeper.start("u/bot", gen, ["sh", "-c", f"echo {gen}"])
        keeper.expect("exited", "u/bot", gen)
        keeper.ack("u/bot", gen)
    assert house.log("u/bot") == b"1\n2\n3\n"


def test_a_link_in_place_of_the_folder_or_file_is_not_followed(house):
    keeper = house.up()
    os.makedirs(house.path("logs/u"))
    os.symlink("/tmp", house.path("logs/u/bot"))
    keeper.ask_start("u/bot", 1, ["sleep", "100"])
    assert keeper.expect("failed", "u/bot", 1)["step"] == "logs"
    os.unlink(house.path("logs/u/bot"))
    os.mkdir(house.path("logs/u/bot"))
    os.symlink(house.path("elsewhere"), house.path("logs/u/bot/out.log"))
    keeper.start("u/bot", 2, ["sh", "-c", "echo secret"])
    keeper.expect("exited", "u/bot", 2)
    assert not os.path.exists(house.path("elsewhere"))


def test_the_pipe_of_a_flooding_bot_grows(sink, pipe):
    read, write = pipe
    source = Source(read, sink)
    assert source.capacity in (8192, 65536)  # 8192: this user has so many pipes already
    source.grow()
    assert source.capacity >= 8192
    os.set_blocking(write, False)
    assert os.write(write, b"x" * (1 << 20)) == source.capacity
