"""What the texts of the kernel mean on every kind of machine, and the files of version 2, which few machines have."""

from __future__ import annotations

import errno
import os
import select

import pytest

from botd.keeper import controllers, groups
from botd.keeper.client.scope import within
from botd.keeper.client.starting import start_keeper
from botd.keeper.containment import given
from botd.keeper.controllers import Controllers, hand_down
from botd.keeper.fence import Fence
from botd.keeper.hierarchies import Hierarchies, amount, keyed, parse
from botd.keeper.limits import NONE, Limits

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n23 27 0:22 / /sys rw - sysfs sysfs rw\n"


def v1(names: str, root: str = "/", options: str = "rw,relatime", superblock: str = "rw") -> str:
    return f"35 31 0:32 {root} /sys/fs/cgroup/{names} {options} shared:9 - cgroup cgroup {superblock},{names}\n"


@pytest.mark.parametrize(
    ("groups_text", "mounts", "v2", "old"),
    [
        pytest.param("0::/init.scope\n", OTHERS + UNIFIED, "/sys/fs/cgroup/init.scope", {}, id="version 2"),
        pytest.param("0::/\n", UNIFIED, "/sys/fs/cgroup", {}, id="the root"),
        pytest.param(
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n",
            UNIFIED,
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope",
            {},
            id="delegated to a user",
        ),
        pytest.param(
            "5:cpu,cpuacct:/system.slice\n4:memory:/a b\n2:pids:/\n1:name=systemd:/x\n",
            v1("cpu,cpuacct") + v1("memory") + v1("pids"),
            None,
            {
                "cpu": "/sys/fs/cgroup/cpu,cpuacct/system.slice",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/system.slice",
                "memory": "/sys/fs/cgroup/memory/a b",
                "pids": "/sys/fs/cgroup/pids",
            },
            id="version 1",
        ),
        pytest.param(
            "4:memory:/job/1\n0::/\n",
            v1("memory") + UNIFIED.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
            "/sys/fs/cgroup/unified",
            {"memory": "/sys/fs/cgroup/memory/job/1"},
            id="hybrid",
        ),
        pytest.param(
            "4:memory:/docker/77\n0::/docker/77\n",
            v1("memory", "/docker/77") + UNIFIED.replace(" / ", " /docker/77 "),
            "/sys/fs/cgroup",
            {"memory": "/sys/fs/cgroup/memory"},
            id="a container that sees its own part",
        ),
        pytest.param(
            "0::/\n", UNIFIED.replace(" / ", " /../.. "), None, {}, id="mounted from outside of the namespace"
        ),
        pytest.param("0::/../other\n", UNIFIED, None, {}, id="moved out of the namespace"),
        pytest.param(
            "0::/elsewhere\n", UNIFIED.replace(" / ", " /docker/77 "), None, {}, id="not in the part to be seen"
        ),
        pytest.param("0::/dockers\n", UNIFIED.replace(" / ", " /docker "), None, {}, id="a name that only begins so"),
        pytest.param(
            "4:memory:/\n",
            v1("memory", options="ro") + v1("memory").replace("/sys/fs/cgroup/memory ", "/mnt/cg\\040x "),
            None,
            {"memory": "/mnt/cg x"},
            id="the one that may be written to",
        ),
        pytest.param(
            "4:memory:/\n", v1("memory", options="ro"), None, {"memory": "/sys/fs/cgroup/memory"}, id="read-only"
        ),
        pytest.param("4:memory:/\n", v1("memoryless"), None, {}, id="not mounted"),
        pytest.param("nonsense\n0:x\n7::\n::/\n", "x\n- -\n a - cgroup\n" + UNIFIED, None, {}, id="nonsense"),
        pytest.param("", "", None, {}, id="nothing"),
    ],
)
def test_where_a_process_stands(groups_text, mounts, v2, old):
    found = parse(groups_text, mounts)
    assert (found.v2, found.v1) == (v2, old)


