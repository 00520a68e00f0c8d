"""Reading and following where older files are compressed: the same lines, and one note for what is damaged."""

import asyncio
import gzip
import os
import random

import pytest
from printing import Printer, lay_down

from botd.storage import packed
from botd.storage.compress import compress_folder
from botd.storage.follow import Follower
from botd.storage.logfiles import find
from botd.storage.logs import Place, Query, read

T = 1_700_000_000.0
LIMIT_S = 30


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "logs" / "a" / "b"
    path.mkdir(parents=True)
    return path


def lay_out(folder, lines=3000, files=5):
    each = lines // files
    for number in range(files):
        first = (files - 1 - number) * each
        moves = [(T + i, b"line %d %s\n" % (i, b"." * (i % 200))) for i in range(first, first + each)]
        lay_down(folder, moves, suffix=f".{number}" if number else "")


def compress(folder):
    return compress_folder(str(folder.parents[2]), ("logs", "a", "b"), lambda: False)["files"]


def tail_of(folder, **query):
    return read({"a/b": str(folder)}, Query(**query))


def seen(folder, **query):
    tail = tail_of(folder, **query)
    assert tail.notes == []
    return [(line.at, line.text, line.offset) for line in tail.lines]


@pytest.mark.parametrize(
    "query",
    [
        {"lines": None},
        {"lines": 5},
        {"lines": 1300},
        {"lines": None, "since": T + 700, "until": T + 1900},
        {"lines": 3, "until": T + 900},
        {"lines": 7, "grep": "line 1?7"},
        {"lines": None, "limit_bytes": 100_000},
    ],
)
def test_compressed_files_are_read_like_plain_ones(folder, query):
    lay_out(folder)
    before = seen(folder, **query)
    assert compress(folder) == 3
    assert seen(folder, **query) == before
    assert len(before) > 2


def test_the_last_lines_are_found_without_unpacking_what_is_older(folder, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 4096)
    lay_out(folder, lines=30_000)
    compress(folder)
    members = []
    really = packed.Packed._member
    monkeypatch.setattr(packed.Packed, "_member", lambda self, n: members.append((self, n)) or really(self, n))
    seen(folder, lines=50)
    assert members == []
    assert next(text for _, text, _ in seen(folder, lines=1, until=T + 5000)).startswith("line 5000 ")
    # One or two blocks of 64 KiB are looked through from behind.
    assert 0 < len(set(members)) <= 40
    assert len(members[0][0]._rows) > 120


@pytest.mark.parametrize("damage", ["cut short", "flipped", "empty", "no gzip", "bomb"])
def test_a_damaged_file_is_noted_once_and_the_rest_is_read(folder, damage):
    lay_out(folder)
    before = seen(folder, lines=None)
    compress(folder)
    path = folder / "out.log.3.gz"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 4] ^= 255
    path.write_bytes(
        {
            "cut short": bytes(data[:-100]),
            "flipped": bytes(data),
            "empty": b"",
            "no gzip": b"hello\n" * 100,
            "bomb": gzip.compress(bytes(packed.FOREIGN_MAX + 1), 1),
        }[damage]
    )
    tail = tail_of(folder, lines=None)
    (note,) = tail.notes
    assert note.startswith("a/b: out.log.3.gz cannot be read")
    texts = [line.text for line in tail.lines]
    assert texts == [text for _, text, _ in before[:600] + before[1200:]]


def test_a_damaged_index_of_a_compressed_file_costs_times_and_no_lines(folder):
    lay_out(folder)
    before = seen(folder, lines=None)
    compress(folder)
    (folder / "out.idx.3").write_bytes(random.Random(1).randbytes(5000))
    os.unlink(folder / "out.idx.2")
    assert [text for _, text, _ in seen(folder, lines=None)] == [text for _, text, _ in before]


def test_bytes_that_are_no_text_come_along_as_they_are(folder):
    lay_down(folder, [(T, b"plain\n\xff\x00\x1b[2J\n\xc3\xa9\n")])
    lines = tail_of(folder).lines
    assert [(line.text, line.raw) for line in lines] == [
        ("plain", None),
        ("\ufffd\x00\x1b[2J", "/wAbWzJK"),
        ("é", None),
    ]


