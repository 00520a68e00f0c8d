import os
import random
import time

import pytest
from printing import Printer, lay_down

from botd.contract.errors import BotdError
from botd.storage import grep, loglines
from botd.storage.loglines import LINE_MAX
from botd.storage.logs import Query, read
from botd.system.clock import rfc3339

T = 1_700_000_000.0


def texts(folder, **query):
    return [line.text for line in read({"a/b": str(folder)}, Query(**query)).lines]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def printer(folder):
    printers = []

    def make(**options):
        printers.append(Printer(folder, **options))
        return printers[-1]

    yield make
    for one in printers:
        one.close()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\n", ["one"]),
        (b"one", ["one"]),
        (b"one\ntwo", ["one", "two"]),
        (b"\n\none\n\n", ["", "", "one", ""]),
        (b"win\r\ndos\r\n", ["win", "dos"]),
        (b"\xff\xfe ok\n", ["\ufffd\ufffd ok"]),
        (b"nul\x00in\n", ["nul\x00in"]),
    ],
)
def test_lines(folder, data, lines):
    lay_down(folder, [(T, data)])
    assert texts(folder) == lines


def test_an_unfinished_last_line_can_be_left_for_later(folder):
    lay_down(folder, [(T, b"one\ntw")])
    tail = read({"a/b": str(folder)}, Query(partial=False))
    assert [line.text for line in tail.lines] == ["one"]
    assert tail.positions["a/b"] == {"stdout": (os.stat(folder / "out.log").st_ino, 4, T, False)}


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 65536])
def test_reading_backwards_finds_the_same_lines_as_reading_forwards(folder, monkeypatch, block):
    monkeypatch.setattr(loglines, "BLOCK", block)
    chance = random.Random(block)
    for _ in range(60):
        data = bytes(chance.choice(b"ab\n") for _ in range(chance.randrange(200)))
        lay_down(folder, [(T, data)])
        forwards = data.decode().split("\n")
        if forwards[-1] == "":
            forwards.pop()
        assert texts(folder, lines=None) == forwards
        assert texts(folder, lines=3) == forwards[-3:]


def test_a_line_without_end_is_cut_and_costs_no_memory(folder):
    with open(folder / "out.log", "wb") as file:
        file.write(b"before\n")
        file.seek(300 << 20, os.SEEK_CUR)
        file.write(b"\nafter\n")
    before, cut, after = texts(folder)
    assert (before, after) == ("before", "after")
    assert cut == "\x00" * LINE_MAX + f" [cut: {(300 << 20) - LINE_MAX} more bytes]"


def test_both_streams_in_the_order_of_time(folder):
    lay_down(folder, [(T, b"out 0\n"), (T + 2, b"out 2\nout 2b\n"), (T + 4, b"out 4\n")])
    lay_down(folder, [(T + 1, b"err 1\n"), (T + 3, b"err 3\n")], name="err")
    assert texts(folder) == ["out 0", "err 1", "out 2", "out 2b", "err 3", "out 4"]
    assert texts(folder, lines=2) == ["err 3", "out 4"]
    assert texts(folder, stream="stderr") == ["err 1", "err 3"]
    lines = read({"a/b": str(folder)}, Query()).lines
    assert [(line.stream, line.at) for line in lines[:3]] == [("stdout", T), ("stderr", T + 1), ("stdout", T + 2)]


def test_since_and_until_are_exact_on_the_index(folder):
    lay_down(folder, [(T + i, b"line %d\n" % i) for i in range(1000)])
    assert texts(folder, since=T + 990, lines=None) == [f"line {i}" for i in range(990, 1000)]
    assert texts(folder, since=T + 990.5, lines=None) == [f"line {i}" for i in range(991, 1000)]
    assert texts(folder, until=T + 3, lines=None) == ["line 0", "line 1", "line 2", "line 3"]
    assert texts(folder, since=T + 5, until=T + 7, lines=2) == ["line 6", "line 7"]
    assert texts(folder, since=T + 5000) == []
    assert texts(folder, until=T - 1) == []
    assert texts(folder, since=T + 9, until=T + 3) == []


def test_a_line_has_the_time_at_which_it_began(folder):
    lay_down(folder, [(T, b"one\nbeg"), (T + 10, b"in\nnext\n")])
    lines = read({"a/b": str(folder)}, Query()).lines
    assert [(line.at, line.text) for line in lines] == [(T, "one"), (T, "begin"), (T + 10, "next")]
    assert texts(folder, since=T + 5) == ["next"]
    assert texts(folder, until=T + 5) == ["one", "begin"]


