"""Clean-up against whoever wants it to remove something else: nothing outside is ever touched.

`BOTD_RACES_S=60 pytest tests/storage/test_storage_races.py` plays each race for a minute, with 100,000 files.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.settings import Cleaning
from botd.storage import beneath, cleanup, folders, measure, trashcan, tree

RACE_S = float(os.environ.get("BOTD_RACES_S", "0.4"))
MANY = 100_000 if "BOTD_RACES_S" in os.environ else 5_000
LATER = 1e6
BOT = "alice/gone"
KEY = trashcan.key_of(BOT, "0123456789ab")
FOES = Path(__file__).with_name("foes.py")


@pytest.fixture
def paths():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    paths = Paths(home)
    folders.prepare_home(paths)
    yield paths
    subprocess.run(["rm", "-rf", "--one-file-system", home], check=True)


def fingerprint(folder):
    """Every name, kind, mode, owner, link count, size and time below, and what the files hold."""
    out = []
    for at, names, files in sorted(os.walk(folder)):
        for name in sorted((*names, *files)):
            path = f"{at}/{name}"
            st = os.lstat(path)
            body = hashlib.sha256(Path(path).read_bytes()).hexdigest() if name in files else ""
            out.append((path, st.st_mode, st.st_uid, st.st_nlink, st.st_size, st.st_mtime_ns, body))
    return out


@pytest.fixture
def victim():
    """A folder of somebody else in the shape of what is removed, at every level."""
    folder = tempfile.mkdtemp(prefix="v", dir="/tmp")
    for place in (
        "",
        "/gone",
        "/gone/data",
        "/gone/data/sub",
        "/data",
        "/data/sub",
        "/sub",
        "/bot",
        "/bot/data",
        f"/{KEY}/bot",
    ):
        os.makedirs(f"{folder}{place}", exist_ok=True)
        Path(f"{folder}{place}/precious").write_text("precious")
    before = fingerprint(folder)
    assert len(before) > 15
    yield folder
    assert fingerprint(folder) == before
    subprocess.run(["rm", "-rf", folder], check=True)


def litter(paths):
    """An orphan with something in it, and a deleted bot; as far as the foe lets us, and never through a link."""
    for bot_id in (BOT, "alice/other"):
        with contextlib.suppress(BotdError, OSError):
            folders.prepare(paths, bot_id)
            base = tree.open_directory(paths.home)
            try:
                data = tree.descend(base, ("bots", *bot_id.split("/"), "data"))
            finally:
                os.close(base)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir("sub", dir_fd=data)
                os.close(os.open("x", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=data))
            finally:
                os.close(data)
    with contextlib.suppress(BotdError, OSError):
        trashcan.put(paths, KEY, "alice/other", "{}")


def clean(paths):
    items = cleanup.plan(paths, frozenset(), frozenset(), time.time() + LATER, Cleaning(max_file_age_s=60.0))
    return cleanup.apply(paths, items, lambda bot_id: False)


@contextlib.contextmanager
def foe(trick, place, target):
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(FOES), trick, place, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"go\n"
        yield
    finally:
        process.communicate(timeout=30)


@pytest.fixture(params=["openat2", "compared"])
def opening(request, monkeypatch):
    """Both ways of opening a folder."""
    if request.param == "compared":
        for module in (tree, measure):
            monkeypatch.setattr(module, "open_here", beneath.open_compared)
    elif beneath._openat2() is None:
        pytest.skip("this kernel has no openat2, or we may not use it")
    return request.param


PLACES = {
    "bots/alice": "",
    "bots/alice/gone": "/gone",
    "bots/alice/gone/data": "/gone/data",
    "bots/alice/gone/data/sub": "/gone/data/sub",
    "logs/alice": "",
    "trash": "",
    f"trash/{KEY}": "",
    f"trash/{KEY}/bot": "/bot",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_that_keeps_turning_into_a_link(paths, victim, place):
    removed = rounds = 0
    with foe("swap", f"{paths.home}/{place}", f"{victim}{PLACES[place]}"):
        deadline = time.monotonic() + RACE_S
        while time.monotonic() < deadline or not rounds:
            rounds += 1
            litter(paths)
            with contextlib.suppress(BotdError, OSError):
                removed += sum(item["action"] == "removed" for item in clean(paths))
            with contextlib.suppress(BotdError, OSError):
                trashcan.measure(paths, KEY)
                trashcan.take_back(paths, KEY, "alice/other")
            with contextlib.suppress(BotdError, OSError):
                trashcan.remove(paths, KEY)
    # The race was one: some of it could be removed while it went on, or at the latest now.
    litter(paths)
    removed += sum(item["action"] == "removed" for item in clean(paths))
    assert removed > 0


# --- mounts, in a namespace of their own ------------------------------------------------------------


def in_own_mounts(work):
    """Run `work` in a child that has a mount namespace of its own; skips where there is none to be had."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            libc = ctypes.CDLL(None, use_errno=True)
            private = 1 << 18 | 1 << 14
            if libc.unshare(0x20000) or libc.mount(None, b"/", None, private, None):
                status = 77
            else:
                work()
                status = 0
        except BaseException:  # noqa: BLE001 - told to the parent, which fails with it
            import traceback

            os.write(write, traceback.format_exc()[-3500:].encode())
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as told:
        text = told.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("no mount namespace may be made here")
    assert status == 0, text


