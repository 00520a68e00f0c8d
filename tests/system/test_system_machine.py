import os

import pytest

from botd.system.machine import Machine, parse_cgroups, parse_key, parse_limit, parse_meminfo, parse_pressure

MEMINFO = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   6000 kB\nBuffers: 1 kB\n"
KIB = 1024


@pytest.fixture
def root(tmp_path):
    """A machine to be furnished: write(path, text) puts a file into it."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", MEMINFO)
    write.path = str(tmp_path)
    return write


def test_without_a_container_it_is_the_machine_that_counts(root):
    memory = Machine(root.path).memory()
    assert (memory.total_bytes, memory.used_bytes) == (8000 * KIB, 2000 * KIB)
    assert memory.percent == Machine(root.path).memory_percent() == 25.0
    assert memory.available_bytes == 6000 * KIB


def test_a_sandbox_without_memavailable():
    assert parse_meminfo(b"MemTotal: 10 kB\nMemFree: 4 kB\n") == (10 * KIB, 4 * KIB)


def group2(root, folder, limit, current, inactive=0):
    root(f"sys/fs/cgroup{folder}/memory.max", f"{limit}\n")
    root(f"sys/fs/cgroup{folder}/memory.current", f"{current}\n")
    root(f"sys/fs/cgroup{folder}/memory.stat", f"anon 5\ninactive_file {inactive}\nslab 1\n")


def test_the_limit_of_a_version_2_container_counts_and_droppable_cache_does_not(root):
    root("proc/self/cgroup", "0::/\n")
    root("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group2(root, "", 4000 * KIB, 2500 * KIB, 500 * KIB)
    memory = Machine(root.path).memory()
    assert (memory.total_bytes, memory.used_bytes) == (4000 * KIB, 2000 * KIB)


def test_the_tightest_limit_on_the_way_up_counts(root):
    root("proc/self/cgroup", "0::/a.slice/b.service\n")
    root("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group2(root, "/a.slice/b.service", "max", 0)
    group2(root, "/a.slice", 2000 * KIB, 1500 * KIB)
    assert Machine(root.path).memory().total_bytes == 2000 * KIB
    assert Machine(root.path).memory_percent() == 75.0


def test_a_container_on_a_machine_that_is_full_itself(root):
    root("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 100 kB\n")
    root("proc/self/cgroup", "0::/\n")
    root("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group2(root, "", 4000 * KIB, 10 * KIB)
    memory = Machine(root.path).memory()
    assert memory.available_bytes == 100 * KIB


def test_version_1_and_its_way_of_saying_no_limit(root):
    root("proc/self/cgroup", "4:memory:/bots\n9:name=systemd:/\n")
    root("proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    folder = "sys/fs/cgroup/memory/bots"
    root(f"{folder}/memory.limit_in_bytes", "9223372036854771712\n")
    machine = Machine(root.path)
    assert machine.memory().total_bytes == 8000 * KIB
    root(f"{folder}/memory.limit_in_bytes", f"{1000 * KIB}\n")
    root(f"{folder}/memory.usage_in_bytes", f"{600 * KIB}\n")
    root(f"{folder}/memory.stat", f"total_inactive_file {100 * KIB}\n")
    assert Machine(root.path).memory().used_bytes == 500 * KIB


def test_a_limit_that_cannot_be_read_is_none(root):
    root("proc/self/cgroup", "0::/\n")
    root("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    root("sys/fs/cgroup/memory.max", "soon\n")
    assert Machine(root.path).memory().total_bytes == 8000 * KIB


def test_a_mount_that_shows_only_the_own_group():
    mountinfo = b"30 23 0:26 /docker/abc /sys/fs/cgroup\\040x rw - cgroup2 cgroup2 rw\n"
    assert parse_cgroups(b"0::/docker/abc/bots\n", mountinfo) == [(2, "/sys/fs/cgroup x", "/bots")]
    assert parse_cgroups(b"0::/docker/abc\n", mountinfo) == [(2, "/sys/fs/cgroup x", "")]
    assert parse_cgroups(b"0::/../elsewhere\n", mountinfo) == [(2, "/sys/fs/cgroup x", "")]


@pytest.mark.parametrize("raw", [b"", b"no colons", b"\xff\n::\n", b"1:2"])
def test_nonsense_about_groups_is_no_group(raw):
    assert parse_cgroups(raw, raw) == []


def test_small_parsers():
    assert parse_limit(b"max\n") is None
    assert parse_limit(b"12\n") == 12
    assert parse_key(b"a 1\nab 2\n", b"ab") == 2
    assert parse_key(b"a 1\n", b"b") == 0
    assert parse_pressure(b"some avg10=1.25 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.5\n") == 1.25
    assert parse_pressure(b"") is None


def test_pressure_is_left_out_where_the_kernel_has_none(root):
    root("proc/pressure/cpu", "some avg10=3.00 avg60=0.00 avg300=0.00 total=9\n")
    assert Machine(root.path).pressure() == {"cpu": 3.0}


def test_the_real_machine():
    machine = Machine()
    memory = machine.memory()
    assert 0 < memory.used_bytes < memory.total_bytes
    disk = machine.disk("/")
    assert 0 < disk.free_bytes < disk.total_bytes
    assert machine.uptime_s() > 0
    assert machine.cpu_count() >= 1
    assert len(machine.load()) == 3
    assert machine.process().memory_bytes > 1 << 20
    assert machine.process(os.getpid()).cpu_s > 0
    assert machine.process(2**22 + 1) is None