def test_no_file_stays_open_and_no_memory_is_kept(folder):
    lay_out(folder)
    compress(folder)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        seen(folder, lines=None)
    assert len(os.listdir("/proc/self/fd")) == before


# --- going on from a place ------------------------------------------------------------------------------------


def follow(folder, position, number):
    """So many lines from a position on, and what the follower has to tell."""

    async def main():
        async with asyncio.timeout(LIMIT_S):
            follower = Follower("a/b", str(folder), position)
            entries = []
            more = False
            notes = []
            while len(entries) < number:
                entries += await follower.read()
                more |= follower.more
                notes += follower.notes
                follower.more, follower.missed, follower.notes = False, 0, []
            follower.close()
            return entries, more, notes

    return asyncio.run(main())


def texts(entries):
    return [entry.line.text.split(".")[0].strip() for entry in entries]


def test_each_line_tells_where_to_go_on_also_after_rotations_and_compression(folder):
    out = Printer(folder, max_bytes=2000, keep=1000)
    expected = [f"line {i}" for i in range(600)]
    out.print("".join(f"{line} {'.' * (i % 50)}\n" for i, line in enumerate(expected)).encode())
    entries, _, _ = follow(folder, {}, 600)
    assert texts(entries) == expected
    assert compress(folder) > 3
    out.close()
    for at in (0, 100, 333, 598):
        later, more, _ = follow(folder, {"stdout": entries[at].next}, 599 - at)
        assert (texts(later), more) == (expected[at + 1 :], False)


def test_a_place_in_a_file_that_is_gone_goes_on_with_the_oldest_and_says_so(folder):
    lay_out(folder)
    entries, _, _ = follow(folder, {}, 3000)
    place = entries[100].next
    os.unlink(folder / "out.log.4")
    later, more, _ = follow(folder, {"stdout": place}, 2400)
    assert texts(later)[0] == "line 600"
    assert more


def test_an_inode_that_is_used_again_is_not_taken_for_the_file_that_had_it(folder):
    lay_out(folder)
    entries, _, _ = follow(folder, {}, 3000)
    old = entries[100].next
    assert old.began == T
    compress(folder)
    fd = os.open(folder, os.O_RDONLY)
    try:
        assert find(fd, "out.log", old.inode, old.began) == (4, "out.log.4.gz")
        # The current file has taken over the inode of the one that was compressed.
        reborn = Place((folder / "out.log").stat().st_ino, 10, old.began)
        assert find(fd, "out.log", reborn.inode, reborn.began) is None
        assert find(fd, "out.log", reborn.inode, T + 2400) == (0, "out.log")
    finally:
        os.close(fd)
    later, more, _ = follow(folder, {"stdout": reborn}, 10)
    assert (texts(later)[0], more) == ("line 0", True)


def test_a_damaged_file_on_the_way_is_told_and_passed(folder):
    lay_out(folder)
    entries, _, _ = follow(folder, {}, 3000)
    compress(folder)
    (folder / "out.log.3.gz").write_bytes(b"rubbish")
    later, _, notes = follow(folder, {"stdout": entries[100].next}, 499 + 1800)
    assert texts(later) == [f"line {i}" for i in (*range(101, 600), *range(1200, 3000))]
    assert len(notes) == 1
    assert "out.log.3.gz cannot be read" in notes[0]


def test_a_file_that_somebody_has_emptied_is_followed_from_its_beginning(folder):
    (folder / "out.log").write_bytes(b"one\ntwo\n")

    async def main():
        async with asyncio.timeout(LIMIT_S):
            follower = Follower("a/b", str(folder), {})
            first = await follower.read()
            os.truncate(folder / "out.log", 0)
            (folder / "out.log").write_bytes(b"new\n")
            second = await follower.read()
            follower.close()
            return first, second

    assert [texts(entries) for entries in asyncio.run(main())] == [["one", "two"], ["new"]]


def test_the_rest_of_a_line_that_was_cut_does_not_come_after_a_restart(folder):
    (folder / "out.log").write_bytes(b"x" * 300_000)
    entries, _, _ = follow(folder, {}, 1)
    assert entries[0].next.inside
    with open(folder / "out.log", "ab") as file:
        file.write(b"xxx\nnext\n")
    later, _, _ = follow(folder, {"stdout": entries[0].next}, 1)
    assert texts(later) == ["next"]
