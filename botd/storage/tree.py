"""Folders by descriptor: every step is one name below a pinned directory, so no link and no swap leads elsewhere.

A path that is resolved twice can mean two things. Here a path is resolved once, component by component with
O_NOFOLLOW, and everything after works on the descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from botd.contract.errors import BotdError
from botd.storage.beneath import DIRECTORY, open_here

__all__ = ["BLOCK", "DIRECTORY", "Removed", "descend", "destroy", "make_writable", "open_below", "open_directory"]

BLOCK = 512
"""What st_blocks counts in, whatever the file system's own block is."""

# Somebody may keep writing into a folder that is being removed; it is gone through this often.
_PASSES = 8
_PROBLEMS_SHOWN = 20


def open_directory(path: str) -> int:
    """A descriptor of a directory that is trusted as named (the home): links on the way are its owner's choice."""
    return os.open(os.path.realpath(path), DIRECTORY)


def descend(base: int, parts: tuple[str, ...]) -> int:
    """A new descriptor of base/parts[0]/parts[1]/..., refusing links. The caller closes it; `base` stays open.

    BotdError(conflict) when a component is a link or no directory; FileNotFoundError when there is none.
    """
    fd = os.dup(base)
    try:
        for i, part in enumerate(parts):
            below = open_below(fd, part, "/".join(parts[: i + 1]))
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_below(parent: int, name: str, shown: str) -> int:
    """A descriptor of the directory `name` in `parent`. Errors as `descend`; `shown` is its name in them."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BotdError("invalid", f"{shown!r} is not the name of a folder")
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise BotdError(
                "conflict",
                f"{shown} is a link or a file where a folder belongs; it was not followed",
                hint="look at what it is, move it away and try again",
            ) from None
        raise


@dataclass(slots=True)
class Removed:
    """What a removal did: entries removed, bytes given back, and in words what it had to leave."""

    entries: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        if len(self.problems) < _PROBLEMS_SHOWN:
            self.problems.append(text)


def destroy(grave: int, name: str) -> Removed:
    """Remove `name` in the directory `grave`, a private folder that holds nothing else, and all that is in it.

    Every directory that is found is first renamed up into `grave` and then emptied there, so any depth takes one
    descriptor, nothing is ever reached through a path, and the kernel itself refuses mount points (EBUSY). A removal
    that is cut short leaves its pieces in `grave`; removing the grave itself as a folder of another one ends it.
    """
    done = Removed()
    pending = [name]
    number = 0
    while pending:
        piece = pending.pop()
        try:
            fd = _open_to_empty(grave, piece)
        except OSError as error:
            done.problem(f"{piece}: {error.strerror}")
            continue
        if fd is None:
            _unlink(grave, piece, done)
            continue
        try:
            for _ in range(_PASSES):
                before = number
                number = _empty(fd, grave, number, pending, done)
                if _rmdir(grave, piece, fd, done):
                    break
                if number == before and done.problems:
                    break
            else:
                done.problem(f"{piece}: something keeps writing into it")
        finally:
            os.close(fd)
    return done


def _open_to_empty(grave: int, name: str) -> int | None:
    """A descriptor of a directory, made writable; None when it is none. OSError otherwise."""
    for attempt in (1, 2):
        try:
            fd = open_here(grave, name)
        except PermissionError:
            if attempt == 2:
                raise
            make_writable(grave, name)
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return None
            if error.errno == errno.EXDEV:
                raise OSError(errno.EXDEV, "a mount point, left alone", name) from None
            raise
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            try:
                os.fchmod(fd, 0o700)
            except OSError:
                pass  # not ours to change: what cannot be removed is reported one by one
        return fd
    raise AssertionError("unreachable")


def make_writable(parent: int, name: str) -> None:
    """Give the owner of a directory all rights to it; nothing happens where that is not possible."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # A link must not be looked through, and chmod cannot take an O_PATH descriptor: this name of it can.
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    except OSError:
        pass  # the removal that follows says what is wrong
    finally:
        os.close(fd)


def _empty(fd: int, grave: int, number: int, pending: list[str], done: Removed) -> int:
    """Unlink the files of a directory and move its directories up into the grave."""
    with os.scandir(fd) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                _unlink(fd, entry.name, done)
                continue
            number += 1
            try:
                pending.append(_move_up(fd, entry.name, grave, number))
            except FileNotFoundError:
                continue
            except OSError as error:
                why = "a mount point, left alone" if error.errno == errno.EBUSY else error.strerror
                done.problem(f"{entry.name!a}: {why}")
    return number


def _move_up(fd: int, name: str, grave: int, number: int) -> str:
    piece = f"{number:x}"
    for attempt in (1, 2):
        try:
            os.rename(name, piece, src_dir_fd=fd, dst_dir_fd=grave)
            break
        except PermissionError:
            # Moving a directory rewrites its "..", for which its owner needs to be able to write to it.
            if attempt == 2:
                raise
            make_writable(fd, name)
    return piece


def _unlink(parent: int, name: str, done: Removed) -> None:
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        done.problem(f"{name!a}: {error.strerror}")
        return
    done.entries += 1
    if st.st_nlink == 1:
        done.bytes += st.st_blocks * BLOCK


def _rmdir(grave: int, name: str, fd: int, done: Removed) -> bool:
    st = os.fstat(fd)
    try:
        os.rmdir(name, dir_fd=grave)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            done.problem(f"{name}: {error.strerror}")
        return False
    done.entries += 1
    done.bytes += st.st_blocks * BLOCK
    return True
