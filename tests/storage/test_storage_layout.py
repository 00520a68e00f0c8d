"""A bot's folder: made, switched to another release and back, with everything that a bot may have done to it."""

import errno
import json
import os
import socket
import stat
import time

import pytest
from layout_house import BOT, House, picture, read, write

from botd.contract.errors import BotdError
from botd.storage import layout, releases
from botd.storage.layout import exchange, records

FIRST = {
    "index.js": "first",
    "src/util.js": "util 1",
    "src/deep/er.js": "deep",
    "start": "#!/bin/sh\n",
    "notes.txt": "same in both",
    "current": ("src",),
    "node_modules/left/index.js": "left 1",
    "node_modules/left/package.json": "{}",
    "config.json": '{"seed": 1}',
    "data/words.txt": "seeded",
    "appstate.json": "the login of whoever made the template",
    "botd-template.toml": 'schema = 1\n[files]\nprivate = ["login.json", "cache/"]\n',
}
SECOND = {**FIRST, "index.js": "second", "src/util.js": "util 2", "new.js": "new", "config.json": '{"seed": 2}'}
del SECOND["src/deep/er.js"]


@pytest.fixture(scope="module")
def home():
    one = House()
    yield one
    one.close()


@pytest.fixture
def house(home):
    """Without a bot; releases stay, as they never change."""
    yield home
    home.clear()


@pytest.fixture
def first(house):
    return house.release(FIRST)


@pytest.fixture
def second(house, first):
    return house.release(SECOND)


def own_picture(house, bot=BOT):
    """Without the record, which names the boot and the time."""
    found = picture(house.app(bot=bot))
    found.pop(".botd-release", None)
    return found


def only(house, bot=BOT):
    return sorted(os.listdir(house.paths.bot(bot)))


# --- made ---------------------------------------------------------------------------------------------------------


def test_a_folder_has_copies_links_and_private_files_each_in_their_way(house, first):
    assert house.bring(first) == layout.Brought(True)
    assert layout.current(house.paths, BOT) == ("messenger", first.hash)
    assert own_picture(house) == {
        "index.js": "first",
        "src": None,
        "src/util.js": "util 1",
        "src/deep": None,
        "src/deep/er.js": "deep",
        "start": "#!/bin/sh\n",
        "notes.txt": "same in both",
        "current": ("->", "src"),
        "node_modules": ("->", f"{first.tree}/node_modules"),
        "config.json": ("->", "../data/config.json"),
        "data": ("->", "../data/data"),
        "appstate.json": ("->", "../data/appstate.json"),
        "login.json": ("->", "../data/login.json"),
        "cache": ("->", "../data/cache"),
    }
    assert picture(house.data()) == {
        "config.json": '{"seed": 1}',
        "data": None,
        "data/words.txt": "seeded",
        "cache": None,
    }
    assert only(house) == ["app", "data", "node_modules"]


def test_a_template_may_be_empty(house):
    release = house.release({})
    assert house.bring(release).changed
    assert own_picture(house) == {}


def test_bringing_again_changes_nothing(house, first):
    house.bring(first)
    inode = os.stat(house.app()).st_ino
    assert house.bring(first) == layout.Brought(False)
    assert os.stat(house.app()).st_ino == inode


