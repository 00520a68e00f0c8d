"""What can be saved of a database that was cut off, overwritten, lost, or whose log was damaged."""

from __future__ import annotations

import os
import random
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import state_v2
from state_bots import bot, with_secrets

from botd.core.bot import BotState
from botd.state import repair
from botd.state import templates as state_templates
from botd.state.pages import Pages
from botd.state.salvage import Salvage, salvage, write
from botd.state.store import Damaged, NewEvent, Store, StoreError, snapshot_path

COUNT = 60
PAGE = 4096


def make(path: str, count: int = COUNT) -> Store:
    store = Store.open(path)
    with store.batch(durable=True) as batch:
        for i in range(count):
            stored = bot(f"a/bot{i:02}", port=20_000 + i, source="/f.toml" if i % 2 else None)
            batch.insert_bot(with_secrets(stored, "TOKEN"), {"TOKEN": f"secret-{i}" * 50})
        batch.add_events(
            [NewEvent(f"a/bot{i % count:02}", float(i), "kind", "x" * (i * 37 % 9000)) for i in range(300)]
        )
        batch.begin_request("key", 5.0)
        batch.finish_request("key", "{}")
        batch.set_meta("word", "value")
    return store


@pytest.fixture
def closed(path: str) -> str:
    make(path).close()
    return path


