"""Sources that want to harm: every refusal names the path and says what to do."""

from __future__ import annotations

import gzip
import json
import os
import resource
import socket
import stat
import subprocess
import tarfile
import threading

import pytest
from releases_house import NPM, ROOT, House, tar, zip_of

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.storage import releases
from botd.storage.releases import scan
from botd.storage.releases.__main__ import command


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


def refusal(house, source=None, **more):
    with pytest.raises(BotdError) as caught:
        house.add(source, **more)
    error = caught.value
    assert error.hint and error.message.isprintable()
    assert house.templates() == []
    house.check_tidy()
    return error


@pytest.mark.parametrize(
    ("files", "path", "why"),
    [
        ({"l": "->/etc/passwd"}, "l", "an absolute path"),
        ({"a/l": "->../../x"}, "a/l", "out of the template"),
        ({"a/l": "->../b/../../x", "b/c": "1"}, "a/l", "out of the template"),
        ({"a/d": None, "m": "->a/d", "l": "->m/../../../x"}, "l", "out of the template"),
        ({"l": "->l"}, "l", "in a circle"),
        ({"bin/python": "->/usr/bin/python3"}, "bin/python", "an absolute path"),
        ({".venv/pyvenv.cfg": "", ".venv/bin/python": "->/etc/passwd"}, ".venv/bin/python", "an absolute path"),
        ({".venv/pyvenv.cfg": "", ".venv/bin/python": "->/no/python3"}, ".venv/bin/python", "an absolute path"),
        ({".venv/pyvenv.cfg": "", ".venv/bin/sh": "->/usr/bin/python3"}, ".venv/bin/sh", "an absolute path"),
        ({"node_modules/x": "->/etc"}, "node_modules/x", "an absolute path"),
        ({"a\nb.js": "1"}, "a\\nb.js", "control character"),
        ({"a\x1b[2J": "1"}, "a\\x1b[2J", "control character"),
        ({"botd-template.toml": "x"}, "botd-template.toml", "no TOML"),
        ({"botd-template.toml": "schema = 1\nmax_files = 1\n", "a": "", "b": ""}, "b", "max_files"),
        ({"botd-template.toml": "schema = 1\nmax_bytes = 9\n", "a": "x" * 10}, "a", "max_bytes"),
        ({"botd-template.toml": None}, "botd-template.toml", "is no file"),
        ({".botdignore": "->/etc/passwd"}, ".botdignore", "cannot be read"),
        ({"botd-template.toml": 'schema = 1\n[python]\nvenv = "v"\n'}, "python.venv", "no virtual environment"),
        ({"botd-template.toml": 'schema = 1\n[python]\nrequirements = "r.txt"\n'}, "python.requirements", "not there"),
    ],
)
def test_what_no_release_can_have(house, files, path, why):
    house.write(files)
    error = refusal(house)
    assert error.message.startswith(f"{path}: ") and why in error.message, error.message
    assert error.exit == 9


def test_names_that_are_no_utf_8(house):
    house.write(NPM)
    with open(os.fsencode(house.source) + b"/lib/caf\xe9.js", "w"):
        pass
    error = refusal(house)
    assert error.message.startswith(r"lib/caf\xe9.js: its name is not UTF-8")
    house.write({".botdignore": "caf*\n"})
    added = house.add()
    assert any(line.startswith(r"lib/caf\xe9.js: .botdignore") for line in added.left_out)


def test_things_that_are_no_files(house):
    house.write(NPM)
    os.mkfifo(house.source / "pipe")
    assert refusal(house).message.startswith("pipe: is a named pipe")
    os.unlink(house.source / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(house.source / "s"))
        assert refusal(house).message.startswith("s: is a socket")
        house.write({".botdignore": "/s\n"})
        assert house.add().new


@pytest.mark.root
def test_devices(house):
    os.mknod(house.source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert refusal(house).message.startswith("null: is a device")


def test_set_uid_is_dropped_and_told(house):
    house.write({"run": "x"})
    (house.source / "run").chmod(0o6755)
    added = house.add()
    assert any(note.startswith("run: its set-uid") for note in added.notes)
    assert stat.S_IMODE((house.tree(added) / "run").stat().st_mode) == 0o555


def test_what_cannot_be_read_is_named(house):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    house.write({"a/secret.js": "1"})
    (house.source / "a/secret.js").chmod(0)
    assert refusal(house).message.startswith("a/secret.js: cannot be read")
    (house.source / "a").chmod(0)
    assert refusal(house).message.startswith("a: cannot be read")


@pytest.mark.parametrize("where", ["nothing/there", "/dev/null", "\0"])
def test_sources_that_are_none(house, where):
    assert refusal(house, where).message


def test_the_home_is_no_source(house):
    house.write({"x": "1"})
    assert "folder of botd itself" in refusal(house, house.folder).message


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "A", "x" * 64])
def test_names_that_are_none(house, name):
    with pytest.raises(BotdError) as caught:
        house.add(template=name)
    assert caught.value.kind == "invalid"
    assert os.listdir(house.paths.home) == []


