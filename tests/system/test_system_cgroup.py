"""The folders of one life's controllers, as files of our own; and growth told from samples of them."""

import os

import pytest

from botd.system import cgroup
from botd.system.cgroup import MemoryFolder
from botd.system.sampling import Sampler
from botd.system.sentinel import Sentinel

MIB = 1 << 20


def memory(folder, usage, cache, version=2):
    names = ("memory.current", "inactive_file") if version == 2 else ("memory.usage_in_bytes", "total_inactive_file")
    # In place: a reader has the file open, as with the kernel's own.
    with open(folder / names[0], "w") as file:
        file.write(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache if version == 2 else 7}\n{names[1]} {cache}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_working_set_is_what_cannot_simply_be_dropped(tmp_path, version):
    memory(tmp_path, 100 * MIB, 30 * MIB, version)
    folder = MemoryFolder(str(tmp_path))
    try:
        assert folder.used() == 70 * MIB
        memory(tmp_path, 160 * MIB, 80 * MIB, version)
        assert folder.used() == 80 * MIB
        memory(tmp_path, 10 * MIB, 40 * MIB, version)
        assert folder.used() == 0
        (tmp_path / ("memory.current" if version == 2 else "memory.usage_in_bytes")).write_text("")
        assert folder.used() is None
    finally:
        folder.close()


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(OSError):
        MemoryFolder(str(tmp_path / "gone"))


def test_refused_forks_and_tasks_are_read_where_somebody_counts(tmp_path):
    assert cgroup.forks_refused({}) == 0
    assert cgroup.forks_refused({"pids": str(tmp_path)}) == 0
    (tmp_path / "pids.events").write_text("max 42\n")
    assert cgroup.forks_refused({"pids": str(tmp_path)}) == 42


def test_a_sample_takes_the_memory_of_the_folder_and_gives_its_descriptor_back(tmp_path):
    memory(tmp_path, 300 * MIB, 100 * MIB)
    before = len(os.listdir("/proc/self/fd"))
    sampler = Sampler()
    sampler.add("a/b", os.getpid(), memory=str(tmp_path))
    sampler.sample(100.0)
    assert sampler.get("a/b").memory_bytes == sampler.exact("a/b", 1) == 200 * MIB
    sampler.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def grown(tmp_path):
    """Samples of a life whose memory is what we write: `grown(at, mib)` is its growth in MiB a minute."""
    memory(tmp_path, 100 * MIB, 0)
    sampler = Sampler()
    sampler.add("a/b", os.getpid(), memory=str(tmp_path))

    def sample(at, mib):
        memory(tmp_path, mib * MIB, 0)
        sampler._watched["a/b"].raw = b""  # as if it had run in between
        sampler.sample(at)
        return sampler.get("a/b").growth() / MIB

    yield sample
    sampler.close()


def test_growth_is_none_before_it_changes_and_none_long_after(grown):
    assert grown(1000.0, 100) == 0
    assert grown(1005.0, 100) == 0
    assert grown(1010.0, 110) == pytest.approx(20)  # a step of 10 MiB, over half a minute
    assert grown(1110.0, 110) == 0


def test_growth_is_told_over_the_last_minute_or_so(grown):
    told = [grown(1000.0 + 5 * i, 100 + i) for i in range(40)]  # 1 MiB in 5 s
    assert all(rate == pytest.approx(12, rel=0.01) for rate in told[10:])
    shrinking = [grown(1200.0 + 5 * i, 140 - i) for i in range(1, 40)]
    assert shrinking[-1] == pytest.approx(-12, rel=0.01)


def test_a_step_after_a_long_calm_is_not_thinned_by_the_calm(grown):
    for i in range(100):
        grown(1000.0 + 5 * i, 100)
    assert grown(1500.0, 160) == pytest.approx(120)


# --- the sentinel ---------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    def says(tasks, available_mib):
        (tmp_path / "loadavg").write_text(f"0.10 0.20 0.30 2/{tasks} 4711\n")
        (tmp_path / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {available_mib * 1024} kB\n")
        return str(tmp_path)

    return says


@pytest.mark.parametrize(
    "tasks,available,stirs",
    [(300, 1000, False), (363, 1000, False), (364, 1000, True), (300, 968, True), (100, 2000, False)],
)
def test_the_machine_stirs(machine, tasks, available, stirs):
    sentinel = Sentinel(machine(300, 1000))
    sentinel.mark()
    machine(tasks, available)
    assert sentinel.stirred() == stirs
    sentinel.mark()
    assert not sentinel.stirred()


def test_where_the_kernel_tells_nothing_nothing_stirs(tmp_path):
    sentinel = Sentinel(str(tmp_path))
    sentinel.mark()
    (tmp_path / "loadavg").write_text("nonsense")
    assert not sentinel.stirred()