def bind(source, target):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, 4096, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


@pytest.mark.root
def test_a_mount_of_the_same_file_system_is_seen_and_nothing_is_removed_around_it(paths, victim, opening):
    def work():
        folders.prepare(paths, BOT)
        os.makedirs(f"{paths.bot_data(BOT)}/deep/m")
        bind(victim, f"{paths.bot_data(BOT)}/deep/m")
        assert os.stat(f"{paths.bot_data(BOT)}/deep/m").st_dev == os.stat(paths.home).st_dev
        [item] = [item for item in clean(paths) if item["kind"] == "bot folder"]
        assert item["action"] == "kept" and "another file system" in item["reason"]
        assert item["bytes"] < 1 << 20

    in_own_mounts(work)


@pytest.mark.root
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_removed_all_the_same_stops_at_a_mount(paths, victim, opening, what):
    def work():
        folders.prepare(paths, BOT)
        data = paths.bot_data(BOT)
        Path(f"{data}/beside").write_text("x")
        if what == "folder":
            os.makedirs(f"{data}/deep/m")
            bind(victim, f"{data}/deep/m")
        else:
            Path(f"{data}/m").write_text("")
            bind(f"{victim}/precious", f"{data}/m")
        assert trashcan.put(paths, KEY, BOT, "{}") == []
        done = trashcan.remove(paths, KEY)
        assert done.problems and done.entries >= 3
        # The next clean-up is told the same, and does no more.
        [item] = [item for item in clean(paths) if item["kind"] == "trash"]
        assert item["action"] == "failed"

    in_own_mounts(work)


@pytest.mark.root
def test_a_mount_that_comes_and_goes_in_the_middle(paths, victim, opening):
    def work():
        with foe("mount", f"{paths.bot_data(BOT)}/sub", victim):
            deadline = time.monotonic() + RACE_S
            while time.monotonic() < deadline:
                litter(paths)
                with contextlib.suppress(BotdError, OSError):
                    clean(paths)
                with contextlib.suppress(BotdError, OSError):
                    trashcan.put(paths, KEY, BOT, "{}")
                    trashcan.remove(paths, KEY)

    in_own_mounts(work)


