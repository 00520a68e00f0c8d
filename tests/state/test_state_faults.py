"""kill -9, a full disk, a read-only folder, files that are no database or no longer a whole one."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_bots import RUNNING, bot
from state_writer import IDS

from botd.contract.errors import BotdError
from botd.state.store import Damaged, NewEvent, Store, StoreError, snapshot_path

WRITER = str(Path(__file__).with_name("state_writer.py"))


def fill(store: Store, *ids: str) -> None:
    with store.batch(durable=True) as batch:
        for bot_id in ids:
            batch.insert_bot(bot(bot_id), {})


def whole_batches(store: Store) -> int:
    """The number of the last batch, after a check that every batch up to it is there in full and no other."""
    (generation,) = {stored.state.generation for stored in store.load()}
    lines = Counter(event.generation for event in store.events(limit=1_000_000))
    assert lines == dict.fromkeys(range(1, generation + 1), 2)
    return generation


def in_a_child(work: Callable[[], str]) -> str:
    """What `work` returns in a process of its own, with uid 65534 when we are root (root may write anywhere)."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            answer = work()
        except BaseException as error:  # noqa: BLE001  # everything is told to the parent
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(theirs, answer.encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    return answer


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except BotdError as error:
        return f"{error.kind} {type(error).__name__} {error.message} | {error.hint}"
    return "no error"


# --- kill -9 --------------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_kill_9_and_every_batch_is_whole(path: str) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    store = Store.open(path)
    fill(store, *IDS)
    with store.batch() as batch:
        batch.save_states([(bot_id, RUNNING.__class__(generation=0)) for bot_id in IDS], "boot")
    store.close()
    last = 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, WRITER, path, str(last + 1)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        try:
            for _ in range(chance.randrange(1, 120)):
                writer.stdout.readline()
        finally:
            writer.send_signal(signal.SIGKILL)
            said = writer.stdout.read()
            writer.stdout.close()
            writer.wait()
        store = Store.open(path)
        reached = whole_batches(store)
        store.close()
        acknowledged = int(said.split()[-1]) if said.split() else last + 1
        assert acknowledged <= reached, f"seed {seed}"
        last = reached
    assert last > 8


def test_of_a_batch_that_was_cut_off_nothing_is_there(path: str) -> None:
    store = Store.open(path)
    fill(store, *IDS)
    store.close()
    done = subprocess.run([sys.executable, WRITER, path, "1", "6"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["1", "2", "3", "4", "5"]
    store = Store.open(path)
    assert whole_batches(store) == 5
    store.close()


def test_a_creation_that_was_cut_off_is_begun_again(path: str) -> None:
    Path(f"{path}.new").write_bytes(b"half of a database")
    Path(f"{path}.new-journal").write_bytes(b"half of a journal")
    store = Store.open(path)
    fill(store, "a/a")
    store.close()
    assert os.listdir(os.path.dirname(path)) == ["botd.db"]


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(folder: str) -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    mounted = f"{folder}/disk"
    os.mkdir(mounted)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield mounted
    subprocess.run(["umount", "-l", mounted], check=True)


def take_all_space(disk: str) -> str:
    ballast = f"{disk}/ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (65536, 4096):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    return ballast


def write_a_lot(store: Store) -> None:
    with store.batch(durable=True) as batch:
        batch.insert_bot(bot("b/late"), {})
        batch.add_events([NewEvent("b/late", 1.0, "kind", "x" * 500) for _ in range(2000)])


@pytest.mark.root
def test_a_full_disk_refuses_the_batch_and_harms_nothing(small_disk: str) -> None:
    store = Store.open(f"{small_disk}/botd.db")
    fill(store, "a/a")
    store.snapshot()
    good = Path(snapshot_path(store.path)).read_bytes()
    ballast = take_all_space(small_disk)
    for attempt in (write_a_lot, Store.snapshot):
        with pytest.raises(StoreError, match="the disk is full") as caught:
            attempt(store)
        assert caught.value.kind == "unavailable" and "free some space" in caught.value.hint
    assert [one.spec.id for one in store.load()] == ["a/a"]
    assert Path(snapshot_path(store.path)).read_bytes() == good
    store.close()
    store = Store.open(f"{small_disk}/botd.db")
    assert [one.spec.id for one in store.load()] == ["a/a"]
    os.unlink(ballast)
    fill(store, "b/b")
    store.close()
    store = Store.open(f"{small_disk}/botd.db")
    assert [one.spec.id for one in store.load()] == ["a/a", "b/b"]
    store.close()


@pytest.mark.root
def test_on_a_full_disk_no_half_of_a_database_is_begun(small_disk: str) -> None:
    take_all_space(small_disk)
    with pytest.raises(StoreError, match="the disk is full"):
        Store.open(f"{small_disk}/botd.db")
    assert os.listdir(small_disk) == ["ballast"]


@pytest.mark.root
def test_damage_is_found_on_a_full_disk_as_well(small_disk: str, sound: bytes) -> None:
    path = f"{small_disk}/botd.db"
    Path(path).write_bytes(sound[: 4096 * 3] + bytes(4096) + sound[4096 * 4 :])
    take_all_space(small_disk)
    with pytest.raises(Damaged):
        Store.open(path)


def test_a_file_size_limit_refuses_the_batch_and_harms_nothing(folder: str, path: str) -> None:
    os.chmod(folder, 0o777)

    def work() -> str:
        store = Store.open(path)
        fill(store, "a/a")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        said = refusal(lambda: write_a_lot(store))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        fill(store, "b/b")
        said += f" {[one.spec.id for one in store.load()]}"
        store.close()
        return said

    said = in_a_child(work)
    assert said.startswith("unavailable StoreError") and "refuses to read or write it" in said
    assert "ulimit -f" in said and said.endswith("['a/a', 'b/b']")


# --- permissions ----------------------------------------------------------------------------------


def test_a_folder_that_may_not_be_written(folder: str, path: str) -> None:
    os.chmod(folder, 0o555)
    said = in_a_child(lambda: refusal(lambda: Store.open(path)))
    os.chmod(folder, 0o755)
    assert said.startswith(f"unavailable StoreError the database {path}: cannot be written (Permission denied)")
    assert "owner and mode" in said
    assert os.listdir(folder) == []


def test_a_database_that_may_not_be_written(folder: str, path: str) -> None:
    store = Store.open(path)
    fill(store, "a/a")
    store.close()
    before = Path(path).read_bytes()
    for file_mode, folder_mode in ((0o400, 0o755), (0o600, 0o555), (0o000, 0o755)):
        os.chmod(path, file_mode)
        os.chown(path, 65534 if os.geteuid() == 0 else -1, -1)
        os.chmod(folder, folder_mode)
        said = in_a_child(lambda: refusal(lambda: Store.open(path)))
        os.chmod(folder, 0o755)
        assert said.startswith("unavailable StoreError"), said
        assert "cannot be" in said and "owner and mode" in said, said
    os.chmod(path, 0o600)
    assert Path(path).read_bytes() == before


@pytest.mark.root
def test_a_disk_that_is_read_only(small_disk: str) -> None:
    path = f"{small_disk}/botd.db"
    store = Store.open(path)
    fill(store, "a/a")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("botd.db", "new.db"):
        said = refusal(lambda name=name: Store.open(f"{small_disk}/{name}"))
        assert said.startswith("unavailable StoreError") and "whether the disk is read-only" in said, said


def test_a_folder_that_is_not_there(folder: str) -> None:
    with pytest.raises(StoreError, match="its folder does not exist") as caught:
        Store.open(f"{folder}/no such/botd.db")
    assert caught.value.hint == f"create it: mkdir -p '{folder}/no such'"


def test_a_folder_in_place_of_the_file(path: str) -> None:
    os.mkdir(path)
    with pytest.raises(StoreError, match="is no regular file"):
        Store.open(path)


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def sound(path: str) -> bytes:
    store = Store.open(path)
    fill(store, *(f"a/bot{i}" for i in range(60)))
    with store.batch() as batch:
        batch.add_events([NewEvent(f"a/bot{i % 60}", 1.0, "kind", f"line {i}") for i in range(600)])
    store.close()
    return Path(path).read_bytes()


@pytest.mark.parametrize("content", [b"", b"x", b"garbage\n" * 1000, os.urandom(20_000), b"SQLite format 3\x00" * 512])
def test_what_is_no_database_is_damaged_and_left_alone_with_its_log(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    Path(f"{path}-wal").write_bytes(b"its log")
    with pytest.raises(Damaged, match="is damaged: ") as caught:
        Store.open(path)
    assert Path(f"{path}-wal").read_bytes() == b"its log"
    assert caught.value.detail and caught.value.path == path
    assert caught.value.kind == "unavailable"
    assert Path(path).read_bytes() == content


@pytest.mark.parametrize("keep", [1, 100, 512, 4096, 3 * 4096 + 100, 0.5, -4096])
def test_a_cut_off_database_is_damaged_and_left_alone(path: str, sound: bytes, keep: float) -> None:
    cut = sound[: int(len(sound) * keep) if isinstance(keep, float) else keep]
    Path(path).write_bytes(cut)
    with pytest.raises(Damaged):
        Store.open(path)
    assert Path(path).read_bytes() == cut


@pytest.mark.parametrize("spoil", [bytes(4096), b"\xff" * 4096])
def test_no_page_can_be_lost_unnoticed(path: str, sound: bytes, spoil: bytes) -> None:
    for page in range(0, len(sound), 4096):
        Path(path).write_bytes(sound[:page] + spoil + sound[page + 4096 :])
        with pytest.raises(Damaged):
            Store.open(path).close()


def test_bytes_changed_anywhere_are_never_an_error_without_words(path: str, sound: bytes) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(150):
        spoilt = bytearray(sound)
        at = chance.randrange(len(sound))
        spoilt[at : at + 8] = chance.randbytes(min(8, len(sound) - at))
        Path(path).write_bytes(spoilt)
        try:
            store = Store.open(path)
            try:
                store.load()
                store.events()
                write_a_lot(store)
            finally:
                store.close()
        except BotdError as error:
            assert error.hint, f"seed {seed}"


def test_a_record_that_cannot_be_read_is_damage_with_a_name(path: str) -> None:
    store = Store.open(path)
    fill(store, "a/fine", "b/spoilt")
    store._connection.execute("UPDATE observed SET state = '{\"pid\":' WHERE id = 'b/spoilt'")
    with pytest.raises(Damaged, match="the record of b/spoilt cannot be read"):
        store.load()
    store.close()


def test_a_text_that_is_no_text_any_more_is_damage_and_not_quoted(path: str) -> None:
    store = Store.open(path)
    fill(store, "a/fine", "b/spoilt")
    # The column holds `private` and a byte that UTF-8 does not know.
    store._connection.execute("UPDATE desired SET spec = CAST(x'70726976617465ff' AS TEXT) WHERE id = 'b/spoilt'")
    with pytest.raises(Damaged, match="not UTF-8") as caught:
        store.load()
    assert "private" not in repr(caught.value.to_rpc())
    store.close()


def test_a_damaged_database_never_replaces_a_good_snapshot(path: str, sound: bytes) -> None:
    store = Store.open(path)
    good = Path(store.snapshot()).read_bytes()
    with open(path, "r+b") as file:
        file.seek(4096 * 3)
        file.write(bytes(4096))
    store._connection.execute("PRAGMA shrink_memory")  # else the copy is made from sound pages in memory
    with pytest.raises(Damaged) as caught:
        store.snapshot()
    assert caught.value.path == path
    store.close()
    assert Path(snapshot_path(path)).read_bytes() == good
    assert not os.path.exists(f"{snapshot_path(path)}.new")
