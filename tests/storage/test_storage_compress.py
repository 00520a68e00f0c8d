"""Compressing rotated logs: complete and readable at any instant, whatever is in the way."""

import fcntl
import gzip
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from printing import lay_down

from botd.storage import compress, logsizes, packed
from botd.storage.compress import compress_folder
from botd.storage.compressor import _COMMAND
from botd.storage.logs import Query, read

T = 1_700_000_000.0
WITHIN_S = 30


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "logs" / "a" / "b"
    for number in range(5):
        suffix = f".{number}" if number else ""
        lay_down(
            path, [(T - 100 * number + i, b"%d %d %s\n" % (number, i, b"x" * 90)) for i in range(50)], suffix=suffix
        )
        os.utime(path / f"out.log{suffix}", (T - 100 * number, T - 100 * number + 50))
    return path


def run(folder, abandoned=lambda: False):
    return compress_folder(str(folder.parents[2]), ("logs", "a", "b"), abandoned)


def texts(folder):
    tail = read({"a/b": str(folder)}, Query(lines=None))
    assert tail.notes == []
    return [(line.at, line.text) for line in tail.lines]


def logs(folder):
    return sorted(name for name in os.listdir(folder) if ".log" in name)


PACKED = ["out.log", "out.log.1", "out.log.2.gz", "out.log.3.gz", "out.log.4.gz"]


def test_all_but_the_newest_rotated_file_are_compressed_and_read_as_before(folder):
    before = texts(folder)
    plain = (folder / "out.log.3").read_bytes()
    inode = (folder / "out.log.3").stat().st_ino
    done = run(folder)
    assert (done["files"], done["busy"], done["problems"]) == (3, False, [])
    assert done["after"] < done["before"]
    assert logs(folder) == PACKED
    assert texts(folder) == before
    assert gzip.decompress((folder / "out.log.3.gz").read_bytes()) == plain
    st = (folder / "out.log.3.gz").stat()
    assert (st.st_mtime, st.st_mode & 0o777) == (T - 250, 0o600)
    with open(folder / "out.log.3.gz", "rb") as file:
        assert packed.inode_of_plain(file.fileno()) == inode
    assert run(folder)["files"] == 0


def test_nothing_is_lost_wherever_it_dies(folder):
    """Every system call of it that changes something is its last one, once before and once after it is made."""
    before = texts(folder)
    deaths = 0
    for step in range(1000):
        for name in (".2", ".3"):
            if (folder / f"out.log{name}.gz").exists() and step:
                # What is packed already is plain again for the next death.
                data = gzip.decompress((folder / f"out.log{name}.gz").read_bytes())
                (folder / f"out.log{name}").write_bytes(data)
                os.unlink(folder / f"out.log{name}.gz")
        if not _dies_at(folder, step):
            break
        deaths += 1
        assert texts(folder) == before
    assert deaths > 30
    assert logs(folder) == PACKED
    assert texts(folder) == before


def _dies_at(folder, step):
    pid = os.fork()
    if pid == 0:
        left = step

        def deadly(call):
            def wrapped(*args, **options):
                nonlocal left
                for when in ("before", "after"):
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1
                    if when == "before":
                        result = call(*args, **options)
                return result

            return wrapped

        try:
            for name in ("write", "rename", "unlink", "fsync", "utime"):
                setattr(os, name, deadly(getattr(os, name)))
            run(folder)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_rotation_meanwhile_moves_the_numbers(folder, monkeypatch):
    before = texts(folder)
    rotated = []
    really = os.fsync

    def fsync(fd):
        if not rotated:
            rotated.append(True)
            for number in range(4, -1, -1):
                for kind in ("log", "idx"):
                    old = f"out.{kind}.{number}" if number else f"out.{kind}"
                    os.rename(folder / old, folder / f"out.{kind}.{number + 1}")
            (folder / "out.log").touch()
        really(fd)

    monkeypatch.setattr(compress.os, "fsync", fsync)
    done = run(folder)
    assert done["files"] == 4
    assert logs(folder) == ["out.log", "out.log.1", *(f"out.log.{n}.gz" for n in range(2, 6))]
    assert texts(folder) == before


def test_a_file_that_is_removed_meanwhile_is_given_up(folder, monkeypatch):
    really = packed.pack_member
    monkeypatch.setattr(
        packed, "pack_member", lambda data: (folder / "out.log.2").unlink(missing_ok=True) or really(data)
    )
    assert run(folder)["files"] == 2
    assert logs(folder) == ["out.log", "out.log.1", "out.log.3.gz", "out.log.4.gz"]


@pytest.mark.parametrize("why", ["locked", "in mid-rotation"])
def test_a_folder_in_use_is_left_for_later(folder, monkeypatch, why):
    monkeypatch.setattr(logsizes, "WAIT_S", 0.05)
    names = logs(folder)
    other = os.open(folder, os.O_RDONLY)
    if why == "locked":
        fcntl.flock(other, fcntl.LOCK_EX)
    else:
        (folder / "out.log.cut-9").touch()
    done = run(folder)
    assert (done["busy"], done["files"]) == (True, 0)
    os.close(other)
    (folder / "out.log.cut-9").unlink(missing_ok=True)
    assert logs(folder) == names
    assert run(folder)["files"] == 3