def test_a_keeper_in_its_own_leaf_knows_what_it_was_given():
    assert given("/sys/fs/cgroup/x.scope/botd-01/keeper", "botd-01") == "/sys/fs/cgroup/x.scope"
    assert given("/sys/fs/cgroup/x.scope/botd-02/keeper", "botd-01") == "/sys/fs/cgroup/x.scope/botd-02/keeper"
    assert given("/sys/fs/cgroup/x.scope", "botd-01") == "/sys/fs/cgroup/x.scope"


def test_numbers():
    assert keyed(b"low 0\nhigh 3\noom_kill 2\n\nodd\nx -1\n") == {"low": 0, "high": 3, "oom_kill": 2}
    assert keyed(b"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")["oom_kill"] == 1
    assert [amount(text) for text in (b"4096\n", b"max\n", b"-1\n", b"9223372036854771712\n", b"")] == [
        4096, None, None, None, None,
    ]  # fmt: skip


# The files of version 2


@pytest.fixture
def cage(tmp_path):
    """A folder with the files of a group; what is written to them can be read back."""

    def write(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        return str(tmp_path)

    return write


def fence(folder: str) -> Fence:
    return Fence(dict.fromkeys(("memory", "pids", "cpu"), folder), folder)


def test_version_2_is_told_of_every_limit(cage, tmp_path):
    names = ("memory.max", "memory.oom.group", "memory.swap.max", "pids.max", "cpu.max")
    folder = cage(**dict.fromkeys(names, ""))
    fence(folder).make(Limits(64 << 20, 0, 17, 0.5))
    assert [(tmp_path / name).read_text() for name in names] == ["67108864", "1", "0", "17", "50000 100000"]


def test_version_2_is_told_nothing_where_there_is_no_limit(cage, tmp_path):
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    folder = cage(**dict.fromkeys(names, ""))
    fence(folder).make(NONE)
    assert [(tmp_path / name).read_text() for name in names] == [""] * 4
    fence(folder).change(NONE)
    assert [(tmp_path / name).read_text() for name in names] == ["max", "max", "max", "max 100000"]


@pytest.mark.parametrize(
    ("local", "peak", "told"),
    [
        ("oom 1\noom_kill 3\n", "67108864\n", {"kills": 3, "peak_bytes": 67108864, "limit_bytes": 67108864}),
        ("oom 1\noom_kill 3\n", None, {"kills": 3, "peak_bytes": None, "limit_bytes": 67108864}),
        ("oom 0\noom_kill 3\n", "50000\n", {"kills": 3, "peak_bytes": 50000, "limit_bytes": None}),
        (None, "67108864\n", {"kills": 3, "peak_bytes": 67108864, "limit_bytes": 67108864}),
    ],
    ids=["its own limit", "no peak (before 5.19)", "the machine's memory", "no events.local (before 5.2)"],
)
def test_version_2_tells_who_was_killed_for_memory(cage, local, peak, told):
    files = {"memory.events": "low 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 1\n", "memory.max": "67108864\n"}
    files |= {name: text for name, text in (("memory.events.local", local), ("memory.peak", peak)) if text}
    assert fence(cage(**files)).killed_for_memory() == told


def test_nobody_was_killed_and_nothing_was_refused(cage):
    quiet = fence(cage(**{"memory.events": "max 9\noom 2\noom_kill 0\n", "pids.events": "max 0\n"}))
    assert (quiet.killed_for_memory(), quiet.refused()) == (None, 0)
    gone = fence("/nowhere/at/all")
    assert (gone.killed_for_memory(), gone.refused()) == (None, 0)


def test_a_controller_is_handed_down_or_it_is_said_why_not(tmp_path):
    top, base = tmp_path / "top", tmp_path / "top/botd-01"
    base.mkdir(parents=True)
    for folder in (top, base):
        (folder / "cgroup.controllers").write_text("memory pids\n")
        (folder / "cgroup.subtree_control").write_text("")
    assert hand_down("memory", str(top), str(base)) is None
    assert [(folder / "cgroup.subtree_control").read_text() for folder in (top, base)] == ["+memory", "+memory"]
    assert "no cpu controller" in hand_down("cpu", str(top), str(base))
    (base / "cgroup.subtree_control").unlink()
    assert f"{base}/cgroup.subtree_control: No such file" in hand_down("pids", str(top), str(base))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("botd.service", "could not restart the service of"),
        ("daemon", "could not restart the service of"),
        ("x.scope", "other"),
    ],
)
def test_nobody_else_is_moved_out_of_the_way(tmp_path, monkeypatch, name, words):
    """A group with processes of somebody else: the kernel says busy, and so it stays."""
    parent = "botd.service" if name == "daemon" else "botd.slice"
    top, base = tmp_path / parent / name, tmp_path / parent / name / "botd-01"
    base.mkdir(parents=True)
    (top / "cgroup.controllers").write_text("memory\n")
    (top / "cgroup.procs").write_text("1\n4194305\n")
    (top / "cgroup.subtree_control").write_text("")

    def busy(path: str, data: bytes) -> None:
        raise OSError(errno.EBUSY, f"{path}: busy")

    monkeypatch.setattr(groups, "write", busy)
    assert words in hand_down("memory", str(top), str(base))
    assert not os.path.exists(base / controllers.LEAF)


