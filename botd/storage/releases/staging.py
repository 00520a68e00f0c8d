"""Where releases are made and unmade: private folders with a living owner, and the lock of a template.

A folder in .staging is held by flock for as long as its maker lives; one that nobody holds is garbage, whatever is in
it. So nothing that was cut short is ever looked at again, and a release comes into being by one rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import tree

# Bots with users of their own go through these, and list nothing.
PASSABLE = 0o711
PRIVATE = 0o700
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Stage:
    """A folder of one's own below .staging, for the time of a `with`; what is left in it then is removed."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.removed = tree.Removed()
        """What leaving it removed."""

    def __enter__(self) -> Stage:
        make_store(self._paths)
        # Nobody looks for garbage between the making of the folder and its lock.
        with _locked(f"{self._paths.staging}/.lock"):
            self.name = secrets.token_hex(8)
            self.path = f"{self._paths.staging}/{self.name}"
            try:
                os.mkdir(self.path, PRIVATE)
                self.fd = os.open(self.path, tree.DIRECTORY)
            except OSError as error:
                raise unavailable(self.path, error) from error
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        crash_point("store-staged")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            parent = os.open(self._paths.staging, tree.DIRECTORY)
            try:
                self.removed = _destroy(parent, self.name, self.fd)
            finally:
                os.close(parent)
        except OSError as error:
            # Garbage from now on: the next one to recover removes it.
            self.removed.problem(f"{self.path}: {error.strerror}")
        finally:
            os.close(self.fd)


def make_store(paths: Paths) -> None:
    """Make the folders of the store. BotdError(unavailable) when the disk refuses."""
    for path, mode in ((paths.templates, PASSABLE), (paths.objects, PRIVATE), (paths.staging, PRIVATE)):
        make_folder(path, mode)


def make_folder(path: str, mode: int) -> None:
    """A folder that is there afterwards, whoever made it, and whose name outlives a power cut."""
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)  # whatever the umask
        sync_folder(os.path.dirname(path))
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            hint = "look at what it is, move it away and try again"
            raise BotdError("conflict", f"{path} is a link or a file where a folder belongs", hint=hint) from None
    except OSError as error:
        raise unavailable(path, error) from error


def sync_folder(path: str) -> None:
    fd = os.open(path, tree.DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def template_lock(paths: Paths, template: str) -> Iterator[None]:
    """Alone with a template: for the moments in which a release appears or goes, not for the time it takes to make.

    The file is never removed: two who hold different files of one name would both believe they are alone.
    """
    make_store(paths)
    with _locked(f"{paths.staging}/{template}.lock"):
        yield


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    try:
        fd = os.open(path, _LOCK, 0o600)
    except OSError as error:
        raise unavailable(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def recover(paths: Paths) -> tree.Removed:
    """Remove what makers that are no more have left. At any time, beside anybody; what somebody holds stays."""
    done = tree.Removed()
    try:
        parent = os.open(paths.staging, tree.DIRECTORY)
    except OSError:
        return done  # nothing was ever made here
    try:
        for name in sorted(os.listdir(parent)):
            with _locked(f"{paths.staging}/.lock"):
                fd = _claim(parent, name)
            if fd < 0:
                continue
            try:
                crash_point("store-recovering")
                _add_up(done, _destroy(parent, name, fd))
            except OSError as error:
                done.problem(f"{paths.staging}/{name}: {error.strerror}")
            finally:
                os.close(fd)
    finally:
        os.close(parent)
    return done


def _claim(parent: int, name: str) -> int:
    """A held descriptor of a folder without an owner; -1 when it has one, or is none."""
    try:
        fd = os.open(name, tree.DIRECTORY, dir_fd=parent)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _destroy(parent: int, name: str, fd: int) -> tree.Removed:
    """Empty the folder `fd`, which is `name` in `parent` and held, and remove it."""
    done = tree.Removed()
    for one in os.listdir(fd):
        # Each goes into a grave that holds nothing else: `tree.destroy` names the pieces as it likes.
        grave_name = f"grave-{secrets.token_hex(6)}"
        os.mkdir(grave_name, PRIVATE, dir_fd=fd)
        grave = os.open(grave_name, tree.DIRECTORY, dir_fd=fd)
        try:
            try:
                os.rename(one, "0", src_dir_fd=fd, dst_dir_fd=grave)
            except PermissionError:
                tree.make_writable(fd, one)
                os.rename(one, "0", src_dir_fd=fd, dst_dir_fd=grave)
            crash_point("store-destroying")
            _add_up(done, tree.destroy(grave, "0"))
        finally:
            os.close(grave)
        os.rmdir(grave_name, dir_fd=fd)
    os.rmdir(name, dir_fd=parent)
    return done


def _add_up(total: tree.Removed, more: tree.Removed) -> None:
    total.entries += more.entries
    total.bytes += more.bytes
    for text in more.problems:
        total.problem(text)


def unavailable(path: str, error: OSError) -> BotdError:
    return BotdError(
        "unavailable",
        f"{path}: {error.strerror}",
        hint="check the owner and rights of the folder, and the space and inodes left on its disk: df -h, df -i",
    )
