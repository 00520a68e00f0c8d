"""The lock file of a bot, which may be removed at the very moment it is taken."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from botd.keeper import locks


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "bot.lock")


def removing(monkeypatch, path: str, times: int, then=lambda: None) -> list[int]:
    """Let somebody remove the file between the open and the lock, so many times; the descriptors that were locked."""
    flock, seen = fcntl.flock, []

    def racing(fd: int, how: int) -> None:
        if len(seen) < times:
            os.unlink(path)
            then()
        seen.append(fd)
        flock(fd, how)

    monkeypatch.setattr(locks.fcntl, "flock", racing)
    return seen


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_holder(path):
    fd = locks.take(path)
    assert fd is not None
    assert locks.take(path) is None
    os.close(fd)
    again = locks.take(path)
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_was_removed_meanwhile_is_no_lock(path, monkeypatch, replaced):
    """Who locked a removed file would share the bot with who locks the file that stands there now."""
    open(path, "w").close()
    before = descriptors()
    seen = removing(monkeypatch, path, 2, (lambda: open(path, "x").close()) if replaced else lambda: None)
    fd = locks.take(path)
    assert fd is not None
    assert len(seen) == 3
    assert os.path.samestat(os.fstat(fd), os.stat(path))
    assert locks.take(path) is None
    os.close(fd)
    assert descriptors() == before


def test_one_that_never_stays_is_an_error_and_not_a_loop(path, monkeypatch):
    before = descriptors()
    removing(monkeypatch, path, 10**9)
    with pytest.raises(OSError, match="removed again and again") as caught:
        locks.take(path)
    assert caught.value.errno == errno.EAGAIN
    assert descriptors() == before


def test_removed_only_when_free(path):
    fd = locks.take(path)
    locks.remove(path)
    assert os.path.exists(path)
    os.close(fd)
    locks.remove(path)
    assert not os.path.exists(path)


def test_a_link_is_neither_taken_nor_removed(path, tmp_path):
    target = tmp_path / "somebody's"
    target.touch()
    os.symlink(target, path)
    with pytest.raises(OSError):
        locks.take(path)
    locks.remove(path)
    assert target.exists()
    assert os.path.islink(path)
