"""kill -9 at each step: app/ is what it was or what it is to be, and the next attempt ends it as if nothing was."""

import os
import re
from pathlib import Path

import pytest
from layout_house import BOT, House, picture, read, write

from botd import crash
from botd.storage import layout
from botd.storage.layout import exchange

FIRST = {
    "index.js": "first",
    "src/util.js": "util 1",
    "notes.txt": "same",
    "gone/old.js": "old",
    "node_modules/left/index.js": "left",
    "config.json": "seed",
    "data/words.txt": "seeded",
    "botd-template.toml": 'schema = 1\n[files]\nprivate = ["kept/", "login.json"]\n',
}
SECOND = {**FIRST, "index.js": "second", "src/util.js": "util 2", "src/new.js": "new"}
del SECOND["gone/old.js"]


@pytest.fixture
def house():
    one = House()
    yield one
    one.close()


def dies_at(point, passes, work):
    """Do it in a child of ours; whether it came to that point and died there."""
    pid = os.fork()
    if pid == 0:
        try:
            crash._name, crash._passes = point, passes
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a child ends here, whatever it was
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -9), f"it failed at {point}"
    return status == -9


def in_the_source():
    found = set()
    for source in (Path(layout.__file__).parent).glob("*.py"):
        found |= set(re.findall(r'crash_point\("([^"]+)"\)', source.read_text()))
    assert len(found) > 5, "the way to the source is not that any more"
    return found


def seen(house):
    """What a program reads in app/: the texts, wherever they lie."""
    found = {}
    for here, _, files in os.walk(house.app(), followlinks=True):
        for name in files:
            at = f"{here}/{name}"
            if name != ".botd-release" and os.path.exists(at):
                found[os.path.relpath(at, house.app())] = read(at)
    return found


def nothing(house):
    pass


def lived(house):
    """A life of a bot that did what bots do."""
    house.bring(house.first)
    write(house.app("session.txt"), "mine")
    write(house.app("own/deep/file"), "mine too")
    write(house.app("gone/log"), "beside what goes")
    write(house.app("notes.txt"), "changed")
    write(house.app("index.js"), "patched")
    os.rename(house.app("session.txt"), house.app("session.tmp"))
    for name in ("config.json", "login.json"):
        write(house.app("temporary"), f"newer {name}")
        os.rename(house.app("temporary"), house.app(name))
    os.unlink(house.app("kept"))
    write(house.app("kept/by"), "a real folder")
    write(house.data("kept/before"), "there before")


def lived_before(house):
    """app.previous is there as well, and to go."""
    house.bring(house.second)
    lived(house)


CASES = {
    "made": (nothing, "first", "swap"),
    "switched": (lived, "second", "swap"),
    "switched by two renames": (lived_before, "second", "renames"),
    "taken back": (lived_before, "second", "swap"),
}
reached, walked = set(), set()


@pytest.mark.parametrize("case", CASES)
def test_every_step(house, monkeypatch, case):
    before, target, how = CASES[case]
    if how == "renames":
        monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    house.first, house.second = house.release(FIRST), house.release(SECOND)
    release = getattr(house, target)
    before(house)
    expected_before = seen(house)
    os.rename(house.paths.bots, f"{house.home}/lived")

    def begin():
        os.system(f"rm -rf {house.paths.bots} && cp -a {house.home}/lived {house.paths.bots}")

    begin()
    house.bring(release)
    expected, everything = seen(house), whole(house)
    for point in sorted(in_the_source()):
        for passes in (1, 3):
            begin()
            if not dies_at(point, passes, lambda: house.bring(release)):
                break
            reached.add(point)
            if point not in ("botd-app-put-by", "botd-gather-moved", "botd-gather-aside"):
                # Two renames have an instant without app/, and a folder has none but one name.
                assert seen(house) in (expected_before, expected), f"half done at {point}"
            house.bring(release)
            assert seen(house) == expected, f"lost at {point}:{passes}"
            assert whole(house) == everything, f"left over from {point}:{passes}"
    walked.add(case)


def whole(house):
    found = picture(house.paths.bot(BOT))
    return {path: what for path, what in found.items() if not path.endswith(".botd-release")}


def test_every_point_was_reached():
    """Of the cases above; when only some of them are asked for it has nothing to say."""
    if walked == set(CASES):
        assert reached == in_the_source()


def test_gathering_loses_nothing_at_any_step(house):
    house.first = house.release(FIRST)
    house.second = house.first
    lived(house)
    expected = seen(house)
    os.rename(house.paths.bots, f"{house.home}/lived")
    for point in ("botd-gather-linked", "botd-gather-moved", "botd-gather-aside"):
        os.system(f"rm -rf {house.paths.bots} && cp -a {house.home}/lived {house.paths.bots}")
        assert dies_at(point, 1, lambda: layout.gather(house.paths, BOT))
        layout.gather(house.paths, BOT)
        assert seen(house) == expected