def test_copies_are_writable_by_the_bot_and_by_nobody_else(house):
    source = house.source({"bot.sh": "#!/bin/sh\n", "a.txt": "a"})
    os.chmod(f"{source}/bot.sh", 0o755)
    house.bring(house.release(source))
    assert stat.S_IMODE(os.stat(house.app("bot.sh")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(house.app("a.txt")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(house.app()).st_mode) == 0o700


def test_a_private_file_that_nobody_brought_is_made_in_data_by_writing_it(house, first):
    house.bring(first)
    write(house.app("login.json"), "mine")
    assert read(house.data("login.json")) == "mine"
    assert os.path.islink(house.app("login.json"))


def test_what_a_bot_appends_to_its_copy_is_in_nobody_elses(house, first):
    house.bring(first)
    house.bring(first, "bob/shop")
    with open(house.app("index.js"), "a") as file:
        file.write(" and more")
    assert read(house.app("index.js", "bob/shop")) == "first"
    assert releases.verify(first) == []


def test_without_links_everything_is_copied_and_private_files_stay_private(house, first):
    house.bring(first, links=False)
    assert own_picture(house)["node_modules/left/index.js"] == "left 1"
    assert not os.path.islink(house.app("node_modules"))
    assert only(house) == ["app", "data"]
    assert os.path.islink(house.app("config.json"))
    write(house.app("node_modules/left/index.js"), "patched")
    write(house.app("own.txt"), "own")
    assert not house.bring(first, links=False).changed
    brought = house.bring(first)
    assert brought.changed
    assert os.readlink(house.app("node_modules")) == f"{first.tree}/node_modules"
    assert read(house.app("own.txt")) == "own"
    assert read(house.data(f"replaced/{first.hash[:12]}/node_modules/left/index.js")) == "patched"
    assert not os.path.exists(house.data(f"replaced/{first.hash[:12]}/node_modules/left/package.json"))
    assert house.bring(first, links=False).changed
    assert own_picture(house)["node_modules/left/index.js"] == "left 1"


def test_a_file_system_without_links_gets_copies_and_says_so(house, first, second, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    release = house.release({k: v for k, v in FIRST.items() if k != "current"}, "plain")
    brought = house.bring(release)
    assert any("cannot hold symbolic links" in note for note in brought.notes)
    assert not house.bring(release).changed
    write(house.app("config.json"), "mine")
    write(house.app("data/words.txt"), "mine too")
    write(house.app("login.json"), "logged in")
    later = house.release({k: v for k, v in SECOND.items() if k != "current"}, "plain")
    assert house.bring(later).changed
    assert read(house.app("index.js")) == "second"
    assert read(house.app("config.json")) == "mine"
    assert read(house.app("data/words.txt")) == "mine too"
    assert read(house.app("login.json")) == "logged in"


# --- switched -----------------------------------------------------------------------------------------------------


def test_another_release_replaces_what_the_former_brought_and_nothing_else(house, first, second):
    house.bring(first)
    write(house.app("session.txt"), "mine")
    write(house.app("src/cache/a"), "mine too")
    write(house.app("src/deep/log"), "beside code that goes")
    os.mkdir(house.app("empty"))
    os.symlink("session.txt", house.app("latest"))
    os.mkfifo(house.app("pipe"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(house.app("sock"))
    write(house.app("notes.txt"), "changed by the bot")
    write(house.data("config.json"), "configured")
    brought = house.bring(second)
    assert brought.changed
    assert layout.current(house.paths, BOT) == ("messenger", second.hash)
    found = own_picture(house)
    assert found["index.js"] == "second"
    assert found["src/util.js"] == "util 2"
    assert found["new.js"] == "new"
    assert found["node_modules"] == ("->", f"{second.tree}/node_modules")
    assert found["session.txt"] == "mine"
    assert found["src/cache/a"] == "mine too"
    assert found["src/deep/log"] == "beside code that goes"
    assert "src/deep/er.js" not in found
    assert "empty" in found
    assert found["latest"] == ("->", "session.txt")
    assert found["pipe"] == found["sock"] == "something else"
    assert found["notes.txt"] == "changed by the bot"
    assert read(house.data("config.json")) == "configured"
    assert any("notes.txt" in note for note in brought.notes)
    assert only(house) == ["app", "app.previous", "data", "node_modules"]
    assert os.readlink(f"{house.paths.bot(BOT)}/node_modules") == f"{second.tree}/node_modules"


def test_a_folder_of_the_former_release_goes_when_nothing_of_the_bot_is_in_it(house, first, second):
    house.bring(first)
    house.bring(second)
    assert not os.path.exists(house.app("src/deep"))


def test_where_both_changed_a_file_the_release_wins_and_the_bots_is_kept(house, first, second):
    house.bring(first)
    write(house.app("index.js"), "my own patch")
    brought = house.bring(second)
    assert read(house.app("index.js")) == "second"
    assert read(house.data(f"replaced/{first.hash[:12]}/index.js")) == "my own patch"
    assert any("index.js" in note and first.hash[:12] in note for note in brought.notes)


def test_the_kept_versions_do_not_replace_each_other(house, first, second):
    house.bring(first)
    for text in ("one", "two"):
        write(house.app("src/util.js"), text)
        house.bring(second)
        house.bring(first)
    kept = house.data(f"replaced/{first.hash[:12]}/src")
    assert sorted(os.listdir(kept)) == ["util.js", "util.js~2"]
    assert {read(f"{kept}/util.js"), read(f"{kept}/util.js~2")} == {"one", "two"}


def test_a_name_that_the_bot_took_first_is_the_releases(house, first):
    later = house.release({**FIRST, "new.js": "of the release", "lib/a.js": "a", "was": "a file"})
    house.bring(first)
    write(house.app("new.js"), "the bot's")
    write(house.app("lib"), "a file of the bot's")
    write(house.app("was/a"), "folder of the bot's")
    write(house.app("was/b/c"), "deep in it")
    brought = house.bring(later)
    kept = picture(house.data(f"replaced/{first.hash[:12]}"))
    assert read(house.app("new.js")) == "of the release"
    assert read(house.app("lib/a.js")) == "a"
    assert read(house.app("was")) == "a file"
    assert kept == {
        "new.js": "the bot's",
        "lib": "a file of the bot's",
        "was": None,
        "was/a": "folder of the bot's",
        "was/b": None,
        "was/b/c": "deep in it",
    }
    assert len(brought.notes) == 1


def test_back_again_everything_is_as_it_was(house, first, second):
    house.bring(first)
    write(house.app("session.txt"), "mine")
    before = own_picture(house)
    house.bring(second)
    house.bring(first)
    assert own_picture(house) == before


def test_a_release_that_is_no_more_costs_the_bot_nothing(house, first, second, monkeypatch):
    house.bring(first)
    write(house.app("session.txt"), "mine")
    write(house.app("index.js"), "patched")
    record = json.loads(read(house.app(".botd-release")))
    write(house.app(".botd-release"), json.dumps({**record, "release": "0" * 64}))
    house.bring(second)
    assert read(house.app("session.txt")) == "mine"
    assert read(house.app("index.js")) == "second"
    assert read(house.data("replaced/unknown/index.js")) == "patched"
    assert own_picture(house)["node_modules"] == ("->", f"{second.tree}/node_modules")


def test_what_is_newly_private_moves_into_data(house, first):
    later = house.release({**FIRST, "botd-template.toml": 'schema = 1\n[files]\nprivate = ["session.txt", "store/"]\n'})
    house.bring(first)
    write(house.app("session.txt"), "mine")
    write(house.app("store/a"), "mine too")
    brought = house.bring(later)
    assert read(house.data("session.txt")) == "mine"
    assert read(house.data("store/a")) == "mine too"
    assert os.path.islink(house.app("session.txt"))
    assert os.path.islink(house.app("store"))
    assert sum("moved into data/" in note for note in brought.notes) == 2


def test_a_seed_is_sown_once(house, first, second):
    house.bring(first)
    house.bring(second)
    assert read(house.data("config.json")) == '{"seed": 1}'
    os.unlink(house.data("config.json"))
    house.bring(first)
    assert not os.path.exists(house.data("config.json"))
    house.bring(second, "bob/shop")
    assert read(house.data("config.json", "bob/shop")) == '{"seed": 2}'


def test_a_life_of_the_former_release_keeps_its_files(house, first, second):
    house.bring(first)
    cwd = os.open(house.app(), os.O_RDONLY)
    try:
        house.bring(second)
        with open("src/util.js", opener=lambda name, flags: os.open(name, flags, dir_fd=cwd)) as file:
            assert file.read() == "util 1"
        with open("config.json", opener=lambda name, flags: os.open(name, flags, dir_fd=cwd)) as file:
            assert file.read() == '{"seed": 1}'
    finally:
        os.close(cwd)


def test_the_former_folder_goes_with_the_next_switch(house, first, second):
    for release in (first, second, first):
        house.bring(release)
    assert json.loads(read(f"{house.paths.bot(BOT)}/app.previous/.botd-release"))["release"] == second.hash


@pytest.mark.parametrize("how", ["swap", "renames"])
def test_both_ways_to_switch(house, first, second, how, monkeypatch):
    if how == "renames":
        monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    house.bring(first)
    write(house.app("own"), "own")
    for release in (second, first, second):
        house.bring(release)
        assert read(house.app("own")) == "own"
        assert only(house) == ["app", "app.previous", "data", "node_modules"]


def test_thousands_of_files_of_a_bot_come_along(house, first, second):
    house.bring(first)
    os.mkdir(house.app("many"))
    folder = os.open(house.app("many"), os.O_RDONLY)
    for number in range(3000):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder))
    os.close(folder)
    house.bring(second)
    assert len(os.listdir(house.app("many"))) == 3000


# --- private files ------------------------------------------------------------------------------------------------


def test_a_private_file_replaced_by_a_rename_becomes_the_newer_truth(house, first):
    house.bring(first)
    write(house.app("config.json.tmp"), "newer")
    os.rename(house.app("config.json.tmp"), house.app("config.json"))
    assert layout.gather(house.paths, BOT) == ["config.json"]
    assert read(house.data("config.json")) == "newer"
    assert os.readlink(house.app("config.json")) == "../data/config.json"
    assert layout.gather(house.paths, BOT) == []


def test_a_private_folder_replaced_by_a_real_one_keeps_both(house, first):
    house.bring(first)
    os.unlink(house.app("data"))
    write(house.app("data/newer"), "newer")
    assert layout.gather(house.paths, BOT) == ["data"]
    assert picture(house.data("data")) == {"newer": "newer"}
    assert read(house.data(f"replaced/{first.hash[:12]}/data/words.txt")) == "seeded"


def test_links_that_were_removed_come_back_at_the_next_start(house, first):
    house.bring(first)
    for name in ("config.json", "node_modules"):
        os.unlink(house.app(name))
    os.unlink(f"{house.paths.bot(BOT)}/node_modules")
    assert not house.bring(first).changed
    assert read(house.app("config.json")) == '{"seed": 1}'
    assert os.path.isdir(house.app("node_modules/left"))
    assert os.path.isdir(f"{house.paths.bot(BOT)}/node_modules/left")


def test_a_home_that_was_moved_works_on(house, first, second):
    house.bring(first)
    here = f"{first.tree}/node_modules"
    for release in (first, second):
        for link in (house.app("node_modules"), f"{house.paths.bot(BOT)}/node_modules"):
            os.unlink(link)
            os.symlink(here.replace(house.home, "/elsewhere"), link)
        house.bring(release)
        assert os.readlink(house.app("node_modules")) == f"{release.tree}/node_modules"
        assert os.readlink(f"{house.paths.bot(BOT)}/node_modules") == f"{release.tree}/node_modules"


def test_what_could_not_be_finished_takes_no_room_and_changes_nothing(house, first, second, monkeypatch):
    house.bring(first)
    before = own_picture(house)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(records, "write", full)
        with pytest.raises(BotdError) as refused:
            house.bring(second)
    assert refused.value.kind == "unavailable"
    assert "No space left" in refused.value.message and "df -h" in refused.value.hint
    assert only(house) == ["app", "data", "node_modules"]
    assert own_picture(house) == before


def test_gathering_where_there_is_nothing_is_no_error(house):
    assert layout.gather(house.paths, BOT) == []
    assert layout.current(house.paths, BOT) is None
    assert layout.cost(house.paths, BOT) == (0, 0)


# --- power cuts -----------------------------------------------------------------------------------------------------


def another_boot(monkeypatch):
    monkeypatch.setattr(records, "boot", lambda: "another")


def torn(path, text):
    """As a power cut leaves it: the name and the times are there, the content is not."""
    st = os.stat(path)
    write(path, text)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def test_copies_that_a_power_cut_emptied_are_filled_again(house, first, monkeypatch):
    house.bring(first)
    torn(house.app("index.js"), "")
    torn(house.app("src/util.js"), "util\0\0")
    torn(house.app("notes.txt"), "\0" * 12)
    torn(house.data("config.json"), "")
    torn(house.data("data/words.txt"), "see")
    house.bring(first)
    assert read(house.app("index.js")) == "", "the same boot: nothing can have been lost"
    another_boot(monkeypatch)
    assert not house.bring(first).changed
    assert read(house.app("index.js")) == "first"
    assert read(house.app("src/util.js")) == "util 1"
    assert read(house.app("notes.txt")) == "same in both"
    assert read(house.data("config.json")) == '{"seed": 1}'
    assert read(house.data("data/words.txt")) == "seeded"
    torn(house.app("index.js"), "")
    house.bring(first)
    assert read(house.app("index.js")) == "", "it was looked over in this boot"


def test_what_the_bot_emptied_itself_stays_empty(house, first, monkeypatch):
    house.bring(first)
    later = time.time() + 5
    for path in (house.app("index.js"), house.data("config.json")):
        write(path, "")
        os.utime(path, (later, later))
    write(house.app("notes.txt"), "a change of the bot's")
    another_boot(monkeypatch)
    house.bring(first)
    assert read(house.app("index.js")) == ""
    assert read(house.data("config.json")) == ""
    assert read(house.app("notes.txt")) == "a change of the bot's"


def test_a_record_that_a_power_cut_emptied_loses_nothing(house, first, second):
    house.bring(first)
    write(house.app("own"), "own")
    torn(house.app("index.js"), "")
    torn(house.app(".botd-release"), "")
    assert layout.current(house.paths, BOT) is None
    assert house.bring(first).changed
    assert read(house.app("index.js")) == "first"
    assert read(house.app("own")) == "own"
    assert not os.path.exists(house.data("replaced"))


# --- hostile bots -----------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(house):
    folder = f"{house.home}/victim"
    write(f"{folder}/precious", "precious")
    yield folder
    assert picture(folder) == {"precious": "precious"}


@pytest.mark.parametrize("what", ["link", "dangling", "file", "fifo"])
def test_a_data_that_is_no_folder_is_refused(house, first, second, victim, what):
    house.bring(first)
    before = own_picture(house)
    os.rename(house.data(), f"{house.home}/aside")
    plant(what, house.data(), victim)
    with pytest.raises(BotdError) as refused:
        house.bring(second)
    assert refused.value.kind == "conflict"
    assert "data" in refused.value.message
    assert own_picture(house) == before
    os.unlink(house.data())
    os.rename(f"{house.home}/aside", house.data())
    assert house.bring(second).changed


def plant(what, at, victim):
    if what == "link":
        os.symlink(victim, at)
    elif what == "dangling":
        os.symlink(f"{victim}/made", at)
    elif what == "fifo":
        os.mkfifo(at)
    else:
        write(at, "a file")


@pytest.mark.parametrize("what", ["link", "dangling", "file", "fifo"])
@pytest.mark.parametrize("name", ["app", "app.new", "app.previous", "node_modules"])
def test_what_was_planted_beside_is_not_followed(house, first, second, victim, name, what):
    house.bring(first)
    at = f"{house.paths.bot(BOT)}/{name}"
    if os.path.lexists(at):
        os.rename(at, f"{house.home}/aside")
    plant(what, at, victim)
    house.bring(second)
    assert read(house.app("index.js")) == "second"
    assert house.bring(first).changed


@pytest.mark.parametrize("path", ["src", "src/util.js", "index.js", ".botd-release", "node_modules", "own"])
@pytest.mark.parametrize("what", ["link", "dangling", "fifo"])
def test_what_was_planted_in_app_is_not_followed(house, first, second, victim, path, what):
    house.bring(first)
    if os.path.lexists(house.app(path)):
        os.rename(house.app(path), f"{house.home}/aside")
    plant(what, house.app(path), victim)
    house.bring(second)
    assert read(house.app("index.js")) == "second"
    assert read(house.app("src/util.js")) == "util 2"
    assert layout.current(house.paths, BOT) == ("messenger", second.hash)


@pytest.mark.parametrize("path", ["sub", "sub/login.json", "replaced"])
def test_what_was_planted_in_data_is_not_followed(house, victim, path):
    manifest = {"botd-template.toml": 'schema = 1\n[files]\nprivate = ["sub/login.json"]\n'}
    first = house.release({"index.js": "1", "sub/code.js": "1", **manifest})
    second = house.release({"index.js": "2", "sub/code.js": "2", **manifest})
    house.bring(first)
    write(house.app("index.js"), "patched")
    os.unlink(house.app("sub/login.json"))
    write(house.app("sub/login.json"), "replaced by a rename")
    at = house.data(path)
    if os.path.isdir(at):
        os.rmdir(at)
    plant("link", at, victim)
    try:
        house.bring(second)
    except BotdError as refused:
        assert refused.kind == "conflict"
        assert "data/" in refused.message
        assert read(house.app("index.js")) == "patched"
        os.unlink(at)
        house.bring(second)
    assert read(house.app("index.js")) == "2"
    assert read(house.data("sub/login.json")) == "replaced by a rename"
    assert read(house.data(f"replaced/{first.hash[:12]}/index.js")) == "patched"


@pytest.mark.parametrize(
    "record",
    [
        '{"template": "../../..", "release": "x"}',
        "[" * 4000,
        "not JSON",
        '{"template": 5, "release": null}',
        "\x00" * 100,
        '{"template": "messenger", "release": "' + "f" * 64 + '", "links": "all"}',
    ],
)
def test_a_record_that_the_bot_wrote_decides_nothing(house, first, second, record):
    house.bring(first)
    write(house.app("own"), "own")
    write(house.app(".botd-release"), record)
    assert layout.current(house.paths, BOT) is None
    assert house.bring(second).changed
    assert read(house.app("own")) == "own"
    assert layout.current(house.paths, BOT) == ("messenger", second.hash)


DEPTH = 1100
"""More than Python calls, and more than descriptors as a rule, can be deep."""


def test_any_depth_and_odd_names(house, first, second):
    house.bring(first)
    fd = os.open(house.app(), os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    for name in ("new\nline", "\udcff\udc80", "x" * 255, "-rf", "\x1b[31m"):
        write(house.app(name), "odd")
    house.bring(second)
    assert "odd" == read(house.app("new\nline")) == read(house.app("\udcff\udc80"))
    fd = os.open(house.app(), os.O_RDONLY)
    for _ in range(DEPTH):
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.listdir(fd) == ["leaf"]
    os.close(fd)


def test_a_folder_without_rights_comes_along(house, first, second):
    house.bring(first)
    write(house.app("closed/own"), "own")
    for path in ("closed", "notes.txt", "index.js"):
        os.chmod(house.app(path), 0)
    house.bring(second)
    assert read(house.app("closed/own")) == "own"
    assert read(house.app("index.js")) == "second"


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_bot_costs_its_own_files_only(house, first):
    house.bring(first)
    bytes_, inodes = layout.cost(house.paths, BOT)
    assert inodes == 1 + len(picture(house.paths.bot(BOT)))
    assert bytes_ == sum(
        os.lstat(at).st_blocks * 512
        for at in (house.paths.bot(BOT), *(f"{house.paths.bot(BOT)}/{path}" for path in picture(house.paths.bot(BOT))))
    )