def test_every_missing_controller_has_words():
    nothing = Controllers(Hierarchies(None, {}), "botd-01", None, None, off=False)
    assert set(nothing.version.values()) == {None}
    assert all("cgroup" in nothing.why[name] for name in nothing.version)
    closed = Controllers(Hierarchies(None, {"pids": "/proc/nothing"}), "botd-01", None, None, off=False)
    assert "/proc/nothing" in closed.why["pids"]
    assert nothing.fence("u+bot+1", Limits(pids=5), None) is None


def test_version_1_in_which_limits_would_not_add_up_is_not_used(tmp_path):
    (tmp_path / "memory.use_hierarchy").write_text("0\n")
    found = Controllers(Hierarchies(None, {"memory": str(tmp_path)}), "botd-01", None, None, off=False)
    assert "use_hierarchy" in found.why["memory"] and "use_hierarchy" in found.why["swap"]


# A scope of its own, where systemd is


@pytest.fixture
def systemd(tmp_path):
    """A root with the signs of systemd and version 2, and a systemd-run that does as it is told, or not."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()

    def program(works: bool):
        script = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"' if works else "echo no bus >&2; exit 1"
        (tmp_path / "systemd-run").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        (tmp_path / "systemd-run").chmod(0o755)
        return lambda command, home, uid: within(command, home, uid, str(tmp_path), str(tmp_path))

    return program


def test_the_keeper_is_started_in_a_scope_by_the_systemd_of_its_user(systemd):
    asked = systemd(True)(["keeper", "--x"], "/tmp/home", 0)
    assert asked[1:4] == ["--scope", "--quiet", "--collect"] and asked[-3:] == ["--", "keeper", "--x"]
    assert "--property=Delegate=yes" in asked
    assert "--user" in systemd(True)(["keeper"], "/tmp/home", 1000)
    assert within(["keeper"], "/tmp/home", 0, "/nowhere") is None


@pytest.mark.parametrize("works", [True, False])
def test_a_keeper_starts_whatever_systemd_says(systemd, monkeypatch, works, tmp_path, house):
    monkeypatch.setattr("botd.keeper.client.scope.within", systemd(works))
    start_keeper(house.home)
    assert "--scope" in (tmp_path / "asked").read_text()
    keeper = house.connect()
    keeper.start("u/bot", 1, ["true"])
    keeper.expect("exited", "u/bot", 1)
    keeper.send({"op": "quit"})
    pidfd = os.pidfd_open(keeper.hello["pid"])
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
