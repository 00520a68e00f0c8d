"""Python templates with real interpreters: an environment that moved, one made of requirements, and no network."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from releases_house import House

from botd.contract.errors import BotdError
from botd.storage import releases
from botd.storage.releases.venv import Venvs, is_trusted

BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))

WHEEL = {
    "greeter/__init__.py": "import sys\nWHERE = __file__\n"
    "def main():\n    print('hello from', sys.prefix, *sys.argv[1:])\n",
    "greeter/words.py": "def fail():\n    raise ValueError('x')\n",
    "greeter-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
    "greeter-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeter-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
}


def make_wheel(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with zipfile.ZipFile(folder / "greeter-1.0-py3-none-any.whl", "w") as archive:
        for name, text in WHEEL.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(text)}\n")
        archive.writestr("greeter-1.0.dist-info/RECORD", "".join(rows) + "greeter-1.0.dist-info/RECORD,,\n")


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=True, **more).stdout.strip()


def check_environment(house, added, venv):
    """It is whole, precompiled, and works from where it lies, also behind a link."""
    tree = house.tree(added)
    site = next((tree / venv / "lib").glob("python*/site-packages"))
    release = house.load(added)
    assert release.python == f"{tree}/{venv}/bin/python"
    assert house.classes(added)[venv] == "link"
    assert run(f"{tree}/{venv}/bin/greet", "x") == f"hello from {tree / venv} x"
    link = house.folder / "a folder with blanks"
    link.symlink_to(tree / venv)
    assert run(link / "bin/greet").startswith("hello from ")
    code = "import greeter, sys; print(greeter.WHERE, greeter.__cached__, sys.prefix)"
    where, cached, prefix = run(release.python, "-c", code).split()
    assert (where, prefix) == (f"{site}/greeter/__init__.py", f"{tree}/{venv}")
    assert os.path.exists(cached)
    with open(cached, "rb") as file:
        assert int.from_bytes(file.read(8)[4:], "little") == 0b01  # of a hash, and unchecked
    failing = subprocess.run(
        [release.python, "-c", "import greeter.words as w; w.fail()"], capture_output=True, text=True
    )
    assert f'"{site}/greeter/words.py", line 2' in failing.stderr
    rows = dict(line.split(",", 1) for line in (site / "greeter-1.0.dist-info/RECORD").read_text().splitlines())
    assert not any(".pyc" in name for name in rows)
    script = (tree / venv / "bin/greet").read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(script).digest()).rstrip(b"=").decode()
    assert rows["../../../bin/greet"] == f"sha256={digest},{len(script)}"
    assert str(house.folder).encode() not in script
    assert not list((tree / venv / "bin").glob("?ctivate*"))
    house.check_all()
    house.check_tidy()


def test_an_environment_that_the_source_brings_works_where_the_release_lies(house):
    run(BASE, "-I", "-m", "venv", "--without-pip", house.source / ".venv")
    site = next((house.source / ".venv/lib").glob("python*/site-packages"))
    make_wheel(house.folder / "w")
    with zipfile.ZipFile(house.folder / "w/greeter-1.0-py3-none-any.whl") as archive:
        archive.extractall(site)
    script = house.source / ".venv/bin/greet"
    script.write_text(
        f"#!{house.source}/.venv/bin/python\n# -*- coding: utf-8 -*-\n"
        "import sys\nfrom greeter import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    record = site / "greeter-1.0.dist-info/RECORD"
    record.write_text(record.read_text() + "../../../bin/greet,sha256=old,1\ngreeter/__pycache__/x.cpython-311.pyc,,\n")
    (site / "editable.pth").write_text("/home/somebody/src\n")
    house.write({"main.py": "import greeter\n", "requirements.txt": "greeter\n"})
    added = house.add()
    assert house.load(added).manifest["command"] == ["{python}", "main.py"]
    assert any("editable.pth: leads to '/home/somebody/src'" in note for note in added.notes)
    run("rm", "-rf", house.source / ".venv/lib")  # what is in the release needs nothing of it
    check_environment(house, added, ".venv")


REQUIREMENTS = """\
schema = 1
command = ["{python}", "-m", "greeter"]
[python]
requirements = "requirements.txt"
wheels = "wheels"
"""


def test_an_environment_made_of_requirements_and_dying_while_it_is_made(house):
    house.write({"botd-template.toml": REQUIREMENTS, "main.py": "1", "requirements.txt": "greeter==1.0\n"})
    make_wheel(house.source / "wheels")
    for point in ("store-venv-made", "store-venv-brought"):
        assert house.die_at(point, house.add)
        assert house.templates() == []
    added = house.add()
    assert house.classes(added)["wheels"] == "ignored"
    check_environment(house, added, ".venv")
    (house.source / "main.py").write_text("2")
    second = house.add()
    assert second.new
    made = [
        [entry for entry in releases.entries(house.load(one)) if entry.path != "main.py" and ".pyc" not in entry.path]
        for one in (added, second)
    ]
    assert made[0] == made[1], "the same requirements make the same environment"


def test_requirements_that_cannot_be_had_are_told_in_the_words_of_pip(house):
    house.write({"botd-template.toml": REQUIREMENTS, "main.py": "1", "requirements.txt": "no-such-thing==1.0\n"})
    make_wheel(house.source / "wheels")
    with pytest.raises(BotdError) as caught:
        house.add()
    assert caught.value.exit == 9 and "no-such-thing" in caught.value.message and "pip wheel" in caught.value.hint
    house.check_tidy()
    (house.source / "botd-template.toml").write_text(REQUIREMENTS + 'interpreter = "no-python"\n')
    with pytest.raises(BotdError, match="there is no no-python"):
        house.add()


def test_an_interpreter_that_others_could_replace_is_not_run(house):
    fake = house.folder / "bin/python3"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {house.folder}/ran\n")
    fake.chmod(0o755)
    fake.parent.chmod(0o777)
    assert not is_trusted(str(fake))
    fake.parent.chmod(0o755)
    assert is_trusted(str(fake.resolve()))
    fake.parent.chmod(0o777)
    house.write({"main.py": "1", ".venv/pyvenv.cfg": "", ".venv/bin/python": f"->{fake}", ".venv/lib/a.py": "1"})
    added = house.add()
    assert any("was not precompiled" in note for note in added.notes)
    assert not (house.folder / "ran").exists()
    assert releases.verify(house.load(added)) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"#!/old/.venv/bin/python3.11\nx", b"'python3.11' \"$0\""),
        (b"#! /old/.venv/bin/python -E -s\nx", b"'python' -E -s \"$0\""),
        (b"#!/bin/sh\n'''exec' \"/a b/bin/python3\" \"$0\" \"$@\"\n' '''\nx", b"'python3' \"$0\""),
        (b"#!/bin/sh\n'''exec' /very/long/bin/python3 \"$0\" \"$@\"\n' '''\nx", b"'python3' \"$0\""),
        (b"#!/old/bin/python $(reboot)\nx", b"'python' \"$0\""),
    ],
)
def test_the_first_lines_of_scripts(before, after):
    made = Venvs(["v"]).edit("v/bin/tool", before)
    lines = made.split(b"\n")
    assert lines[0] == b"#!/bin/sh" and after in lines[1] and lines[2:] == [b"' '''", b"x"]
    assert b"old" not in made and b"reboot" not in made
    assert Venvs(["v"]).edit("v/bin/tool", made) == made


@pytest.mark.parametrize("text", [b"#!/usr/bin/env python3\n", b"#!/bin/sh\necho\n", b"\x7fELF", b"", b"#!/bin/perl\n"])
def test_scripts_that_stay_as_they_are(text):
    assert Venvs(["v"]).edit("v/bin/tool", text) == text