def test_rotated_files_are_one_story(folder):
    lay_down(folder, [(T, b"1\n2\n")], suffix=".10")
    lay_down(folder, [(T + 1, b"3\n")], suffix=".9")
    lay_down(folder, [(T + 2, b"4\n")], suffix=".1")
    # What the rotation carried over stands before the first record.
    lay_down(folder, [(None, b"5\n"), (T + 3, b"6\n")])
    assert texts(folder) == ["1", "2", "3", "4", "5", "6"]
    assert texts(folder, lines=3) == ["4", "5", "6"]
    assert texts(folder, since=T + 2) == ["4", "5", "6"]
    assert texts(folder, since=T + 3) == ["6"]
    assert texts(folder, until=T + 2) == ["1", "2", "3", "4", "5"]


def test_what_the_keeper_writes_is_read_whatever_it_rotates(folder, printer):
    out = printer(max_bytes=500, keep=1000)
    expected = []
    chance = random.Random(1)
    for i in range(400):
        line = f"{i} " + "x" * chance.randrange(200)
        expected.append(line)
        out.print(line.encode() + b"\n")
    assert len(list(folder.glob("out.log.*"))) > 20
    assert texts(folder, lines=None) == expected
    assert texts(folder, lines=7) == expected[-7:]
    assert texts(folder, lines=None, since=time.time() - 3600) == expected
    assert texts(folder, since=time.time() + 60) == []


@pytest.mark.parametrize("step", ["copied", "committed", "truncated", "index shifted", "shifted"])
def test_a_rotation_that_was_cut_short_is_read_through(folder, step):
    lay_down(folder, [(T, b"0\n")], suffix=".1")
    lay_down(folder, [(T + 1, b"1\n2\n3\n4\n")])
    moved = b"3\n4\n"
    (folder / "out.log.tail").write_bytes(moved)
    if step != "copied":
        os.rename(folder / "out.log.tail", folder / "out.log.cut-4")
    if step in ("truncated", "index shifted", "shifted"):
        os.truncate(folder / "out.log", 4)
    if step in ("index shifted", "shifted"):
        os.rename(folder / "out.idx.1", folder / "out.idx.2")
        os.rename(folder / "out.idx", folder / "out.idx.1")
    if step == "shifted":
        os.rename(folder / "out.log.1", folder / "out.log.2")
        os.rename(folder / "out.log", folder / "out.log.1")
    lines = read({"a/b": str(folder)}, Query()).lines
    assert [line.text for line in lines] == ["0", "1", "2", "3", "4"]
    assert [line.at for line in lines] == [T, T + 1, T + 1, T + 1, T + 1]


@pytest.mark.parametrize(
    "index",
    [b"", b"short", b"\xff" * 160, b"\x00" * 1600, b"\x00\x00\x00\x00\x00\x00\xf8\x7f" * 40, os.urandom(4096)],
)
def test_a_damaged_index_costs_times_and_no_lines(folder, index):
    lay_down(folder, [(T, b"one\ntwo\n")])
    (folder / "out.idx").write_bytes(index)
    lines = read({"a/b": str(folder)}, Query()).lines
    assert [line.text for line in lines] == ["one", "two"]
    assert all(0 <= line.at < 253402300800 for line in lines)
    texts(folder, since=T, until=T + 5)


def test_without_an_index_the_time_of_the_file_has_to_do(folder):
    (folder / "out.log").write_bytes(b"one\n")
    os.utime(folder / "out.log", (T, T))
    assert read({"a/b": str(folder)}, Query()).lines[0].at == T
    assert texts(folder, since=T + 1) == []
    assert texts(folder, since=T - 1) == ["one"]
    assert texts(folder, until=T - 1) == []


@pytest.mark.parametrize("at", [-5, 1 << 40])
def test_a_file_from_outside_of_time_still_has_a_time_that_can_be_shown(folder, at):
    (folder / "out.log").write_bytes(b"one\n")
    try:
        os.utime(folder / "out.log", (at, at))
    except OSError:
        pytest.skip("this file system has no such times")
    (line,) = read({"a/b": str(folder)}, Query()).lines
    assert rfc3339(line.at)