def test_it_waits_for_a_lock_that_is_given_back(folder):
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, os.close, [other])
    timer.start()
    assert run(folder)["files"] == 3
    timer.join()


def test_where_both_stand_the_packed_one_counts(folder):
    before = texts(folder)
    data = (folder / "out.log.2").read_bytes()
    run(folder)
    (folder / "out.log.2").write_bytes(data[: len(data) // 2])
    assert texts(folder) == before
    assert run(folder)["files"] == 0
    assert logs(folder) == PACKED


def test_a_full_disk_leaves_the_file_plain_and_says_so(folder, monkeypatch):
    def no_room(fd, data):
        raise OSError(28, "No space left on device")

    names = logs(folder)
    monkeypatch.setattr(compress, "_write", no_room)
    done = run(folder)
    assert done["problems"] == ["logs/a/b: No space left on device"]
    assert logs(folder) == names


def test_what_was_planted_is_neither_read_nor_written_through(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    os.unlink(folder / "out.log.2")
    os.symlink(secret, folder / "out.log.2")
    os.link(secret, folder / "out.log.gz.tmp")
    os.mkfifo(folder / "err.log.2")
    os.symlink(secret, folder / "err.log.gz.tmp")
    done = run(folder)
    assert secret.read_text() == "secret\n"
    assert done["files"] == 2
    assert not (folder / "out.log.2.gz").exists()
    assert not (folder / "err.log.2.gz").exists()


def test_a_folder_that_is_missing_or_a_link_is_passed_over(folder, tmp_path):
    assert compress_folder(str(tmp_path), ("logs", "a", "none"), lambda: False)["problems"] == []
    os.symlink(folder, folder.parent / "link")
    names = logs(folder)
    assert compress_folder(str(tmp_path), ("logs", "a", "link"), lambda: False)["files"] == 0
    assert logs(folder) == names


def test_two_at_once_do_not_disturb_each_other(folder):
    held = os.open(folder / "out.log.gz.tmp", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    names = logs(folder)
    assert run(folder)["files"] == 0
    assert logs(folder) == names
    os.close(held)
    assert run(folder)["files"] == 3
    assert logs(folder) == PACKED


def test_the_child_is_of_the_lowest_priority_and_ends_with_its_parent(folder):
    with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        request = {"home": str(folder.parents[2]), "parts": ["logs", "a", "b"]}
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["files"] == 3
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == 19
        child.stdin.close()
        assert child.wait(WITHIN_S) == 0
    assert logs(folder) == PACKED


def test_the_end_of_botd_interrupts_it(folder):
    reading, writing = os.pipe()
    asked = []

    def abandoned():
        asked.append(True)
        if len(asked) == 2:
            os.close(reading)
        poll = select.poll()
        poll.register(writing, 0)
        return bool(poll.poll(0))

    done = run(folder, abandoned)
    os.close(writing)
    assert done["files"] == 1
    assert logs(folder) == ["out.log", "out.log.1", "out.log.2.gz", "out.log.3", "out.log.4"]


def test_botd_imports_nothing_of_the_child_at_its_start():
    code = "import sys, botd.storage.compressor; sys.exit('botd.storage.compress' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# --- sizes and removal --------------------------------------------------------------------------------------


def home_of(folder):
    return os.open(folder.parents[2], os.O_RDONLY)


def test_sizes_are_those_of_the_disk_and_all_of_it(folder):
    run(folder)
    (folder / "out.log.2").write_bytes(b"left by a crash")
    home = home_of(folder)
    files = logsizes.look(home, "a/b")
    os.close(home)
    on_disk = sum((folder / name).stat().st_blocks * 512 for name in os.listdir(folder))
    assert sum(file.bytes for file in files) == on_disk
    assert sorted((file.stream, file.number, file.packed) for file in files) == [
        ("", 0, False),
        ("out", 1, False),
        *(("out", number, True) for number in (2, 3, 4)),
    ]


def test_removing_takes_the_index_along_and_only_what_was_meant(folder):
    run(folder)
    home = home_of(folder)
    files = {file.number: file for file in logsizes.look(home, "a/b")}
    os.rename(folder / "out.log.3.gz", folder / "out.log.4.gz")
    assert logsizes.remove(home, "a/b", [files[4], files[0]]) == []
    files = {file.number: file for file in logsizes.look(home, "a/b")}
    assert logsizes.remove(home, "a/b", [files[4]]) == [files[4]]
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(logsizes.Busy):
        logsizes.remove(home, "a/b", [files[2]])
    os.close(other)
    os.close(home)
    assert logs(folder) == ["out.log", "out.log.1", "out.log.2.gz"]
    assert sorted(name for name in os.listdir(folder) if "idx" in name) == [
        "out.idx",
        "out.idx.1",
        "out.idx.2",
        "out.idx.3",
    ]