def test_a_tree_that_is_too_deep(house):
    fd = os.open(house.source, os.O_RDONLY)
    for _ in range(scan.DEPTH_MAX + 20):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert "deeper than" in refusal(house).message


# What changes while it is read.


def test_a_change_while_it_is_read_is_seen_and_read_again(house):
    house.write({"a.js": "old", "b.js": "old", "c.js": "1"})
    told = []

    def change(files, *_):
        if not told and files == 2:
            told.append(files)
            house.write({"a.js": "new", "b.js": "new"})

    added = house.add(progress=change)
    assert told
    assert [(house.tree(added) / name).read_text() for name in ("a.js", "b.js")] == ["new", "new"]
    house.check_all()


def test_a_name_that_comes_while_it_is_read_is_seen(house):
    house.write({"a.js": "1", "lib/b.js": "2"})

    def change(*_):
        if not (house.source / "lib/late.js").exists():
            house.write({"lib/late.js": "3"})

    assert "lib/late.js" in house.paths_of(house.add(progress=change))


def test_what_is_left_out_may_come_and_go(house):
    house.write({"a.js": "1", "lib/b.js": "2", ".botdignore": "*.log\n", "appstate.json": "[]"})
    count = iter(range(1000))

    def change(*_):
        house.write({f"lib/{next(count)}.log": "x", "lib/b.js.swp": "x", "appstate.json": f"[{next(count)}]"})

    assert house.paths_of(house.add(progress=change)) == {"a.js", "lib", "lib/b.js"}


def test_what_never_holds_still_is_refused(house):
    house.write({"a.js": "1", "b.js": "2"})
    count = iter(range(1000))

    def change(*_):
        house.write({"b.js": f"{next(count)}"})

    error = refusal(house, progress=change)
    assert error.kind == "conflict" and "changes while it is read" in error.message and "b.js" in error.message


def test_folders_that_turn_into_links_while_they_are_read_lead_nowhere(house):
    house.write({"lib/passwd": "mine", "index.js": "1"})
    (house.folder / "foreign").mkdir()
    (house.folder / "foreign/passwd").write_text("foreign")
    stop = threading.Event()
    swapped = []

    def swap():
        while not stop.is_set():
            os.rename(house.source / "lib", house.source / ".svn")
            os.symlink("../foreign", house.source / "lib")
            os.unlink(house.source / "lib")
            os.rename(house.source / ".svn", house.source / "lib")
            swapped.append(1)

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes = set()
    try:
        for _ in range(60):
            try:
                added = house.add()
            except BotdError as error:
                assert error.kind in ("conflict", "invalid")
                outcomes.add(error.kind)
            else:
                file = house.tree(added) / "lib/passwd"
                assert not file.exists() or file.read_text() == "mine"
                outcomes.add("added")
    finally:
        stop.set()
        thread.join()
    assert swapped and outcomes
    house.check_all()


# Archives.

TREE = [("package.json", b'{"main": "bot.js"}'), ("bot.js", b"1"), ("lib/run.sh", b"#!/bin/sh\n", 0o755)]


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("top", ["", "./", "package/"])
def test_archives_of_all_kinds_are_the_release_of_their_folder(house, mode, top):
    house.write({name: content for name, content, *_ in TREE})
    (house.source / "lib/run.sh").chmod(0o755)
    folder = house.add()
    members = [(top + name, *rest) for name, *rest in TREE]
    archive = tar(house.folder / "x.bin", [*members, (top + "lib/copy", "LNKTYPE", top + "bot.js")], mode)
    (house.source / "lib/copy").write_text("1")
    assert house.add().hash == house.add(archive, template="n").hash != folder.hash
    house.check_all()
    house.check_tidy()


def test_a_zip(house):
    archive = zip_of(
        house.folder / "x.zip",
        [("bot.js", "1", 0o100644), ("lib/", "", 0o40755), ("lib/l", "../bot.js", 0o120777), ("lib/x", "2", 0o100755)],
    )
    tree = house.tree(house.add(archive))
    assert (tree / "lib/l").readlink().as_posix() == "../bot.js"
    assert os.access(tree / "lib/x", os.X_OK)


