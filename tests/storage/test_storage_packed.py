"""Compressed log files: any part of them, by any tool, and none of what somebody planted in their place."""

import gzip
import os
import random
import subprocess
import tracemalloc
import zlib

import pytest

from botd.storage import packed
from botd.storage.packed import CHUNK, Packed, Unreadable, inode_of_plain, pack_member, trailer


def write(path, plain, inode=77):
    rows = []
    with open(path, "wb") as file:
        for at in range(0, len(plain), CHUNK):
            member = pack_member(plain[at : at + CHUNK])
            rows.append((len(member), len(plain[at : at + CHUNK])))
            file.write(member)
        file.write(trailer(rows, inode))


@pytest.fixture
def opened(tmp_path):
    fds = []

    def open_(data=None):
        path = tmp_path / "x.gz"
        if data is not None:
            path.write_bytes(data)
        fds.append(os.open(path, os.O_RDONLY))
        return Packed(fds[-1])

    yield open_
    for fd in fds:
        os.close(fd)


def noise(size, seed=1):
    chance = random.Random(seed)
    return b"".join(b"%d %s\n" % (i, chance.randbytes(chance.randrange(40)).hex().encode()) for i in range(size // 45))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_any_part_of_it_is_as_in_the_plain_file(tmp_path, opened, size):
    plain = noise(4 * CHUNK)[:size]
    assert len(plain) == size
    write(tmp_path / "x.gz", plain)
    file = opened()
    assert (file.size, file.inode, file.ours) == (size, 77, True)
    chance = random.Random(size)
    for _ in range(200):
        offset, length = chance.randrange(size + 10), chance.choice([0, 1, 100, 70_000, CHUNK, 2 * CHUNK])
        assert file.read(length, offset) == plain[offset : offset + length]


def test_other_tools_read_it(tmp_path):
    plain = noise(2 * CHUNK)
    write(tmp_path / "x.gz", plain)
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == plain
    assert subprocess.run(["gzip", "-dc", tmp_path / "x.gz"], capture_output=True, check=True).stdout == plain


def test_the_end_is_read_without_the_rest(tmp_path, opened, monkeypatch):
    plain = noise(20 * CHUNK)
    write(tmp_path / "x.gz", plain)
    unpacked = []
    really = zlib.decompressobj
    monkeypatch.setattr(packed.zlib, "decompressobj", lambda *args: unpacked.append(1) or really(*args))
    file = opened()
    assert file.read(1000, file.size - 1000) == plain[-1000:]
    assert len(unpacked) == 1


def test_what_others_have_packed_is_read_as_far_as_it_goes(opened):
    plain = noise(300_000)
    file = opened(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    assert (file.size, file.ours, file.read(500, 900)) == (len(plain), False, plain[900:1400])
    file.release()
    assert file.read(10, 0) == plain[:10]
    assert file.inode >= 1 << 63  # nobody's


def test_a_bomb_of_somebody_else_costs_next_to_nothing(opened, monkeypatch):
    monkeypatch.setattr(packed, "FOREIGN_MAX", MIB := 1 << 20)
    bomb = gzip.compress(bytes(40 * MIB), 1)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="more than 1 MiB"):
            opened(bomb).size  # noqa: B018
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_a_bomb_with_our_table_gives_no_more_than_the_table_says(opened):
    member = pack_member(bytes(CHUNK))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(bytes(40 * CHUNK)) + packer.flush()
    file = opened(member + bomb + trailer([(len(member), CHUNK), (len(bomb), CHUNK)], 1))
    assert file.read(10, 0) == bytes(10)
    with pytest.raises(Unreadable):
        file.read(10, CHUNK)


@pytest.mark.parametrize(
    "rows",
    [
        [(10, 1 << 30)],
        [(10, 0)],
        [(0, 5)],
        [(11, 5)],
        [(1 << 31, CHUNK)],
        [(5, 5), (5, 5), (5, 5)],
        [(10, CHUNK)] * 5000,
    ],
)
def test_a_forged_table_is_refused(opened, rows):
    with pytest.raises(Unreadable, match="table"):
        opened(b"0123456789" + trailer(rows[:4000], 1)).size  # noqa: B018


def test_damage_anywhere_is_noticed_or_harmless(tmp_path, opened):
    plain = noise(CHUNK + 5000)
    write(tmp_path / "x.gz", plain)
    whole = (tmp_path / "x.gz").read_bytes()
    chance = random.Random(5)
    noticed = 0
    for _ in range(60):
        damaged = bytearray(whole)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            damaged[chance.choice([chance.randrange(len(whole)), -chance.randrange(1, 60)])] ^= 1 << chance.randrange(8)
        file = opened(bytes(damaged))
        try:
            read = file.read(file.size, 0)
            inode_of_plain(file._fd)
        except Unreadable:
            noticed += 1
        else:
            # Only what says nothing about the content: an inode, a time, a flag of the system.
            assert read == plain
    assert noticed > 40