def test_a_clock_that_was_set_back_does_not_mix_up_a_stream(folder):
    lay_down(folder, [(T + 100, b"first\n"), (T, b"second\n"), (T + 200, b"third\n")])
    assert texts(folder) == ["first", "second", "third"]


@pytest.mark.parametrize("plant", ["link", "fifo", "folder"])
def test_what_was_planted_in_place_of_a_log_is_not_read(folder, tmp_path, plant):
    (tmp_path / "secret").write_text("secret\n")
    if plant == "link":
        os.symlink(tmp_path / "secret", folder / "out.log")
    elif plant == "fifo":
        os.mkfifo(folder / "out.log")
    else:
        (folder / "out.log").mkdir()
    assert texts(folder) == []


def test_a_folder_that_is_missing_or_a_link_is_empty(folder, tmp_path):
    lay_down(folder, [(T, b"secret\n")])
    os.symlink(folder, tmp_path / "link")
    tail = read({"x/y": str(tmp_path / "none"), "x/z": str(tmp_path / "link")}, Query())
    assert (tail.lines, tail.positions) == ([], {"x/y": {}, "x/z": {}})


def test_many_bots_by_time_and_the_last_of_all(tmp_path):
    folders = {}
    for bot in range(50):
        folders[f"a/{bot}"] = str(tmp_path / str(bot))
        lay_down(folders[f"a/{bot}"], [(T + bot + 100 * i, b"%d\n" % (bot + 100 * i)) for i in range(100)])
    lines = read(folders, Query(lines=30)).lines
    assert [int(line.text) for line in lines] == list(range(9920, 9950))
    assert lines[0].id == "a/20"
    assert len(read(folders, Query(lines=None)).lines) == 5000
    assert read(folders, Query(lines=0)).lines == []


def test_the_answer_is_bounded_and_says_so(folder):
    lay_down(folder, [(T, b"x" * 99 + b"\n")] * 1000)
    tail = read({"a/b": str(folder)}, Query(lines=None, limit_bytes=5000))
    assert len(tail.lines) == 50
    assert tail.truncated
    assert not read({"a/b": str(folder)}, Query(lines=50, limit_bytes=5000)).truncated


def test_reading_leaves_no_descriptor_open(folder, printer):
    out = printer(max_bytes=100, keep=5)
    out.print(b"line\n" * 100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        texts(folder)
    assert len(os.listdir("/proc/self/fd")) == before


# --- grep ---------------------------------------------------------------------------------------------------


def test_grep_finds_in_all_that_is_there(folder):
    lay_down(folder, [(T + i, b"line %d\n" % i) for i in range(1000)])
    assert texts(folder, grep="line 99?$") == ["line 9", "line 99"]
    assert texts(folder, grep="7", lines=2) == ["line 987", "line 997"]
    assert texts(folder, grep="é|line 1$") == ["line 1"]
    assert texts(folder, grep="no such") == []
    assert texts(folder, grep="5", since=T + 100, until=T + 110) == ["line 105"]
    tail = read({"a/b": str(folder)}, Query(grep="x"))
    assert tail.positions["a/b"]["stdout"][:2] == (
        os.stat(folder / "out.log").st_ino,
        os.stat(folder / "out.log").st_size,
    )


@pytest.mark.parametrize("pattern", ["(", "[", "*", "(?P<a", "\\", "a{2,1}", "(" * 900, "(?<=a*)b"])
def test_what_is_no_expression_is_refused(folder, pattern):
    lay_down(folder, [(T, b"x\n")])
    with pytest.raises(BotdError) as refused:
        texts(folder, grep=pattern)
    assert refused.value.kind == "invalid"
    assert refused.value.exit == 2


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*$", r".*.*.*.*.*.*=.*;"])
def test_an_expression_that_explodes_is_ended_and_nothing_else_is(folder, pattern, monkeypatch):
    monkeypatch.setattr(grep, "_COMMAND", (*grep._COMMAND[:-1], "-c", QUICKLY))
    lay_down(folder, [(T, b"a" * 2000 + b"b\n")])
    with pytest.raises(BotdError) as ended:
        texts(folder, grep=pattern)
    assert ended.value.kind == "timeout"
    assert texts(folder, grep="a") != []


# The same child with a second instead of five.
QUICKLY = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(grep.__file__))))!r})
from botd.storage import grep
grep.CPU_S = 0
sys.exit(grep.main())
"""