@pytest.mark.parametrize(
    ("members", "path", "why"),
    [
        ([("../evil", b"x")], "../evil", "leads out of the archive"),
        ([("a/../../evil", b"x")], "a/../../evil", "leads out of the archive"),
        ([("/tmp/evil", b"x")], "/tmp/evil", "absolute path"),
        ([("l", "SYMTYPE", "/tmp"), ("l/evil", b"x")], "l/evil", "both a folder and something else"),
        ([("l/evil", b"x"), ("l", "SYMTYPE", "/tmp")], "l", "a link and something else"),
        ([("l", "SYMTYPE", "/etc/passwd"), ("b", b"")], "l", "an absolute path"),
        ([("l", "SYMTYPE", "../../etc/passwd"), ("b", b"")], "l", "out of the template"),
        ([("h", "LNKTYPE", "/etc/passwd"), ("b", b"")], "/etc/passwd", "absolute path"),
        ([("h", "LNKTYPE", "../x"), ("b", b"")], "../x", "leads out"),
        ([("h", "LNKTYPE", "gone"), ("b", b"")], "h", "is a hard link to gone"),
        ([("h", "LNKTYPE", "l"), ("l", "SYMTYPE", "/etc/passwd")], "h", "is a hard link to l"),
        ([("d", "CHRTYPE")], "d", "is a device"),
        ([("p", "FIFOTYPE")], "p", "is a named pipe"),
        ([("a", b"1"), ("a/b", b"1")], "a/b", "both a folder"),
        ([("x\x1by", b"1"), ("z", b"1")], "x\\x1by", "control character"),
        ([("/".join("d" * 150), b"1")], "d/d", "deeper than"),
    ],
)
def test_members_that_want_out(house, members, path, why):
    error = refusal(house, tar(house.folder / "x.tar", members))
    assert error.message.startswith(path) and why in error.message, error.message
    assert not os.path.lexists("/tmp/evil")


def test_set_uid_in_an_archive(house):
    added = house.add(tar(house.folder / "x.tar", [("run", b"x", 0o4755), ("b", b"")]))
    assert any(note.startswith("run: its set-uid") for note in added.notes)
    assert stat.S_IMODE((house.tree(added) / "run").stat().st_mode) == 0o555


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_bombs(house, mode):
    bomb = tar(house.folder / "x.tar", [("a", b"1"), ("zeros", bytes(20 << 20))], mode)
    error = refusal(house, bomb, manifest={"schema": 1, "max_bytes": 1 << 20})
    assert error.message.startswith("zeros: ") and "max_bytes" in error.message
    many = tar(house.folder / "y.tar", [(f"a{i}", b"") for i in range(200)], mode)
    assert "max_files" in refusal(house, many, manifest={"schema": 1, "max_files": 100}).message


def test_an_archive_with_endless_headers_is_refused_by_the_child(house):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 400 << 20
    with gzip.open(house.folder / "x.tar.gz", "wb", compresslevel=1) as out:
        out.write(header.tobuf())
        for _ in range(401):
            out.write(bytes(1 << 20))
    done = subprocess.run(
        command(house.paths, "m", str(house.folder / "x.tar.gz")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (350 << 20, 350 << 20)),
    )
    error = json.loads(done.stdout)["error"]
    assert "do not fit into memory" in error["message"] and done.stderr == ""
    house.check_tidy()


def test_a_zip_that_lies_about_its_sizes(house):
    path = zip_of(house.folder / "x.zip", [("../evil", "1", 0o100644)])
    assert "leads out" in refusal(house, path).message
    import zipfile

    with zipfile.ZipFile(house.folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20 << 20))
    raw = bytearray((house.folder / "z.zip").read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    (house.folder / "z.zip").write_bytes(raw)
    assert refusal(house, house.folder / "z.zip", manifest={"schema": 1, "max_bytes": 1 << 20})


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04", b"\x1f\x8b\x08\x00garbage", b"BZh9garbage", b"\xfd7zXZ\x00x", b"\0" * 100]
)
def test_what_is_no_archive(house, content):
    (house.folder / "x.tar").write_bytes(content)
    error = refusal(house, house.folder / "x.tar")
    assert "no archive, or damaged" in error.message and "tar -czf" in error.hint


def test_zstd_is_read_or_said_to_be_needed(house):
    house.write({"bot.js": "1"})
    made = subprocess.run(
        ["tar", "--zstd", "-cf", house.folder / "x.tar.zst", "-C", house.source, "."], capture_output=True, check=False
    )
    if made.returncode != 0:
        (house.folder / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfdx")
    try:
        assert house.add(house.folder / "x.tar.zst").new
    except BotdError as error:
        assert "zstd" in error.message or "damaged" in error.message


def test_an_archive_that_is_cut_off(house):
    whole = tar(house.folder / "x.tar.gz", [("a", os.urandom(200_000)), ("b", b"1")])
    whole.write_bytes(whole.read_bytes()[:100_000])
    assert "damaged" in refusal(house, whole).message


def test_a_disk_that_is_full_is_told(house, monkeypatch):
    house.write(NPM)
    real = os.write

    def full(fd, data):
        if bytes(data[:7]) == b"require":
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BotdError) as caught:
        house.add()
    monkeypatch.undo()
    assert (
        caught.value.kind == "unavailable" and "No space left" in caught.value.message and "df -h" in caught.value.hint
    )
    house.check_tidy()


def test_a_link_in_the_place_of_the_store_is_not_followed(house):
    house.write(NPM)
    foreign = house.folder / "foreign"
    foreign.mkdir()
    releases.recover(house.paths)
    os.mkdir(house.paths.templates)
    os.symlink(foreign, house.paths.staging)
    with pytest.raises(BotdError):
        house.add()
    assert os.listdir(foreign) == []
    assert releases.recover(Paths("/nowhere")).entries == 0
