"""Folders of bots, made and removed: by a friend, by a hostile bot, and in a race with one."""

import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import threading

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.storage import folders, trashcan
from botd.storage.measure import survey

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ODD = ["new\nline", "tab\t", "\udcff\udc80", "-rf", "*", " ", "é", "x" * 255, "\x1b[31m"]


OF_THE_TRASH = 2
"""The folder of a deleted bot there, and the note in it."""


def remove_bot(paths, id):
    """As the daemon does it: out of the way first, then for good."""
    key = trashcan.key_of(id, secrets.token_hex(6))
    problems = trashcan.put(paths, key, id, "{}")
    done = trashcan.remove(paths, key)
    done.problems[:0] = problems
    return done


@pytest.fixture
def paths():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    paths = Paths(home)
    folders.prepare_home(paths)
    yield paths
    subprocess.run(["rm", "-rf", home], check=True)


@pytest.fixture
def victim():
    """A folder of somebody else, which nothing here may touch."""
    folder = tempfile.mkdtemp(prefix="v", dir="/tmp")
    for name in ("precious", "sub/precious"):
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        with open(f"{folder}/{name}", "w") as file:
            file.write("precious")
    yield folder
    assert sorted(os.listdir(folder)) == ["precious", "sub"]
    assert os.listdir(f"{folder}/sub") == ["precious"]
    shutil.rmtree(folder)


def everything(home):
    return sorted(os.path.relpath(f"{at}/{name}", home) for at, ds, fs in os.walk(home) for name in (*ds, *fs))


EMPTY = sorted(["bots", "locks", "logs", "run", "trash"])


