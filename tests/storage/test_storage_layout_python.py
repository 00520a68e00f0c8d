"""Real Python programs in folders made from a template: each trap of naive links, and that it is none here."""

import json
import os
import subprocess
import sys

import pytest
from layout_house import House, picture, read, write

from botd.storage import releases

BOTS = ("alice/shop", "bob/shop")
LOOK = """
import json, os, sys
import config, helper, pack.inner
with open(os.path.join(os.path.dirname(__file__), "session.txt"), "w") as file:
    file.write(config.WHO)
with open("log.txt", "a") as file:
    file.write(config.WHO)
print(json.dumps({"file": __file__, "path": sys.path[0], "cwd": os.getcwd(), "who": config.WHO,
                  "config": config.__file__, "helper": helper.__file__, "inner": pack.inner.__file__}))
"""
MAIN = """
import json, sys
from . import inner
import config
print(json.dumps({"file": __file__, "path": sys.path[0], "inner": inner.__file__, "who": config.WHO}))
"""
SHARED = """
import json, sys
import thing, thing.part
print(json.dumps({"prefix": sys.prefix, "thing": thing.__file__, "who": thing.part.WHO, "cached": thing.__cached__}))
"""
FILES = {
    "bot.py": LOOK,
    "config.py": "WHO = 'seed'\n",
    "helper.py": "",
    "pack/__init__.py": "",
    "pack/__main__.py": MAIN,
    "pack/inner.py": "",
    "shared.py": SHARED,
    "vendor/vendored.py": "WHERE = __file__\n",
    "botd-template.toml": 'schema = 1\n[files]\nprivate = ["config.py"]\n',
}


@pytest.fixture(scope="module")
def house():
    one = House()
    source = one.source(FILES)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{source}/.venv"], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    one.packages = f".venv/lib/{version}/site-packages"
    write(f"{source}/{one.packages}/thing/__init__.py", "")
    write(f"{source}/{one.packages}/thing/part.py", "WHO = 'everybody'\n")
    one.first = one.release(source)
    for bot in BOTS:
        one.bring(one.first, bot)
        write(one.data("config.py", bot), f"WHO = {bot!r}\n")
    yield one
    one.close()


@pytest.mark.parametrize("bot", BOTS)
def test_a_script_is_first_on_its_path_and_finds_its_own_configuration(house, bot):
    app = house.app(bot=bot)
    assert json.loads(house.python("bot.py", bot=bot)) == {
        "file": f"{app}/bot.py",
        "path": app,
        "cwd": app,
        "who": bot,
        "config": f"{app}/config.py",
        "helper": f"{app}/helper.py",
        "inner": f"{app}/pack/inner.py",
    }
    assert read(house.app("session.txt", bot)) == read(house.app("log.txt", bot)) == bot


def test_a_package_run_by_its_name(house):
    app = house.app(bot=BOTS[0])
    assert json.loads(house.python("-m", "pack", bot=BOTS[0])) == {
        "file": f"{app}/pack/__main__.py",
        "path": app,
        "inner": f"{app}/pack/inner.py",
        "who": BOTS[0],
    }


@pytest.mark.parametrize("through", ["the release", "app"])
def test_a_shared_environment_is_used_and_nothing_is_written_into_it(house, through):
    root = house.first.tree if through == "the release" else house.app(bot=BOTS[0])
    before = picture(house.first.tree)
    told = json.loads(house.run(f"{root}/.venv/bin/python", "shared.py", bot=BOTS[0]))
    assert told["prefix"] == f"{root}/.venv"
    assert told["thing"] == f"{root}/{house.packages}/thing/__init__.py"
    assert told["who"] == "everybody"
    assert os.path.exists(told["cached"]), "compiled before it became read-only"
    assert picture(house.first.tree) == before
    assert releases.verify(house.first) == []


def test_vendored_code_is_shared(house):
    program = "import sys; sys.path.insert(0, 'vendor'); import vendored; print(vendored.WHERE)"
    assert house.python("-c", program, bot=BOTS[0]) == house.app("vendor/vendored.py", BOTS[0])
    assert os.path.realpath(house.app("vendor/vendored.py", BOTS[0])) == f"{house.first.tree}/vendor/vendored.py"
    if os.geteuid() != 0:
        assert releases.verify(house.first) == []


@pytest.fixture
def fresh():
    one = House()
    yield one
    one.close()


def test_code_that_everybody_shares_cannot_be_written_and_root_is_found_out(fresh):
    release = fresh.release(FILES)
    fresh.bring(release)
    try:
        write(fresh.app("vendor/vendored.py"), "changed by one bot")
        written = True
    except PermissionError:
        written = False
    assert written == (os.geteuid() == 0)
    assert any("vendored.py" in problem for problem in releases.verify(release)) == written


def test_byte_code_of_a_former_release_is_not_taken_for_that_of_the_new(fresh):
    """Same size, same second: by its times nobody could tell them apart."""
    shown = []
    for word in ("one", "two"):
        fresh.bring(fresh.release({"bot.py": "import part; print(part.WORD)", "part.py": f"WORD = {word!r}\n"}))
        os.utime(fresh.app("part.py"), (1_000_000_000, 1_000_000_000))
        shown.append(fresh.python("bot.py"))
    assert shown == ["one", "two"]
