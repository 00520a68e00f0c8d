import os
import signal
import subprocess
import sys

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.system import lock
from botd.system.clock import Clock

HOLD = """
import sys
from botd.contract.paths import Paths
from botd.system import lock
from botd.system.clock import Clock
held = lock.acquire(Paths(sys.argv[1]), Clock())
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "run").mkdir()
    return Paths(str(tmp_path))


@pytest.fixture
def first(paths):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, paths.home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_daemon_is_refused_and_told_who_is_first(paths, first):
    inode = os.stat(paths.daemon_lock).st_ino
    with pytest.raises(BotdError) as refused:
        lock.acquire(paths, Clock())
    assert refused.value.kind == "conflict"
    assert f"botd is already running for {paths.home}: pid {first.pid}, since 20" in refused.value.message
    assert refused.value.details["pid"] == first.pid
    assert os.stat(paths.daemon_lock).st_ino == inode


def test_kill_9_gives_the_lock_back(paths, first):
    first.send_signal(signal.SIGKILL)
    first.wait()
    held = lock.acquire(paths, Clock())
    assert lock.holder(paths.daemon_lock).pid == os.getpid()
    held.release()


def test_a_clean_end_leaves_the_file_but_no_name(paths, first):
    first.communicate("")
    assert first.returncode == 0
    assert os.path.exists(paths.daemon_lock)
    assert lock.holder(paths.daemon_lock) is None
    lock.acquire(paths, Clock()).release()


def test_the_lock_does_not_pass_to_a_child(paths):
    held = lock.acquire(paths, Clock())
    child = subprocess.Popen(["/bin/sleep", "60"], close_fds=False)
    try:
        held.release()
        lock.acquire(paths, Clock()).release()
    finally:
        child.kill()
        child.wait()


def test_the_lock_is_private(paths):
    held = lock.acquire(paths, Clock())
    assert os.stat(paths.daemon_lock).st_mode & 0o777 == 0o600
    held.release()


@pytest.mark.parametrize("content", [b"", b"12", b"x\ny\n", b"\xff\xfe\n\x00\n", b"5\n\x1b[31m\n", b"-1\n2024\n"])
def test_whatever_stands_in_the_file_no_name_is_made_up(paths, content):
    with open(paths.daemon_lock, "wb") as file:
        file.write(content)
    assert lock.holder(paths.daemon_lock) is None


def test_a_file_where_the_folder_belongs_is_an_error_that_says_so(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(BotdError) as refused:
        lock.acquire(Paths(str(tmp_path)), Clock())
    assert refused.value.kind == "unavailable"
    assert refused.value.hint


def test_a_link_in_place_of_the_lock_is_not_followed(paths, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, paths.daemon_lock)
    with pytest.raises(BotdError):
        lock.acquire(paths, Clock())
    assert victim.read_text() == "precious"