@pytest.mark.root
def test_a_file_system_of_its_own_below_is_never_entered(paths, opening):
    def work():
        folders.prepare(paths, BOT)
        other = f"{paths.bot_data(BOT)}/other"
        os.mkdir(other)
        if ctypes.CDLL(None).mount(b"t", other.encode(), b"tmpfs", 0, None):
            return
        Path(f"{other}/precious").write_text("precious")
        [item] = [item for item in clean(paths) if item["kind"] == "bot folder"]
        assert item["action"] == "kept"
        trashcan.put(paths, KEY, BOT, "{}")
        assert trashcan.remove(paths, KEY).problems
        found = [at for at, _, files in os.walk(paths.home) if "precious" in files]
        assert len(found) == 1

    in_own_mounts(work)


def test_both_ways_of_opening_refuse_the_same(paths, opening):
    os.makedirs(f"{paths.run}/folder")
    os.symlink(f"{paths.run}/folder", f"{paths.run}/link")
    Path(f"{paths.run}/file").write_text("")
    run = os.open(paths.run, os.O_RDONLY)
    try:
        os.close(tree.open_here(run, "folder"))
        for name, numbers in (
            ("link", (errno.ELOOP, errno.ENOTDIR)),
            ("file", (errno.ENOTDIR,)),
            ("no", (errno.ENOENT,)),
        ):
            with pytest.raises(OSError) as raised:
                tree.open_here(run, name)
            assert raised.value.errno in numbers, name
    finally:
        os.close(run)
    root = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as raised:
            tree.open_here(root, "proc")
        assert raised.value.errno == errno.EXDEV
    finally:
        os.close(root)


# --- what a tree can be like ------------------------------------------------------------------------


def test_depth_names_and_numbers(paths, opening):
    folders.prepare(paths, BOT)
    fd = os.open(paths.bot_data(BOT), os.O_RDONLY)
    for name in (b"new\nline", b"\xff\xfe", b"-rf", b"*", b"\x1b[31m", b" ", b"x" * 255):
        os.mkdir(name, dir_fd=fd)
        os.close(os.open(name + b"/f" if len(name) < 200 else b"f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.mkdir("many", dir_fd=fd)
    many = os.open("many", os.O_RDONLY, dir_fd=fd)
    for i in range(MANY):
        os.close(os.open(str(i), os.O_CREAT | os.O_WRONLY, dir_fd=many))
    os.close(many)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    done = {item["path"]: item["action"] for item in clean(paths)}
    assert done[f"bots/{BOT}"] == "removed"
    assert os.listdir(f"{paths.home}/trash") == [] and not os.path.exists(f"{paths.bots}/alice")


def test_another_name_of_somebody_elses_file_goes_and_the_file_stays(paths):
    outside = tempfile.mkdtemp(prefix="v", dir="/tmp")
    try:
        precious = Path(outside, "precious")
        precious.write_text("precious")
        precious.chmod(0o440)
        folders.prepare(paths, BOT)
        for name in ("a", "b"):
            os.link(precious, f"{paths.bot_data(BOT)}/{name}")
        os.symlink(precious, f"{paths.bot_data(BOT)}/link")
        clean(paths)
        st = precious.stat()
        assert (precious.read_text(), st.st_nlink, st.st_mode & 0o777) == ("precious", 1, 0o440)
        assert not os.path.exists(paths.bot(BOT))
    finally:
        subprocess.run(["rm", "-rf", outside], check=True)


@pytest.mark.root
def test_a_file_that_cannot_be_removed_is_told_and_the_rest_goes(paths):
    folders.prepare(paths, BOT)
    data = paths.bot_data(BOT)
    for name in ("fixed", "free"):
        Path(f"{data}/{name}").write_text("x" * 5000)
    if subprocess.run(["chattr", "+i", f"{data}/fixed"], capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")
    try:
        [item] = [item for item in clean(paths) if item["kind"] == "bot folder"]
        assert item["action"] == "failed" and "fixed" in item["reason"] and item["bytes"] > 0
        left = [f"{at}/{name}" for at, _, files in os.walk(paths.home) for name in files]
        assert [os.path.basename(path) for path in left] == ["fixed"]
    finally:
        for at, _, files in os.walk(paths.home):
            for name in files:
                subprocess.run(["chattr", "-i", f"{at}/{name}"], capture_output=True)