def nest(folder, depth):
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def as_nobody(function):
    """What `function` returns (a JSON value) in a child process without any privileges."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writing, json.dumps(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(answer)


# --- making -------------------------------------------------------------------------------------------------


def test_all_folders_are_private_whatever_the_umask(paths):
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            folders.prepare(paths, f"alice/shop{mask}")
        finally:
            os.umask(before)
        bot = f"alice/shop{mask}"
        for folder in (paths.home, paths.bots, f"{paths.bots}/alice", paths.bot(bot), paths.bot_data(bot)):
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(paths.bot_logs(bot)).st_mode) == 0o700


def test_making_them_again_changes_nothing_but_rights_that_are_too_wide(paths):
    folders.prepare(paths, "alice/shop")
    with open(f"{paths.bot_data('alice/shop')}/state", "w") as file:
        file.write("kept")
    os.chmod(paths.bot("alice/shop"), 0o777)
    folders.prepare(paths, "alice/shop")
    assert os.path.exists(f"{paths.bot_data('alice/shop')}/state")
    assert stat.S_IMODE(os.stat(paths.bot("alice/shop")).st_mode) == 0o700


@pytest.mark.parametrize("place", ["bots", "bots/alice", "bots/alice/shop", "bots/alice/shop/data", "logs/alice/shop"])
@pytest.mark.parametrize("what", ["link", "dangling", "file", "fifo"])
def test_what_was_planted_in_place_of_a_folder_is_refused(paths, victim, place, what):
    at = f"{paths.home}/{place}"
    os.makedirs(os.path.dirname(at), exist_ok=True)
    if os.path.isdir(at):
        os.rmdir(at)
    if what == "link":
        os.symlink(victim, at)
    elif what == "dangling":
        os.symlink(f"{victim}/made", at)
    elif what == "fifo":
        os.mkfifo(at)
    else:
        open(at, "w").close()
    with pytest.raises(BotdError) as refused:
        folders.prepare(paths, "alice/shop")
    assert refused.value.kind == "conflict"
    assert place in refused.value.message


@pytest.mark.parametrize("id", ["", "shop", "alice/", "/shop", "../shop", "alice/..", "alice/a/b", "alice/\n", "A/b"])
def test_what_is_no_id_touches_nothing(paths, id):
    for call in (folders.prepare, remove_bot):
        with pytest.raises(BotdError):
            call(paths, id)
    assert everything(paths.home) == EMPTY


def test_a_home_that_cannot_be_made_is_one_clear_error(paths):
    open(f"{paths.home}/file", "w").close()
    with pytest.raises(BotdError) as refused:
        folders.prepare_home(Paths(f"{paths.home}/file/home"))
    assert refused.value.kind == "unavailable"
    assert refused.value.hint


@root_only
def test_the_home_of_somebody_else_is_refused(paths):
    os.chown(paths.home, 65534, 65534)
    with pytest.raises(BotdError) as refused:
        folders.prepare_home(paths)
    assert refused.value.kind == "denied"


# --- measuring ----------------------------------------------------------------------------------------------


def test_usage_is_in_blocks_and_counts_hard_links_once(paths):
    folders.prepare(paths, "alice/shop")
    data = paths.bot_data("alice/shop")
    before = folders.usage(data)
    with open(f"{data}/block", "wb") as file:
        file.write(b"x" * 100_000)
    os.link(f"{data}/block", f"{data}/again")
    with open(f"{data}/sparse", "wb") as file:
        file.truncate(1 << 30)
    used = folders.usage(data) - before
    assert 100_000 <= used < 120_000
    assert folders.usage(f"{data}/none") == 0


def test_usage_follows_no_link_and_goes_to_any_depth(paths, victim):
    folders.prepare(paths, "alice/shop")
    data = paths.bot_data("alice/shop")
    nest(data, 3000)
    os.symlink("/usr", f"{data}/usr")
    os.symlink(".", f"{data}/loop")
    fd = os.open(data, os.O_RDONLY)
    found = survey(fd)
    os.close(fd)
    assert found.complete
    assert found.entries == 1 + 3000 + 1 + 2
    assert 3000 * 4096 <= found.bytes < 2 * 3000 * 4096


@root_only
def test_a_folder_without_rights_is_counted_in_part_and_says_so(paths):
    os.chmod(paths.home, 0o755)
    os.makedirs(f"{paths.home}/pub/closed/in")
    os.makedirs(f"{paths.home}/pub/listed/in")
    os.chmod(f"{paths.home}/pub/closed", 0)
    os.chmod(f"{paths.home}/pub/listed", 0o444)

    def count():
        found = survey(os.open(f"{paths.home}/pub", os.O_RDONLY))
        return [found.complete, found.entries]

    assert as_nobody(count) == [False, 3]


# --- removing -----------------------------------------------------------------------------------------------


def test_a_bot_goes_with_all_it_has_and_its_neighbours_stay(paths):
    for bot in ("alice/shop", "alice/other", "bob/shop"):
        folders.prepare(paths, bot)
    nest(paths.bot_data("alice/shop"), 5)
    done = remove_bot(paths, "alice/shop")
    assert done.problems == []
    assert done.entries == 2 + 5 + 1 + 1 + OF_THE_TRASH
    assert done.bytes > 0
    assert not os.path.exists(paths.bot("alice/shop"))
    assert not os.path.exists(paths.bot_logs("alice/shop"))
    assert os.path.isdir(paths.bot_data("alice/other"))
    assert os.path.isdir(paths.bot_data("bob/shop"))
    remove_bot(paths, "alice/other")
    remove_bot(paths, "bob/shop")
    assert everything(paths.home) == EMPTY


def test_removing_what_is_not_there_is_no_error(paths):
    done = remove_bot(paths, "alice/shop")
    assert (done.entries, done.problems) == (OF_THE_TRASH, [])
    assert everything(paths.home) == EMPTY


def test_odd_names_and_special_files(paths, victim):
    folders.prepare(paths, "alice/shop")
    data = paths.bot_data("alice/shop")
    for name in ODD:
        os.mkdir(f"{data}/{name}")
        open(f"{data}/{name}/{name}", "w").close()
    os.mkfifo(f"{data}/fifo")
    os.mkdir(f"{data}/s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{data}/s/sock")
        for i, target in enumerate([victim, f"{victim}/precious", "/", "..", "/nowhere", "loop"]):
            os.symlink(target, f"{data}/link{i}")
        os.link(f"{victim}/precious", f"{data}/hard")
        if os.geteuid() == 0:
            os.mknod(f"{data}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        done = remove_bot(paths, "alice/shop")
    assert done.problems == []
    assert everything(paths.home) == EMPTY


def test_depth_does_not_matter_and_takes_no_descriptors(paths):
    folders.prepare(paths, "alice/shop")
    nest(paths.bot_data("alice/shop"), 3000)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, len(os.listdir("/proc/self/fd")) + 16), hard))
    try:
        done = remove_bot(paths, "alice/shop")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert done.problems == []
    assert done.entries == 3000 + 1 + 2 + 1 + OF_THE_TRASH
    assert everything(paths.home) == EMPTY


@root_only
def test_without_privileges_read_only_folders_go_too():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    os.chown(home, 65534, 65534)

    def removed():
        paths = Paths(f"{home}/h")
        folders.prepare_home(paths)
        folders.prepare(paths, "alice/shop")
        data = paths.bot_data("alice/shop")
        for mode in (0o000, 0o111, 0o444, 0o555):
            os.makedirs(f"{data}/{mode:o}/in/deeper")
            open(f"{data}/{mode:o}/in/file", "w").close()
            for folder in ("in/deeper", "in", "."):
                os.chmod(f"{data}/{mode:o}/{folder}", mode)
        os.chmod(data, 0o500)
        os.chmod(paths.bot("alice/shop"), 0o500)
        return [remove_bot(paths, "alice/shop").problems, everything(paths.home)]

    try:
        assert as_nobody(removed) == [[], EMPTY]
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


@root_only
def test_what_cannot_be_removed_without_privileges_is_named_and_the_rest_goes():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    os.chown(home, 65534, 65534)
    paths = Paths(f"{home}/h")

    def make():
        folders.prepare_home(paths)
        folders.prepare(paths, "alice/shop")

    try:
        as_nobody(make)
        data = paths.bot_data("alice/shop")
        os.mkdir(f"{data}/of-root")
        for name in ("of-root/file", "free"):
            open(f"{data}/{name}", "w").close()
        problems = as_nobody(lambda: remove_bot(paths, "alice/shop").problems)
        assert any("of-root" in problem and "denied" in problem for problem in problems)
        left = everything(paths.home)
        assert not any("free" in path for path in left)
        assert "bots/alice" not in left
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


@root_only
def test_files_of_other_owners_go_with_the_bot(paths):
    folders.prepare(paths, "alice/shop")
    data = paths.bot_data("alice/shop")
    os.mkdir(f"{data}/theirs", 0o700)
    open(f"{data}/theirs/file", "w").close()
    for path in (f"{data}/theirs/file", f"{data}/theirs"):
        os.chown(path, 65534, 65534)
    assert remove_bot(paths, "alice/shop").problems == []
    assert everything(paths.home) == EMPTY


@root_only
def test_a_mount_in_it_is_never_crossed(paths, victim):
    folders.prepare(paths, "alice/shop")
    data = paths.bot_data("alice/shop")
    os.makedirs(f"{data}/deep/mount")
    open(f"{data}/file", "w").close()
    if subprocess.run(["mount", "--bind", victim, f"{data}/deep/mount"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        # Bound from the same file system: only the kernel knows that it is a mount.
        done = remove_bot(paths, "alice/shop")
        assert any("a mount point, left alone" in problem for problem in done.problems)
    finally:
        point = subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True).stdout
        for line in point.splitlines():
            if line.startswith(paths.home):
                subprocess.run(["umount", line], check=True)


@root_only
def test_a_folder_on_a_file_system_of_its_own_is_removed_in_place(paths):
    if subprocess.run(["mount", "-t", "tmpfs", "none", paths.bots], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        folders.prepare(paths, "alice/shop")
        nest(paths.bot_data("alice/shop"), 50)
        done = remove_bot(paths, "alice/shop")
        assert done.problems == []
        assert os.listdir(paths.bots) == []
    finally:
        subprocess.run(["umount", paths.bots], check=True)


def test_a_link_in_place_of_the_bot_is_unlinked_and_one_above_it_refused(paths, victim):
    os.mkdir(f"{paths.bots}/alice")
    os.symlink(victim, paths.bot("alice/shop"))
    assert remove_bot(paths, "alice/shop").problems == []
    assert not os.path.lexists(paths.bot("alice/shop"))
    os.symlink(os.path.dirname(victim), f"{paths.bots}/bob")
    [refused] = remove_bot(paths, f"bob/{os.path.basename(victim)}").problems
    assert "it was not followed" in refused


def test_only_the_inode_that_was_meant_is_removed(paths):
    folders.prepare(paths, "alice/shop")
    meant = os.stat(paths.bot("alice/shop"))
    os.rename(paths.bot("alice/shop"), paths.bot("alice/old"))
    folders.prepare(paths, "alice/shop")
    home = os.open(paths.home, os.O_RDONLY)
    try:
        with pytest.raises(BotdError):
            folders.remove(home, ("bots", "alice", "shop"), (meant.st_dev, meant.st_ino))
    finally:
        os.close(home)
    assert os.path.isdir(paths.bot_data("alice/shop"))
    assert os.listdir(f"{paths.home}/trash") == []


def test_what_is_needed_again_at_the_last_moment_is_put_back(paths):
    folders.prepare(paths, "alice/shop")
    home = os.open(paths.home, os.O_RDONLY)

    def needed():
        assert not os.path.exists(paths.bot("alice/shop"))
        return True

    try:
        with pytest.raises(BotdError):
            folders.remove(home, ("bots", "alice", "shop"), needed=needed)
    finally:
        os.close(home)
    assert os.path.isdir(paths.bot_data("alice/shop"))
    assert os.listdir(f"{paths.home}/trash") == []


class Swapper(threading.Thread):
    """A hostile bot that keeps putting a link where a folder was, and a folder where the link was."""

    def __init__(self, place, target):
        super().__init__()
        self.place, self.target = place, target
        self.rounds = 0
        self.end = threading.Event()

    def run(self):
        while not self.end.is_set():
            self.rounds += 1
            try:
                os.rename(self.place, self.place + ".away")
            except OSError:
                pass
            try:
                os.symlink(self.target, self.place)
                os.unlink(self.place)
            except OSError:
                pass
            try:
                os.rename(self.place + ".away", self.place)
            except OSError:
                pass


@pytest.mark.parametrize("place", ["bots/alice", "bots/alice/shop", "bots/alice/shop/data", "bots/alice/shop/data/sub"])
def test_links_that_are_swapped_in_while_it_removes_never_lead_out(paths, victim, place):
    # The victim has the shape of what is removed, at every level, so that following any link would hit it.
    os.makedirs(f"{victim}/sub/shop/data/sub", exist_ok=True)
    precious = [f"{victim}/{p}/x" for p in ("sub/shop", "sub/shop/data", "sub/shop/data/sub", "sub")]
    for path in precious:
        open(path, "w").close()
    levels = {"bots/alice": "sub", "bots/alice/shop": "sub/shop", "bots/alice/shop/data": "sub/shop/data"}
    swapper = Swapper(f"{paths.home}/{place}", f"{victim}/{levels.get(place, 'sub/shop/data/sub')}")
    swapper.start()
    try:
        for _ in range(150):
            try:
                folders.prepare(paths, "alice/shop")
                sub = f"{paths.bot_data('alice/shop')}/sub"
                os.makedirs(f"{sub}/more", exist_ok=True)
            except (OSError, BotdError):
                pass
            try:
                remove_bot(paths, "alice/shop")
                folders.usage(paths.bot("alice/shop"))
            except (BotdError, OSError):
                pass
    finally:
        swapper.end.set()
        swapper.join()
    assert swapper.rounds > 10
    # os.makedirs above follows links: it may have made "more" in there, but nothing was removed.
    for path in precious:
        assert os.path.exists(path)
        os.unlink(path)
    shutil.rmtree(f"{victim}/sub/shop")
    shutil.rmtree(f"{victim}/sub/sub", ignore_errors=True)
    shutil.rmtree(f"{victim}/sub/more", ignore_errors=True)


def test_a_new_bot_of_the_same_id_keeps_its_folders_while_the_old_ones_go(paths):
    folders.prepare(paths, "alice/shop")
    with open(f"{paths.bot_data('alice/shop')}/old", "w") as file:
        file.write("x")
    key = trashcan.key_of("alice/shop", "0123456789ab")
    assert trashcan.put(paths, key, "alice/shop", "{}") == []
    folders.prepare(paths, "alice/shop")
    assert os.listdir(paths.bot_data("alice/shop")) == []
    with open(f"{paths.bot_data('alice/shop')}/new", "w") as file:
        file.write("y")
    assert trashcan.remove(paths, key).problems == []
    assert os.listdir(paths.bot_data("alice/shop")) == ["new"]
    assert os.listdir(f"{paths.home}/trash") == []
