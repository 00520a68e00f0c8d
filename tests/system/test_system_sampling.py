import os
import resource
import subprocess
import sys

import pytest

from botd.system.sampling import PAGE, Sampler, parse_stat

BUSY = """
import sys, time, threading
block = bytearray(40 << 20)
end = time.process_time() + 0.3
while time.process_time() < end: pass
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
"""


@pytest.fixture
def spawn():
    processes = []

    def start(*command, **options):
        process = subprocess.Popen(command or ("/bin/sleep", "60"), **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(params=[1000, 0], ids=["open descriptors", "descriptors short"])
def sampler(request):
    sampler = Sampler(max_open=request.param)
    yield sampler
    sampler.close()


def test_a_process_is_measured(spawn, sampler):
    busy = spawn(sys.executable, "-c", BUSY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sampler.add("a/b", busy.pid)
    assert sampler.get("a/b") is None
    sampler.sample(100.0)
    assert sampler.get("a/b").cpu_percent is None
    assert busy.stdout.readline() == "ready\n"
    sampler.sample(102.0)
    sample = sampler.get("a/b")
    assert sample.memory_bytes > 40 << 20
    assert sample.cpu_s >= 0.3
    assert 15 <= sample.cpu_percent <= 50 * sample.cpu_s
    assert sample.threads == 2
    assert sample.at == 102.0


def test_one_that_waits_uses_nothing(spawn, sampler):
    sampler.add("a/b", spawn().pid)
    for now in (1.0, 2.0, 3.0):
        sampler.sample(now)
    assert sampler.get("a/b").cpu_percent == 0.0
    assert sampler.get("a/b").at == 3.0


def test_two_samples_in_a_row_do_not_invent_a_busy_processor(spawn, sampler):
    busy = spawn(sys.executable, "-c", BUSY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sampler.add("a/b", busy.pid)
    sampler.sample(100.0)
    busy.stdout.readline()
    sampler.sample(100.001)
    sampler.sample(100.002)
    assert sampler.get("a/b").cpu_percent is None
    sampler.sample(103.0)
    # What was used in between is not lost either.
    assert sampler.get("a/b").cpu_percent >= 10


def test_one_that_ended_is_watched_no_longer(spawn, sampler):
    process, other = spawn(), spawn()
    sampler.add("a/b", process.pid)
    sampler.add("a/c", other.pid)
    sampler.sample(1.0)
    process.kill()
    process.wait()
    sampler.sample(2.0)
    assert sampler.get("a/b") is None
    assert len(sampler) == 1
    assert sampler.get("a/c").at == 2.0


def test_a_process_that_is_gone_is_not_added(spawn, sampler):
    process = spawn()
    process.kill()
    process.wait()
    assert not sampler.add("a/b", process.pid)
    assert len(sampler) == 0


def test_the_pidfd_tells_that_the_number_may_belong_to_a_stranger(spawn, sampler):
    process, stranger = spawn(), spawn()
    pidfd = os.pidfd_open(process.pid)
    try:
        process.kill()
        process.wait()
        assert not sampler.add("a/b", stranger.pid, pidfd)
    finally:
        os.close(pidfd)


def test_without_a_descriptor_the_start_time_tells_a_stranger(spawn):
    sampler = Sampler(max_open=0)
    process, stranger = spawn(), spawn()
    sampler.add("a/b", process.pid)
    sampler._watched["a/b"].start_ticks -= 1
    sampler._watched["a/b"].pid = stranger.pid
    sampler.sample(1.0)
    assert sampler.get("a/b") is None


def test_a_new_life_takes_the_place_of_the_old_one(spawn, sampler):
    first, second = spawn(), spawn()
    sampler.add("a/b", first.pid)
    sampler.sample(1.0)
    sampler.add("a/b", second.pid)
    assert sampler.get("a/b") is None
    sampler.sample(2.0)
    assert sampler.get("a/b").cpu_percent is None


def test_descriptors_are_given_back_and_bounded(spawn):
    before = len(os.listdir("/proc/self/fd"))
    sampler = Sampler(max_open=2)
    for i in range(5):
        sampler.add(f"a/{i}", spawn().pid)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    sampler.remove("a/0")
    sampler.add("a/6", spawn().pid)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    sampler.sample(1.0)
    assert all(sampler.get(f"a/{i}").threads == 1 for i in (1, 2, 3, 4, 6))
    sampler.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_with_no_descriptor_left_nothing_is_lost_and_nothing_raised(spawn):
    process = spawn()
    sampler = Sampler(max_open=0)
    sampler.add("a/b", process.pid)
    sampler.sample(1.0)
    used = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hog = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
    try:
        try:
            while True:
                hog.append(os.dup(0))
        except OSError:
            pass
        sampler.sample(2.0)
        assert sampler.get("a/b").at == 1.0
        assert sampler.add("a/c", process.pid)
    finally:
        for fd in hog:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sampler.sample(3.0)
    assert sampler.get("a/b").at == sampler.get("a/c").at == 3.0


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields():
    tail = b" S 1 1 1 0 -1 0 0 0 0 0 7 5 0 0 20 0 3 0 4711 1000 25 184 0 0"
    for name in (b"sh", b"a) R 9 9 9 (b", b"\n) ", b"\xff(("):
        stat = parse_stat(b"42 (" + name + b")" + tail)
        assert (stat.state, stat.cpu_ticks, stat.threads, stat.start_ticks, stat.rss_pages) == (b"S", 12, 3, 4711, 25)
    assert PAGE >= 4096


@pytest.mark.parametrize("raw", [b"", b"garbage", b"1 (a) S 1 2", b"1 (a) S" + b" x" * 30])
def test_what_is_no_stat_file_gives_nothing(raw):
    assert parse_stat(raw) is None


def test_who_asks_before_the_first_round_gets_a_sample_of_that_moment() -> None:
    sampler = Sampler()
    assert sampler.first("alice/shop", 1.0) is None
    assert sampler.add("alice/shop", os.getpid())
    assert sampler.get("alice/shop") is None
    sample = sampler.first("alice/shop", 1.0)
    assert sample is not None and sample.memory_bytes > 1 << 20 and sample.at == 1.0
    again = sampler.first("alice/shop", 2.0)
    assert again is sample and again.at == 1.0
    sampler.close()


def test_who_stirred_is_known_once_and_who_sleeps_is_not(spawn, sampler):
    asleep, busy = spawn(), spawn(sys.executable, "-c", BUSY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sampler.add("a/asleep", asleep.pid)
    sampler.add("a/busy", busy.pid)
    sampler.sample(1.0)
    assert sampler.stirred == {"a/asleep", "a/busy"}
    # It has executed its program for certain when the other one, which was started later, has said something.
    busy.stdout.readline()
    sampler.sample(2.0)
    sampler.stirred.clear()
    sampler.sample(3.0)
    assert "a/asleep" not in sampler.stirred
    sampler.remove("a/busy")
    assert "a/busy" not in sampler.stirred


def test_who_was_asked_for_before_the_first_round_has_stirred_too(spawn):
    sampler = Sampler()
    sampler.add("a/b", spawn().pid)
    assert sampler.first("a/b", 1.0) is not None
    assert sampler.stirred == {"a/b"}
    sampler.close()
    assert sampler.stirred == set()
