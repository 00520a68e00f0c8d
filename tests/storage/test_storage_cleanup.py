"""Clean-up removes what nobody needs, and nothing else: each rule with what it must leave alone beside it."""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.settings import Cleaning
from botd.storage import cleanup, folders

CLEANING = Cleaning(max_file_age_s=3600.0)
LATER = 7200.0
"""Seconds from now at which everything that is made here is older than maxFileAge."""


@pytest.fixture
def paths():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    paths = Paths(home)
    folders.prepare_home(paths)
    yield paths
    subprocess.run(["rm", "-rf", home], check=True)


def plan(paths, known=(), live=(), later=LATER, cleaning=CLEANING, **more):
    return cleanup.plan(paths, frozenset(known), frozenset(live), time.time() + later, cleaning, **more)


def clean(paths, known=(), **more):
    """Plan and apply; path -> what was done."""
    known = frozenset(known)
    return {v["path"]: v["action"] for v in cleanup.apply(paths, plan(paths, known, **more), known.__contains__)}


def everything(home):
    return sorted(
        (os.path.relpath(f"{at}/{name}", home), os.lstat(f"{at}/{name}").st_mtime_ns)
        for at, ds, fs in os.walk(home)
        for name in (*ds, *fs)
    )


def touch(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def bound(path, kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    return sock


@pytest.fixture
def littered(paths):
    """One of everything that could go."""
    for kind, name in ((socket.SOCK_STREAM, "old.sock"), (socket.SOCK_SEQPACKET, "older.sock")):
        bound(f"{paths.run}/{name}", kind).close()
    touch(f"{paths.run}/half.tmp", b"x")
    touch(f"{paths.run}/keeper.journal.new", b"x")
    touch(f"{paths.locks}/alice+gone.lock")
    folders.prepare(paths, "alice/gone")
    touch(f"{paths.bot_data('alice/gone')}/state", b"x" * 10_000)
    touch(f"{paths.bot_logs('alice/gone')}/out.log", b"x" * 10_000)
    os.makedirs(f"{paths.home}/trash/alice+old.123/0/deep")
    touch(f"{paths.home}/trash/stray")
    return paths


LITTER = {
    "run/old.sock": "socket",
    "run/older.sock": "socket",
    "run/half.tmp": "run file",
    "run/keeper.journal.new": "run file",
    "locks/alice+gone.lock": "lock",
    "bots/alice/gone": "bot folder",
    "logs/alice/gone": "log folder",
    "trash/alice+old.123": "trash",
    "trash/stray": "trash",
}


def test_everything_that_nobody_needs_is_found_with_its_reason(littered):
    items = plan(littered)
    assert {item.path: item.kind for item in items} == LITTER
    assert all(item.remove and item.reason for item in items)
    by_path = {item.path: item for item in items}
    assert {path for path, item in by_path.items() if item.data} == {"bots/alice/gone"}
    assert by_path["bots/alice/gone"].bytes >= 10_000
    assert {item.id for item in items} == {"alice/gone", None}
    assert by_path["logs/alice/gone"].id == "alice/gone"


def test_a_plan_changes_nothing(littered):
    before = everything(littered.home)
    assert plan(littered) == plan(littered)[:]
    assert everything(littered.home) == before


def test_applied_it_is_gone_and_what_was_given_back_is_told(littered):
    done = cleanup.apply(littered, plan(littered), lambda id: False)
    assert {view["path"]: view["action"] for view in done} == dict.fromkeys(LITTER, "removed")
    assert sum(view["bytes"] for view in done) >= 20_000
    assert [path for path, _ in everything(littered.home)] == ["bots", "locks", "logs", "run", "trash"]
    assert plan(littered) == []


def test_a_bot_that_exists_loses_nothing_stopped_or_not(paths):
    folders.prepare(paths, "alice/shop")
    touch(f"{paths.bot_data('alice/shop')}/state")
    touch(f"{paths.bot_logs('alice/shop')}/out.log.3")
    touch(f"{paths.locks}/alice+shop.lock")
    assert plan(paths, ["alice/shop"]) == []
    # Still known to the keeper only: it is being deleted while it runs.
    assert plan(paths, [], ["alice/shop"]) == []


def test_an_orphan_is_kept_until_nothing_in_it_has_changed_for_the_whole_time(paths):
    folders.prepare(paths, "alice/gone")
    os.makedirs(f"{paths.bot_data('alice/gone')}/deep/deeper")
    for item in plan(paths, later=0.0):
        assert not item.remove
        assert "kept until 1 h have passed" in item.reason
        assert item.action == "keep"
    # An old mtime alone proves nothing: a backup that was restored just now has that too.
    for at, _, _ in os.walk(paths.bots):
        os.utime(at, (1, 1))
    assert not any(item.remove for item in plan(paths, later=0.0))
    assert clean(paths, later=0.0) == {"bots/alice/gone": "kept", "logs/alice/gone": "kept"}
    touch(f"{paths.bot_data('alice/gone')}/deep/deeper/file")
    fresh = time.time() + LATER
    os.utime(f"{paths.bot_data('alice/gone')}/deep/deeper/file", (fresh, fresh))
    removals = {item.path: item.remove for item in plan(paths)}
    assert removals == {"bots/alice/gone": False, "logs/alice/gone": True}


def test_with_garbage_collection_off_orphans_stay(paths):
    folders.prepare(paths, "alice/gone")
    items = plan(paths, cleaning=Cleaning(garbage_collection=False, max_file_age_s=3600))
    assert len(items) == 2
    assert not any(item.remove for item in items)
    assert all("enableGarbageCollection is off" in item.reason for item in items)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_socket_that_somebody_has_bound_stays_and_nobody_is_disturbed(paths, kind):
    sock = bound(f"{paths.run}/live.sock", kind)
    try:
        if kind != socket.SOCK_DGRAM:
            sock.listen(1)
        sock.setblocking(False)
        assert plan(paths) == []
        with pytest.raises(BlockingIOError):
            sock.accept() if kind != socket.SOCK_DGRAM else sock.recv(1)
    finally:
        sock.close()
    assert clean(paths) == {"run/live.sock": "removed"}


def test_the_daemons_own_files_are_never_touched(paths):
    bound(paths.socket).close()
    bound(paths.keeper_socket, socket.SOCK_SEQPACKET).close()
    for name in ("botd.lock", "botd.log", "keeper.lock", "keeper.journal", "keeper.log"):
        touch(f"{paths.run}/{name}")
    assert plan(paths) == []


def test_a_temporary_file_that_may_still_be_written_stays(paths):
    touch(f"{paths.run}/now.tmp")
    assert plan(paths, later=0.0) == []
    assert clean(paths, later=61.0) == {"run/now.tmp": "removed"}


def test_a_lock_that_is_held_stays_also_when_it_is_taken_after_the_plan(paths):
    touch(f"{paths.locks}/alice+gone.lock")
    items = plan(paths)
    with open(f"{paths.locks}/alice+gone.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [(item.remove, item.reason) for item in plan(paths)] == [(False, "a process still holds it")]
        done = cleanup.apply(paths, items, lambda id: False)
        assert (done[0]["action"], done[0]["reason"]) == ("kept", "a process holds it")
    assert os.path.exists(f"{paths.locks}/alice+gone.lock")


def test_locks_that_botd_did_not_make_stay(paths):
    for name in ("other.lock", "alice+.lock", "a+b+c.lock", "README", "alice+gone.lock.old"):
        touch(f"{paths.locks}/{name}")
    os.mkdir(f"{paths.locks}/alice+dir.lock")
    os.symlink("/etc/passwd", f"{paths.locks}/alice+link.lock")
    assert plan(paths) == []


def test_a_bot_that_was_created_after_the_plan_keeps_everything(littered):
    items = plan(littered)
    done = cleanup.apply(littered, items, lambda id: id == "alice/gone")
    kept = {view["path"] for view in done if view["action"] == "kept"}
    assert kept == {"locks/alice+gone.lock", "bots/alice/gone", "logs/alice/gone"}
    assert os.path.exists(f"{littered.bot_data('alice/gone')}/state")


def test_a_bot_that_is_created_in_the_middle_of_its_removal_gets_its_folder_back(littered):
    items = [item for item in plan(littered) if item.kind == "bot folder"]
    asked = []

    def exists(id):
        asked.append(os.path.exists(littered.bot(id)))
        return len(asked) > 1

    done = cleanup.apply(littered, items, exists)
    assert asked == [True, False]
    assert done[0]["action"] == "kept"
    assert os.path.exists(f"{littered.bot_data('alice/gone')}/state")


def test_what_was_replaced_after_the_plan_stays(littered):
    items = plan(littered)
    for item in items:
        path = f"{littered.home}/{item.path}"
        os.rename(path, path + ".moved")
        if item.kind in ("bot folder", "log folder", "trash"):
            os.makedirs(f"{path}/new")
        elif item.kind == "socket":
            bound(path).close()
        else:
            touch(path, b"new")
    done = cleanup.apply(littered, items, lambda id: False)
    assert {view["action"] for view in done} == {"kept"}
    assert all(os.path.lexists(f"{littered.home}/{path}") for path in LITTER)


def test_what_is_gone_meanwhile_is_no_failure(littered):
    items = plan(littered)
    subprocess.run(["rm", "-rf", *(f"{littered.home}/{path}" for path in LITTER)], check=True)
    done = cleanup.apply(littered, items, lambda id: False)
    assert {view["action"] for view in done} <= {"kept", "removed"}
    assert sum(view["bytes"] for view in done) == 0


@pytest.mark.parametrize("top", ["run", "locks", "bots", "logs", "trash"])
def test_a_link_in_place_of_a_folder_is_not_looked_into(littered, tmp_path, top):
    os.rename(f"{littered.home}/{top}", tmp_path / top)
    os.symlink(tmp_path / top, f"{littered.home}/{top}")
    assert not any(item.path.startswith(top) for item in plan(littered))
    items = [item for item in _planned_before(littered, tmp_path, top) if item.path.startswith(top + "/")]
    assert items
    before = everything(tmp_path)
    done = cleanup.apply(littered, items, lambda id: False)
    assert {view["action"] for view in done} == {"kept"}
    assert everything(tmp_path) == before


def _planned_before(paths, tmp_path, top):
    """The plan as it was while the folder was still there."""
    link = f"{paths.home}/{top}"
    os.unlink(link)
    os.rename(tmp_path / top, link)
    items = plan(paths)
    os.rename(link, tmp_path / top)
    os.symlink(tmp_path / top, link)
    return items


def test_strange_things_between_the_folders_are_shown_and_kept(paths):
    touch(f"{paths.bots}/file")
    os.symlink("/etc", f"{paths.bots}/link")
    os.makedirs(f"{paths.bots}/alice/Not A Bot")
    os.symlink("/etc", f"{paths.bots}/alice/etc")
    os.mkdir(os.fsencode(f"{paths.bots}/alice/") + b"\xff\n")
    items = plan(paths)
    assert len(items) == 5
    assert not any(item.remove for item in items)
    for item in items:
        cleanup.view(item)["path"].encode("utf-8")
    assert set(clean(paths).values()) == {"kept"}


def test_rotated_logs_beyond_the_number_that_is_kept(paths):
    folders.prepare(paths, "alice/shop")
    logs = paths.bot_logs("alice/shop")
    for name in ("out.log", "out.log.1", "out.log.5", "out.log.6", "out.idx.6", "err.log.12", "out.log.x", "mine.9"):
        touch(f"{logs}/{name}")
    assert plan(paths, ["alice/shop"]) == []
    assert sorted(clean(paths, ["alice/shop"], keep_logs=5)) == [
        f"logs/alice/shop/{name}" for name in ("err.log.12", "out.idx.6", "out.log.6")
    ]
    assert sorted(os.listdir(logs)) == ["mine.9", "out.log", "out.log.1", "out.log.5", "out.log.x"]


def test_rotated_logs_that_are_too_old_go_with_their_indexes_and_leave_no_gap(paths):
    folders.prepare(paths, "alice/shop")
    logs = paths.bot_logs("alice/shop")
    ages = {
        "out.log": 9e6,
        "out.log.1": 50,
        "out.log.2.gz": 9e6,
        "out.log.3.gz": 60,
        "out.log.4.gz": 9e6,
        "err.log.1": 9e6,
    }
    now = time.time()
    for name, age in ages.items():
        touch(f"{logs}/{name}")
        os.utime(f"{logs}/{name}", (now - age, now - age))
    for name in ("out.idx", "out.idx.2", "out.idx.4", "err.idx.1"):
        touch(f"{logs}/{name}")
    found = plan(paths, ["alice/shop"], keep_logs=5, max_log_age_s=3600.0, later=0.0)
    assert {item.reason for item in found} == {"kept for 1 h (output.maxAge); last written 104 d ago"}
    assert sorted(clean(paths, ["alice/shop"], keep_logs=5, max_log_age_s=3600.0, later=0.0)) == [
        f"logs/alice/shop/{name}" for name in ("err.idx.1", "err.log.1", "out.idx.4", "out.log.4.gz")
    ]


def test_a_log_in_a_folder_that_is_just_rotated_is_left_for_the_next_time(paths):
    folders.prepare(paths, "alice/shop")
    logs = paths.bot_logs("alice/shop")
    touch(f"{logs}/out.log.6")
    held = os.open(logs, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert set(clean(paths, ["alice/shop"], keep_logs=5).values()) == {"kept"}
    os.close(held)
    assert set(clean(paths, ["alice/shop"], keep_logs=5).values()) == {"removed"}


def test_a_removal_that_was_cut_short_goes_on_by_itself(paths):
    os.makedirs(f"{paths.home}/trash/alice+gone.1/0/a/b")
    os.makedirs(f"{paths.home}/trash/alice+gone.1/7/c")
    os.makedirs(f"{paths.bots}/alice/{folders.GRAVE_PREFIX}77/0/d")
    # What was put there just now may be an old thing, and its removal under way.
    os.utime(f"{paths.home}/trash/alice+gone.1", (1, 1))
    assert plan(paths, later=0.0) == []
    assert set(clean(paths).values()) == {"removed"}
    assert os.listdir(f"{paths.home}/trash") == []
    assert os.listdir(paths.bots) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_cannot_be_removed_is_a_failure_of_its_own(littered):
    point = f"{littered.bot_data('alice/gone')}/mount"
    os.mkdir(point)
    items = plan(littered)
    if subprocess.run(["mount", "-t", "tmpfs", "none", point], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        again = {item.path: item for item in plan(littered)}["bots/alice/gone"]
        assert not again.remove
        assert "another file system" in again.reason
        done = {view["path"]: view for view in cleanup.apply(littered, items, lambda id: False)}
        assert done["bots/alice/gone"]["action"] == "failed"
        assert "mount point" in done["bots/alice/gone"]["reason"]
        assert done["logs/alice/gone"]["action"] == "removed"
    finally:
        listing = subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            if line.startswith(littered.home):
                subprocess.run(["umount", line], check=True)


def test_a_home_that_is_gone_is_one_clear_error(paths):
    with pytest.raises(BotdError) as refused:
        plan(Paths(f"{paths.home}/none"))
    assert refused.value.kind == "unavailable"


@pytest.fixture
def restless():
    """Threads take turns after each few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_bots_that_come_and_go_while_it_cleans_never_lose_a_file(paths, restless):
    """A bot that exists keeps its file, whatever clean-up does at the same time with what its predecessor left."""
    known, lost = set(), []
    lives = 0
    end = threading.Event()

    def stays(path):
        # It may be out of reach for the moment between being taken and being put back.
        return any(os.path.exists(path) or time.sleep(0.001) for _ in range(1000))

    def fleet():
        nonlocal lives
        while not end.is_set():
            known.add("alice/shop")
            folders.prepare(paths, "alice/shop")
            path = f"{paths.bot_data('alice/shop')}/file"
            try:
                touch(path)
            except FileNotFoundError:
                pass  # out of reach for that moment: nothing was written, nothing can be lost
            else:
                lives += 1
                lost.extend(path for _ in range(3) if not stays(path))
            known.discard("alice/shop")
            for _ in range(lives % 20):
                time.sleep(0)

    thread = threading.Thread(target=fleet)
    thread.start()
    done = {"removed": 0, "kept": 0, "failed": 0}
    try:
        until = time.monotonic() + 20
        while min(lives, done["removed"], done["kept"]) < 50 and thread.is_alive() and time.monotonic() < until:
            # The plan is older than whatever the fleet does meanwhile.
            for view in cleanup.apply(paths, plan(paths), known.__contains__):
                done[view["action"]] += view["kind"] == "bot folder"
    finally:
        alive = thread.is_alive()
        end.set()
        thread.join()
    assert lost == []
    assert alive
    assert min(lives, done["removed"], done["kept"]) >= 50
