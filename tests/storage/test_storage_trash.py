"""The folders of deleted bots: into the trash, back, and for good; each step again after a death in between."""

import os
import shutil
import subprocess
import tempfile

import pytest

from botd.contract.paths import Paths
from botd.storage import folders, trashcan

BOT = "alice/shop"
KEY = trashcan.key_of(BOT, "0123456789ab")


@pytest.fixture
def paths():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    paths = Paths(home)
    folders.prepare_home(paths)
    make(paths, BOT)
    yield paths
    subprocess.run(["rm", "-rf", home], check=True)


def make(paths, bot_id, text="precious"):
    folders.prepare(paths, bot_id)
    for folder in (paths.bot_data(bot_id), paths.bot_logs(bot_id)):
        write(f"{folder}/state", text)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def read(path):
    with open(path) as file:
        return file.read()


def whole(paths, bot_id=BOT, text="precious"):
    return [read(f"{folder}/state") for folder in (paths.bot_data(bot_id), paths.bot_logs(bot_id))] == [text] * 2


def in_trash(paths, key=KEY, text="precious"):
    entry = f"{paths.home}/trash/{key}"
    return [read(f"{entry}/bot/data/state"), read(f"{entry}/logs/state")] == [text] * 2


@pytest.mark.parametrize("key", [KEY, "a+b.00000000", "a.b_c+x-y.z.0123456789abcdef"])
def test_a_key_is_known_by_its_form(key):
    assert trashcan.is_key(key)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "alice", "alice+shop", "alice/shop.0123456789ab", "../+x.01234567", "a+b.0123456z", KEY + "\n"],
)
def test_nothing_else_is_a_key(name):
    assert not trashcan.is_key(name)


def test_there_and_back(paths):
    assert trashcan.put(paths, KEY, BOT, '{"a":1}') == []
    assert in_trash(paths) and dict(trashcan.notes(paths)) == {KEY: '{"a":1}'}
    assert not os.path.exists(f"{paths.bots}/alice") and not os.path.exists(f"{paths.logs}/alice")
    assert trashcan.take_back(paths, KEY, BOT) == []
    assert whole(paths) and os.listdir(f"{paths.home}/trash") == []


def test_each_step_may_be_done_again(paths):
    for _ in range(2):
        assert trashcan.put(paths, KEY, BOT, "{}") == []
    assert in_trash(paths)
    for _ in range(2):
        assert trashcan.take_back(paths, KEY, "bob/other") == []
    assert whole(paths, "bob/other")


def test_what_is_half_moved_is_moved_to_its_end_in_either_direction(paths):
    os.makedirs(f"{paths.home}/trash/{KEY}")
    os.rename(paths.bot(BOT), f"{paths.home}/trash/{KEY}/bot")
    assert trashcan.put(paths, KEY, BOT, "{}") == []
    assert in_trash(paths)
    os.makedirs(f"{paths.logs}/alice")
    os.rename(f"{paths.home}/trash/{KEY}/logs", paths.bot_logs(BOT))
    assert trashcan.take_back(paths, KEY, BOT) == []
    assert whole(paths)


def test_empty_folders_that_a_start_has_made_give_way_and_nothing_else_does(paths):
    trashcan.put(paths, KEY, BOT, "{}")
    folders.prepare(paths, BOT)
    assert trashcan.take_back(paths, KEY, BOT) == [] and whole(paths)

    trashcan.put(paths, KEY, BOT, "{}")
    make(paths, BOT, "newer")
    problems = trashcan.take_back(paths, KEY, BOT)
    assert len(problems) == 2 and "bots/alice/shop" in problems[0]
    assert whole(paths, text="newer") and in_trash(paths)
    assert trashcan.occupied(paths, BOT) and not trashcan.occupied(paths, "alice/none")


def test_for_good(paths):
    trashcan.put(paths, KEY, BOT, "{}")
    size = trashcan.measure(paths, KEY)
    done = trashcan.remove(paths, KEY)
    assert done.problems == [] and done.bytes == size > 0
    assert os.listdir(f"{paths.home}/trash") == []
    assert trashcan.remove(paths, KEY).entries == 0


def test_a_second_deletion_of_the_id_has_a_place_of_its_own(paths):
    other = trashcan.key_of(BOT, "ba9876543210")
    trashcan.put(paths, KEY, BOT, "{}")
    make(paths, BOT, "second")
    trashcan.put(paths, other, BOT, "{}")
    assert in_trash(paths) and in_trash(paths, other, "second")


@pytest.mark.parametrize("place", ["bots/alice", "bots/alice/shop", "logs/alice"])
def test_a_link_in_the_way_is_moved_or_refused_and_never_followed(paths, place):
    victim = tempfile.mkdtemp(prefix="v", dir="/tmp")
    try:
        os.makedirs(f"{victim}/shop/data")
        at = f"{paths.home}/{place}"
        os.rename(at, f"{at}.away")
        os.symlink(victim, at)
        trashcan.put(paths, KEY, BOT, "{}")
        trashcan.measure(paths, KEY)
        trashcan.remove(paths, KEY)
        assert os.path.isdir(f"{victim}/shop/data")
    finally:
        shutil.rmtree(victim)


@pytest.mark.parametrize("what", ["link", "fifo", "huge", "folder"])
def test_a_note_that_is_none_is_not_read(paths, what):
    trashcan.put(paths, KEY, BOT, "{}")
    note = f"{paths.home}/trash/{KEY}/bot.json"
    os.unlink(note)
    match what:
        case "link":
            write(f"{paths.run}/secret", "{}")
            os.symlink(f"{paths.run}/secret", note)
        case "fifo":
            os.mkfifo(note)
        case "huge":
            write(note, "")
            os.truncate(note, 1 << 40)
        case "folder":
            os.mkdir(note)
    assert dict(trashcan.notes(paths)) == {}


@pytest.mark.root
def test_a_user_whose_folder_is_a_file_system_of_its_own(paths):
    inside = f"{paths.bots}/alice"
    if subprocess.run(["mount", "-t", "tmpfs", "t", inside], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        make(paths, BOT)
        assert trashcan.put(paths, KEY, BOT, "{}") == []
        assert os.listdir(inside) == [f".deleted-{KEY}"]
        assert trashcan.take_back(paths, KEY, BOT) == [] and whole(paths)
        trashcan.put(paths, KEY, BOT, "{}")
        assert trashcan.remove(paths, KEY).problems == [] and os.listdir(inside) == []
    finally:
        subprocess.run(["umount", "-l", inside], check=True)