def some_pages(path: str, sound: bytes) -> list[int]:
    """Where pages begin: the first, and some of each kind, the leaves of tables above all."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    every = range(0, len(sound), PAGE)
    leaves = [at for at in every[1:] if sound[at] == 0x0D]
    return [0, *chance.sample(leaves, min(len(leaves), 16)), *chance.sample(every, 8)]


def everything(path: str) -> tuple[object, ...]:
    """What a store tells of the database at `path`."""
    store = Store.open(path)
    try:
        bots = store.load()
        secrets = {one.spec.id: store.secrets(one.spec.id) for one in bots}
        return bots, secrets, store.events(limit=10_000), store.find_request("key", 0.0), store.meta("word")
    finally:
        store.close()


def repaired(path: str) -> Salvage:
    """As `daemon repair` does it."""
    saved = salvage(path)
    write(saved, f"{repair.restored_path(path)}.new")
    os.rename(f"{repair.restored_path(path)}.new", repair.restored_path(path))
    repair.take_place(path)
    return saved


def test_a_sound_database_is_saved_whole_also_from_its_log(path: str) -> None:
    store = make(path)
    with store.batch() as batch:
        batch.delete_bot("a/bot00")
        batch.save_state("a/bot01", BotState(generation=99, phase="failed", reason="é\udcff"), "boot-2")
    # Part of it is in the log only: a copy of both is what a killed botd leaves.
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{path}.copy{suffix}")
    store.close()
    saved = repaired(f"{path}.copy")
    assert not saved.lost and not saved.uncertain and not saved.from_snapshot
    assert everything(f"{path}.copy") == everything(path)
    assert "a/bot00" not in saved.bots


def test_every_page_may_be_lost_and_the_rest_is_saved(closed: str) -> None:
    sound, whole = Path(closed).read_bytes(), everything(closed)
    worst = COUNT
    for page in some_pages(closed, sound):
        Path(closed).write_bytes(sound[:page] + bytes(PAGE) + sound[page + PAGE :])
        saved = salvage(closed)
        worst = min(worst, len(saved.bots))
        for bot_id, stored in saved.bots.items():
            known = next(one for one in whole[0] if one.spec.id == bot_id)  # type: ignore[attr-defined]
            assert stored.spec == known.spec
            assert stored.state == known.state or bot_id in saved.uncertain
        told = {line.partition(":")[0] for line in saved.lost} | saved.uncertain
        for i in range(COUNT):
            assert f"a/bot{i:02}" in saved.bots or f"a/bot{i:02}" in told, f"page {page // PAGE}"
    # 60 bots are on several pages: never are all of them lost.
    assert worst > 0


def test_with_a_snapshot_no_lost_page_loses_a_bot(path: str) -> None:
    store = make(path)
    store.snapshot()
    with store.batch() as batch:
        batch.delete_bot("a/bot07")
        batch.add_event(None, 999.0, "deleted", "a/bot07 was deleted")
    store.close()
    sound = Path(path).read_bytes()
    for page in some_pages(path, sound):
        Path(path).write_bytes(sound[:page] + bytes(PAGE) + sound[page + PAGE :])
        saved = salvage(path)
        missing = {f"a/bot{i:02}" for i in range(COUNT)} - saved.bots.keys()
        assert missing <= {"a/bot07"}, f"page {page // PAGE}"
        assert not saved.lost, f"page {page // PAGE}"
        for bot_id, stored in saved.bots.items():
            values = saved.secrets[bot_id]
            assert values == {"TOKEN": f"secret-{int(bot_id[-2:])}".encode() * 50}
            assert stored.spec.secret_names == ("TOKEN",)


@pytest.mark.parametrize("keep", [0, 100, PAGE, 0.3, 0.7])
def test_a_file_that_was_cut_off(path: str, keep: float) -> None:
    store = make(path)
    store.snapshot()
    store.close()
    sound = Path(path).read_bytes()
    Path(path).write_bytes(sound[: int(len(sound) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(Damaged) as caught:
        Store.open(path)
    assert caught.value.hint == "botctl daemon repair"
    saved = repaired(path)
    assert len(saved.bots) == COUNT and not saved.lost
    bots, secrets, *_ = everything(path)
    assert len(bots) == COUNT and secrets["a/bot03"] == {"TOKEN": "secret-3" * 50}  # type: ignore


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 2000, b"SQLite format 3\0" * 600, os.urandom(30_000)])
def test_garbage_without_a_snapshot_is_an_empty_fleet_and_kept(path: str, garbage: bytes) -> None:
    Path(path).write_bytes(garbage)
    saved = repaired(path)
    assert not saved.bots
    store = Store.open(path)
    assert store.load() == []
    store.close()
    (kept,) = Path(path).parent.glob("botd.db.damaged-*")
    assert kept.read_bytes() == garbage


def test_a_broken_header_loses_nothing(closed: str) -> None:
    whole = everything(closed)
    with open(closed, "r+b") as file:
        file.write(os.urandom(100))
    saved = repaired(closed)
    assert len(saved.bots) == COUNT and not saved.lost
    assert everything(closed) == whole


def test_bits_that_flip_anywhere_never_stop_a_repair(closed: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    sound = Path(closed).read_bytes()
    for _ in range(12):
        spoilt = bytearray(sound)
        for _ in range(chance.choice((1, 10, 200))):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        Path(closed).write_bytes(spoilt)
        repaired(closed)
        store = Store.open(closed)
        assert len(store.load()) > COUNT // 4, f"seed {seed}"
        store.close()


def test_a_folder_or_nothing_in_its_place(path: str) -> None:
    store = make(path)
    store.snapshot()
    store.close()
    whole = everything(path)
    for ruin in (os.unlink, lambda p: (os.unlink(p), os.mkdir(p))):
        ruin(path)
        with pytest.raises(Damaged, match=r"it is gone|no regular file"):
            Store.open(path)
        saved = repaired(path)
        assert saved.from_snapshot == set(saved.bots) and len(saved.bots) == COUNT
        # Of a life nothing is known any more, of everything else all.
        bots, *rest = everything(path)
        assert rest == list(whole[1:])
        assert all(one.state == BotState(wanted=True) for one in bots)  # type: ignore[attr-defined]


# --- templates and what else has a table of its own ------------------------------------------------


def others(path: str) -> list[list[tuple[object, ...]]]:
    store = Store.open(path)
    try:
        return [store.rows(f"SELECT * FROM {table}") for table in ("templates", "releases", "rolls", "usage", "trash")]
    finally:
        store.close()


@pytest.fixture
def filled(path: str) -> str:
    store = Store.open(path)
    state_v2.fill(store)
    store.snapshot()
    store.close()
    return path


def test_tables_without_bots_are_saved_whole(filled: str) -> None:
    os.unlink(snapshot_path(filled))
    before = others(filled)
    assert all(len(rows) >= 1 for rows in before)
    assert not repaired(filled).lost
    assert others(filled) == before


def test_the_snapshot_brings_templates_back_but_no_old_step_of_a_roll(filled: str) -> None:
    before = others(filled)
    Path(filled).write_bytes(b"")
    repaired(filled)
    templates, releases, rolls, usage, trash = others(filled)
    assert [templates, releases, [], [], trash] == [before[0], before[1], rolls, usage, before[4]]


def test_a_template_that_was_removed_does_not_come_back(filled: str) -> None:
    store = Store.open(filled)
    with store.batch() as batch:
        state_templates.drop(batch, "messenger")
    store.close()
    saved = repaired(filled)
    assert not saved.lost
    assert others(filled)[:2] == [[], []]


@pytest.mark.parametrize(
    "row",
    [
        "INSERT INTO templates VALUES ('messenger2', 'no hash', NULL, NULL, 1.0)",
        "INSERT INTO templates VALUES ('No Name', '%s', NULL, NULL, 1.0)" % ("ab" * 32),
        "INSERT INTO releases VALUES ('t', '%s', '[]', 1, 1, 1.0)" % ("ab" * 32),
        "INSERT INTO rolls VALUES (9, 't', 'moving', '{', 1.0)",
        "INSERT INTO trash VALUES ('k', 'a/b', 'null', 1.0)",
    ],
)
def test_a_row_that_does_not_read_as_one_is_left_out(filled: str, row: str) -> None:
    before = others(filled)
    store = Store.open(filled)
    with store.batch() as batch:
        batch.run(row, ())
    store.close()
    os.unlink(snapshot_path(filled))
    repaired(filled)
    assert others(filled) == before


# --- the log --------------------------------------------------------------------------------------


def crashed(path: str, boot_id: str = "this boot") -> tuple[str, int]:
    """A database with a log of many commits, as a killed botd leaves it; how many bots it has."""
    store = make(path, 5)
    with store.batch() as batch:
        batch.set_meta("boot_id", boot_id)
    store.checkpoint()
    for i in range(20):
        with store.batch(durable=True) as batch:
            batch.insert_bot(bot(f"b/late{i:02}"), {})
    copy = f"{path}.crashed"
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    store.close()
    return copy, 25


def test_a_log_that_was_damaged_is_told_and_what_lies_beyond_is_saved(path: str) -> None:
    copy, count = crashed(path)
    log = Path(f"{copy}-wal")
    spoilt = bytearray(log.read_bytes())
    # In the page of the third frame; SQLite would silently forget it with all that follow.
    spoilt[32 + 2 * (24 + PAGE) + 24 + 4000] ^= 0x10
    log.write_bytes(spoilt)
    with pytest.raises(Damaged, match="its log is broken after page 0 of"):
        Store.open(copy, "this boot")
    assert log.read_bytes() == bytes(spoilt)
    saved = repaired(copy)
    assert len(saved.bots) == count


def test_a_log_without_its_header_is_told_and_saved(path: str) -> None:
    copy, count = crashed(path)
    log = Path(f"{copy}-wal")
    log.write_bytes(os.urandom(32) + log.read_bytes()[32:])
    with pytest.raises(Damaged, match="its log is broken after page 0 of"):
        Store.open(copy, "this boot")
    assert len(repaired(copy).bots) == count


@pytest.mark.parametrize("boot_id", ["another boot", ""])
def test_holes_in_a_log_of_another_boot_are_what_a_power_cut_leaves(path: str, boot_id: str) -> None:
    copy, count = crashed(path)
    log = Path(f"{copy}-wal")
    spoilt = bytearray(log.read_bytes())
    spoilt[-2 * (24 + PAGE) : -(24 + PAGE)] = bytes(24 + PAGE)
    log.write_bytes(spoilt)
    store = Store.open(copy, boot_id)
    assert 5 < len(store.load()) <= count
    store.close()


@pytest.mark.parametrize("cut", [1, 24, 2000, 24 + PAGE, 3 * (24 + PAGE) + 100])
def test_a_log_that_ends_early_is_an_ordinary_crash(path: str, cut: int) -> None:
    copy, _ = crashed(path)
    log = Path(f"{copy}-wal")
    log.write_bytes(log.read_bytes()[:-cut])
    Store.open(copy, "this boot").close()


def test_frames_of_an_earlier_life_of_the_log_are_no_rows(path: str) -> None:
    copy, _ = crashed(path)
    log = Path(f"{copy}-wal")
    spoilt = bytearray(log.read_bytes())
    # The log began anew: its header has other salts than every frame in it.
    spoilt[16:24] = bytes(8)
    spoilt[24:32] = struct.pack(">2I", *_sum(bytes(spoilt[:24])))
    log.write_bytes(spoilt)
    assert len(list(salvage(copy).bots)) == 5
    assert Pages(copy).page(1)


def _sum(data: bytes) -> tuple[int, int]:
    a = b = 0
    for x, y in struct.iter_unpack("<2I", data):
        a = (a + x + b) & 0xFFFFFFFF
        b = (b + y + a) & 0xFFFFFFFF
    return a, b


# --- taking the place -----------------------------------------------------------------------------


class Killed(BaseException):
    pass


def test_a_repair_may_be_killed_between_any_two_steps(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename
    for steps in range(4):
        for old in Path(path).parent.iterdir():
            old.unlink()
        copy, count = crashed(path)
        saved = salvage(copy)
        write(saved, f"{repair.restored_path(copy)}.new")
        real(f"{repair.restored_path(copy)}.new", repair.restored_path(copy))
        done = 0

        def rename(old: str, new: str, steps: int = steps) -> None:
            nonlocal done
            if done == steps:
                raise Killed
            real(old, new)
            done += 1

        monkeypatch.setattr(os, "rename", rename)
        try:
            repair.take_place(copy)
            monkeypatch.setattr(os, "rename", real)
            assert steps == done == 3
        except Killed:
            monkeypatch.setattr(os, "rename", real)
        store = Store.open(copy, "this boot")
        assert len(store.load()) == count
        store.close()
        assert not os.path.exists(repair.restored_path(copy))


# --- under an open store --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("then", ["nothing", "garbage", "folder", "moved"])
def test_what_is_taken_away_from_an_open_store_is_written_again(path: str, suffix: str, then: str) -> None:
    store = make(path)
    store.watch()
    told: list[str] = []
    store.on_rewritten = told.append
    file = f"{path}{suffix}"
    os.rename(file, f"{path}.elsewhere") if then == "moved" else os.unlink(file)
    if then == "garbage":
        Path(file).write_bytes(b"garbage")
    elif then == "folder":
        os.mkdir(file)
    with store.batch(durable=True) as batch:
        batch.insert_bot(bot("b/new"), {})
    assert len(told) == 1 and "nothing is lost" in told[0]
    assert ("replaced" if then in ("garbage", "folder") else "removed") in told[0]
    for name in ("", "-wal"):
        if os.path.exists(f"{path}{name}"):
            shutil.copyfile(f"{path}{name}", f"{path}.now{name}")
    assert len(everything(f"{path}.now")[0]) == COUNT + 1  # type: ignore[arg-type]
    store.close()
    assert len(everything(path)[0]) == COUNT + 1  # type: ignore[arg-type]


def test_a_file_that_is_cut_off_under_an_open_store_is_found_and_repaired_from_memory(path: str) -> None:
    store = make(path)
    store.checkpoint()
    store.watch()
    os.truncate(path, 5000)
    with pytest.raises(Damaged, match="it was cut off: 5000 bytes are left"), store.batch(durable=True):
        pass
    with pytest.raises(Damaged), store.batch():
        pass
    assert store.secrets("a/bot05") == {"TOKEN": "secret-5" * 50}
    saved = replace(salvage(path), bots={f"a/bot{i:02}": bot(f"a/bot{i:02}") for i in range(COUNT)}, secrets={})
    kept = store.restore(saved)
    assert kept is not None and os.path.exists(kept)
    assert store.trouble is None
    assert len(store.load()) == COUNT
    with store.batch(durable=True) as batch:
        batch.delete_bot("a/bot00")
    store.close()
    assert len(everything(path)[0]) == COUNT - 1  # type: ignore[arg-type]


def test_pages_that_rot_under_an_open_store_are_found_by_a_check(path: str) -> None:
    store = make(path)
    store.checkpoint()
    with open(path, "r+b") as file:
        file.seek(5 * PAGE)
        file.write(os.urandom(PAGE))
    with pytest.raises(Damaged):
        store.check()
    assert isinstance(store.trouble, Damaged)
    with pytest.raises(Damaged):
        store.batch()
    store.close()


def test_a_store_that_stands_in_can_be_read_and_not_written(closed: str) -> None:
    trouble = StoreError(closed, "the disk is full", "free some", passes=True)
    store = Store.stand_in(closed, salvage(closed), trouble)
    assert len(store.load()) == COUNT and store.secrets("a/bot01") and store.events()
    with pytest.raises(StoreError, match="the disk is full"):
        store.batch()
    store.reopen("")
    with store.batch(durable=True) as batch:
        batch.delete_bot("a/bot00")
    store.close()


def test_a_log_gives_its_space_back(path: str) -> None:
    store = make(path)
    assert os.path.getsize(f"{path}-wal") > 100_000
    assert store.make_room()
    assert os.path.getsize(f"{path}-wal") == 0
    assert not store.make_room()
    store.close()


def test_deleted_rows_are_not_raised_from_the_dead(path: str) -> None:
    store = make(path)
    with store.batch() as batch:
        for i in range(0, COUNT, 2):
            batch.delete_bot(f"a/bot{i:02}")
    store.checkpoint()
    saved = salvage(path)
    assert len(saved.bots) == COUNT // 2
    assert len(saved.secrets) == COUNT // 2
    store.close()


def test_the_snapshot_is_due_when_the_fleet_changed(path: str) -> None:
    store = make(path)
    assert store.snapshot_due
    store.snapshot()
    assert not store.snapshot_due
    with store.batch() as batch:
        batch.set_wanted("a/bot00", False)
    assert not store.snapshot_due
    with store.batch() as batch:
        batch.delete_bot("a/bot00")
    assert store.snapshot_due
    store.close()
    assert os.path.exists(snapshot_path(path))
