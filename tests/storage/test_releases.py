"""The release store: what is added, what it shares, what it refuses to lose."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading

import pytest
from releases_house import NPM, ROOT, House, points

from botd.contract.errors import BotdError
from botd.storage import releases
from botd.storage.releases import model, objects
from botd.storage.releases.__main__ import command


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


def test_an_npm_tree(house):
    house.write(NPM)
    (house.source / "node_modules/a/cli.js").chmod(0o755)
    added = house.add()
    release = house.load(added)
    assert added.new and len(added.hash) == 64
    assert house.classes(added) == {
        ".env": "private",
        ".git": "ignored",
        "appstate.json": "private",
        "config.json": "private",
        "data": "private",
        "index.js": "copy",
        "lib": "copy",
        "node_modules": "link",
        "node_modules/.cache": "ignored",
        "package.json": "copy",
    }
    assert {line.partition(":")[0] for line in added.left_out} == {
        ".env",
        ".git",
        "appstate.json",
        "node_modules/.cache",
    }
    assert release.manifest["command"] == ["{node}", "index.js"]
    assert any("package.json: main" in note for note in added.notes)
    tree = house.tree(added)
    assert (tree / "node_modules/.bin/a").readlink().as_posix() == "../a/cli.js"
    assert not (tree / ".env").exists() and not (tree / ".git").exists()
    assert {p: stat.S_IMODE((tree / p).stat().st_mode) for p in ("index.js", "lib", "node_modules/a/cli.js")} == {
        "index.js": 0o444,
        "lib": 0o555,
        "node_modules/a/cli.js": 0o555,
    }
    assert stat.S_IMODE(os.stat(release.path).st_mode) == 0o555
    assert added.files == release.files == len([e for e in releases.entries(release) if e.type != "d"])
    house.check_all()
    house.check_tidy()


def test_the_same_tree_is_one_release_and_equal_files_are_stored_once(house):
    house.write(NPM)
    first = house.add()
    assert not house.add().new and house.add().stored_bytes == 0
    other = house.add(template="other")
    assert other.new and other.hash == first.hash
    (house.source / "index.js").write_text("changed")
    second = house.add()
    assert second.new and second.hash != first.hash
    assert releases.list_releases(house.paths, "m") == [first.hash, second.hash]
    inode = (house.tree(first) / "lib/util.js").stat().st_ino
    assert (house.tree(second) / "lib/util.js").stat().st_ino == inode
    assert (house.tree(other, "other") / "lib/util.js").stat().st_ino == inode
    assert (house.tree(second) / "index.js").stat().st_ino != (house.tree(first) / "index.js").stat().st_ino


def test_mode_counts_and_time_does_not(house):
    house.write({"run.py": "1", "same.py": "1"})
    first = house.add()
    tree = house.tree(first)
    assert (tree / "run.py").stat().st_ino == (tree / "same.py").stat().st_ino
    os.utime(house.source / "run.py", (1, 1))
    assert house.add().hash == first.hash
    (house.source / "run.py").chmod(0o755)
    second = house.add()
    assert second.hash != first.hash
    assert (house.tree(second) / "run.py").stat().st_ino != (house.tree(second) / "same.py").stat().st_ino
    house.check_all()


def test_pnpm_links_stay_as_they_are(house):
    house.write(
        {
            "index.js": "require('a')",
            "node_modules/.pnpm/a@1/node_modules/a/index.js": "require('b')",
            "node_modules/.pnpm/b@1/node_modules/b/index.js": "1",
            "node_modules/.pnpm/a@1/node_modules/b": "->../../b@1/node_modules/b",
            "node_modules/a": "->.pnpm/a@1/node_modules/a",
        }
    )
    added = house.add()
    assert house.classes(added) == {"index.js": "copy", "node_modules": "link"}
    assert (house.tree(added) / "node_modules/a/../b/index.js").read_text() == "1"


def test_the_manifest_of_the_source_and_one_of_the_caller(house):
    house.write(
        {
            "botd-template.toml": 'schema = 1\nmemory_mb = 64\n[files]\nlink = ["assets/"]\nignore = ["*.md"]\n',
            "assets/a.txt": "1",
            "README.md": "x",
            "notes.txt": "x",
            ".botdignore": "notes.*\n",
            "bot.py": "1",
        }
    )
    added = house.add()
    assert house.paths_of(added) == {"assets", "assets/a.txt", "bot.py"}
    assert house.load(added).manifest["memory_mb"] == 64
    assert house.classes(added)["assets"] == "link"
    own = house.add(manifest={"schema": 1, "command": ["sh", "x.sh"], "env": {"A": "b"}})
    assert own.hash != added.hash
    assert house.load(own).manifest["command"] == ["sh", "x.sh"]
    assert "README.md" in house.paths_of(own)
    file = house.folder / "other.toml"
    file.write_text('schema = 1\ncommand = ["sh", "x.sh"]\n[env]\nA = "b"\n')
    assert not house.add(manifest=str(file)).new
    for name in ("manifest.toml", "index.json"):
        assert stat.S_IMODE(os.stat(f"{house.load(own).path}/{name}").st_mode) == 0o400
    file.write_text("schema = 1\nmemory = 3\n")
    with pytest.raises(BotdError) as caught:
        house.add(manifest=str(file))
    assert caught.value.exit == 9 and caught.value.hint == "did you mean memory_mb?"


def test_a_prefix_names_a_release(house):
    house.write({"bot.py": "1"})
    added = house.add()
    assert releases.resolve_hash(house.paths, "m", added.hash[:6]) == added.hash
    for prefix, kind in ((added.hash[:5], "invalid"), ("../../", "invalid"), ("f" * 6, "not_found"), ("", "invalid")):
        with pytest.raises(BotdError) as caught:
            releases.resolve_hash(house.paths, "m", prefix)
        assert caught.value.kind == kind
    os.mkdir(house.paths.release("m", added.hash[:6] + "0" * 58))
    with pytest.raises(BotdError, match="several"):
        releases.resolve_hash(house.paths, "m", added.hash[:6])
    with pytest.raises(BotdError) as caught:
        releases.load(house.paths, "nobody", added.hash)
    assert caught.value.kind == "not_found"


def test_a_dry_run_tells_and_keeps_nothing(house):
    house.write(NPM)
    told = house.add(dry=True)
    assert told.new and house.templates() == []
    house.check_tidy()
    assert house.add().hash == told.hash
    assert not house.add(dry=True).new


def test_what_is_left_out_is_told_with_the_secrets_first(house):
    house.write(NPM | {f"node_modules/p{i}/x.swp": "" for i in range(120)})
    house.write({f"lib/p{i}/__pycache__/x.pyc": "" for i in range(120)})
    added = house.add()
    assert [line.partition(":")[0] for line in added.left_out[:2]] == [".env", "appstate.json"]
    assert len(added.left_out) == 101 and added.left_out[-1] == "and 25 more"
    assert not any("__pycache__" in unit.path for unit in house.load(added).units)


def test_what_is_missing_in_node_modules_is_told(house):
    house.write(NPM | {"botd-template.toml": "schema = 1\n[node]\ncheck = true\n"})
    assert not any("npm install" in note for note in house.add().notes)
    house.write({"package.json": '{"dependencies": {"a": "1", "gone": "1"}}'})
    assert [note for note in house.add().notes if "npm install" in note] == [
        "package.json: gone is not in node_modules; npm install brings it"
    ]


def test_a_release_that_is_asked_for_again_is_young_again(house):
    house.write({"bot.py": "1"})
    path = house.load(house.add()).path
    os.utime(path, (1, 1))
    house.add()
    assert os.stat(path).st_mtime > 1


def test_a_removed_release_gives_back_what_only_it_had(house):
    house.write({"bot.py": "1", "only.py": "2" * 9000})
    first = house.add()
    (house.source / "only.py").unlink()
    second = house.add()
    done = releases.remove(house.paths, "m", first.hash)
    assert done.problems == [] and done.bytes >= 9000
    assert releases.list_releases(house.paths, "m") == [second.hash]
    house.check_all()
    house.check_tidy()
    with pytest.raises(BotdError) as caught:
        releases.remove(house.paths, "m", first.hash)
    assert caught.value.kind == "not_found"
    releases.remove(house.paths, "m", second.hash)
    assert house.templates() == []
    house.check_tidy()


def test_objects_that_nobody_has_are_collected(house):
    house.write({"bot.py": "1"})
    added = house.add()
    folder = f"{house.paths.objects}/ab"
    os.makedirs(folder)
    with open(f"{folder}/{'ab' * 32}", "w") as file:
        file.write("x" * 5000)
    found = objects.collect(house.paths, dry=True)
    assert found.objects == 1 and found.bytes >= 5000
    assert objects.collect(house.paths) == found
    assert not os.path.exists(folder)
    assert objects.collect(house.paths) == objects.Collected()
    assert releases.verify(house.load(added)) == []


def test_damage_is_found_told_and_not_spread(house):
    house.write({"bot.py": "good", "lib/a.py": "1", "lib/l": "->a.py"})
    first = house.add()
    release, tree = house.load(first), house.tree(first)
    assert releases.verify(release) == []
    (tree / "bot.py").chmod(0o644)
    (tree / "bot.py").write_text("evil")
    (tree / "bot.py").chmod(0o444)
    (tree / "lib").chmod(0o755)
    (tree / "lib/more.py").write_text("2")
    (tree / "lib/a.py").unlink()
    (tree / "lib/l").unlink()
    (tree / "lib/l").symlink_to("/etc/passwd")
    (tree / "lib").chmod(0o555)
    problems = "\n".join(releases.verify(release))
    for text in ("bot.py: its content", "more.py' is no part", "lib/a.py: is missing", "lib/l: leads elsewhere"):
        assert text.replace("' ", "': ") in problems or text in problems, problems
    second = house.add(template="other")
    assert releases.verify(house.load(second, "other")) == []
    assert (house.tree(second, "other") / "bot.py").read_text() == "good"


def test_a_release_without_its_index_is_replaced(house):
    house.write({"bot.py": "1"})
    added = house.add()
    path = house.load(added).path
    os.chmod(path, 0o755)
    os.unlink(f"{path}/index.json")
    again = house.add()
    assert again.new and again.hash == added.hash
    house.check_all()
    house.check_tidy()


def test_without_hard_links_everything_is_copied(house, monkeypatch):
    def refuse(*_args, **_more):
        raise OSError(31, "Too many links")  # EMLINK

    monkeypatch.setattr(os, "link", refuse)
    house.write({"a.py": "1", "b.py": "1", "big.bin": b"\0" * (2 << 20)})
    added = house.add()
    assert releases.verify(house.load(added)) == []
    assert (house.tree(added) / "a.py").stat().st_nlink == 1


def test_big_files_are_stored_once(house):
    house.write({"a.bin": b"\1" * (3 << 20), "x/b.bin": b"\1" * (3 << 20)})
    first = house.add()
    assert (house.tree(first) / "a.bin").stat().st_ino == (house.tree(first) / "x/b.bin").stat().st_ino
    second = house.add(template="other")
    assert second.stored_bytes < 1 << 20
    assert house.classes(first) == {"a.bin": "link", "x/b.bin": "link"}
    house.check_all()


def test_the_manifest_of_a_release_counts_in_its_name(house):
    entry = model.Entry("a", "f", False, 1, "0" * 64)
    cache = model.Entry("v/__pycache__/a.pyc", "f", False, 1, "1" * 64)
    one = model.compute_hash({"schema": 1}, [entry])
    assert model.compute_hash({"schema": 1}, [cache, entry]) == one
    assert model.compute_hash({"schema": 1, "port": True}, [entry]) != one
    assert model.compute_hash({"schema": 1}, [entry._replace(x=True)]) != one


# Dying at any instant.

ADDING = [p for p in points() if not p.startswith(("store-remov", "store-recover", "store-destroy", "store-venv"))]
ADDING = [p for p in ADDING if p not in ("store-unpacked", "store-object-collected")]


@pytest.mark.parametrize("passes", [1, 3])
def test_an_addition_may_die_anywhere(house, passes):
    house.write({"bot.py": "1", "lib/a.py": "2", "lib/b.py": "3", "node_modules/x/i.js": "4"})
    died = []
    for point in ADDING:
        house.write({name: f"{point} {name}" for name in ("bot.py", "lib/a.py", "lib/b.py")})
        if house.die_at(point, house.add, passes):
            died.append(point)
        house.check_all()
        before = releases.list_releases(house.paths, "m")
        added = house.add()
        assert added.new == (added.hash not in before)
        house.check_all()
        house.check_tidy()
    assert died == ADDING if passes == 1 else {"store-file-brought", "store-object-published"} <= set(died)


def test_the_unpacking_may_die(house):
    house.write({"bot.py": "1"})
    subprocess.run(["tar", "-cf", house.folder / "x.tar", "-C", house.source, "."], check=True)
    assert house.die_at("store-unpacked", lambda: house.add(house.folder / "x.tar"))
    assert house.templates() == []
    assert house.add(house.folder / "x.tar").new
    house.check_tidy()


@pytest.mark.parametrize(
    "point", ["store-removed", "store-remove-destroyed", "store-destroying", "store-object-collected"]
)
def test_a_removal_may_die_anywhere(house, point):
    house.write({"bot.py": "1", "lib/a.py": "2"})
    keep = house.add()
    (house.source / "lib/a.py").write_text("3")
    gone = house.add()
    assert house.die_at(point, lambda: releases.remove(house.paths, "m", gone.hash))
    house.check_all()
    assert releases.list_releases(house.paths, "m") == [keep.hash]
    releases.recover(house.paths)
    objects.collect(house.paths)
    house.check_all()
    house.check_tidy()


def test_a_recovery_may_die(house):
    house.write({"bot.py": "1", "lib/a.py": "2"})
    for point in ("store-recovering", "store-destroying"):
        assert house.die_at("store-brought", house.add)
        assert house.die_at(point, lambda: releases.recover(house.paths))
        releases.recover(house.paths)
        house.check_tidy()


def test_every_point_is_walked_to():
    walked = {*ADDING, "store-unpacked", "store-removed", "store-remove-destroyed", "store-destroying"}
    walked |= {"store-object-collected", "store-recovering", "store-venv-made", "store-venv-brought"}
    assert set(points()) == walked


# Beside each other.


def test_what_somebody_is_making_is_no_garbage(house):
    house.write(NPM)
    found = []

    def look(*_):
        if not found:
            found.append(releases.recover(house.paths).entries)

    added = house.add(progress=look)
    assert found == [0]
    assert releases.verify(house.load(added)) == []


def test_two_additions_of_the_same_tree_and_a_removal_beside_them(house):
    house.write(NPM)
    lines = [command(house.paths, "m", str(house.source)), command(house.paths, "n", str(house.source))]
    running = [
        subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) for line in (lines[0], lines[0], lines[1])
    ]
    answers = []
    for one in running:
        out, _ = one.communicate(timeout=120)
        answers.append(json.loads(out.splitlines()[-1])["result"])
    assert len({answer["hash"] for answer in answers}) == 1
    assert sorted(answer["new"] for answer in answers[:2]) == [False, True]
    assert answers[2]["new"]
    house.check_all()
    house.check_tidy()
    added = house.add()
    mine, theirs = ((house.tree(added, name) / "index.js").stat().st_ino for name in ("m", "n"))
    assert mine == theirs

    problems = []

    def remove_and_collect():
        for _ in range(15):
            try:
                releases.remove(house.paths, "m", added.hash)
            except BotdError as error:
                if error.kind != "not_found":
                    problems.append(error)
            objects.collect(house.paths)

    thread = threading.Thread(target=remove_and_collect)
    thread.start()
    while thread.is_alive():
        house.add()
    thread.join()
    assert problems == []
    house.add()
    house.check_all()


# The child.


def test_the_child_tells_how_far_it_is_and_what_came_of_it(house):
    house.write(NPM)
    done = subprocess.run(
        command(house.paths, "m", str(house.source)), cwd=ROOT, capture_output=True, text=True, check=True
    )
    *progress, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert progress[-1]["files"] == progress[-1]["total_files"] > 0
    assert progress[-1]["bytes"] == progress[-1]["total_bytes"]
    assert last["result"]["new"] and last["result"]["left_out"]
    assert releases.verify(releases.load(house.paths, "m", last["result"]["hash"])) == []
    (house.source / "s").symlink_to("/etc/passwd")
    done = subprocess.run(command(house.paths, "m", str(house.source)), cwd=ROOT, capture_output=True, text=True)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (
        done.returncode == 1 and error["kind"] == "invalid" and error["exit"] == 9 and error["message"].startswith("s:")
    )
    assert ".botdignore" in error["hint"] and done.stderr == ""


def test_the_child_does_not_outlive_who_started_it(house):
    house.write(NPM)
    # A pipe that nobody reads holds it: at the first line of progress it stands still.
    code = (
        "import os, subprocess, sys, time\n"
        "r, w = os.pipe()\nos.set_blocking(w, False)\n"
        "while True:\n    try: os.write(w, b'x' * 4096)\n    except BlockingIOError: break\n"
        "os.set_blocking(w, True)\n"
        "line = sys.argv[1:]\n"
        "line[4] = f'--parent={os.getpid()}'\n"
        "child = subprocess.Popen(line, stdout=w)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    line = command(house.paths, "m", str(house.source))
    parent = subprocess.Popen([sys.executable, "-c", code, *line], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    pidfd = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(60_000), "it lives"
    os.close(pidfd)
    releases.recover(house.paths)


def test_what_the_child_imports(house):
    code = "import sys, botd.storage.releases.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"pydantic", "rich", "typer", "asyncio", "psutil"} & set(done.stdout.split()) == set()
