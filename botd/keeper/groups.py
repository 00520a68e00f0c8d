"""One control group's folder and those that were made below it, of either version."""

from __future__ import annotations

import errno
import os

from botd.keeper import proc

GONE = (errno.ENOENT, errno.ENODEV)


def below(folder: str) -> list[str]:
    """A group's folder and those that the bot made below it, outermost first."""
    found = [folder]
    for one in found:
        try:
            with os.scandir(one) as entries:
                found += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
    return found


def members(folder: str) -> list[int]:
    """Pids inside; none when the folder is gone. OSError when nobody can tell who is inside."""
    found: list[int] = []
    for one in below(folder):
        try:
            found += map(int, proc.read(one + "/cgroup.procs").split())
        except OSError as error:
            # The folder went, and with it nothing that lives.
            if error.errno not in GONE:
                raise
    return found


def remove(folder: str) -> bool:
    """Take it away; False when somebody is still inside."""
    try:
        os.rmdir(folder)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        pass  # somebody is inside, or the bot made folders of its own
    for one in reversed(below(folder)):
        try:
            os.rmdir(one)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def renew(folder: str) -> None:
    """Make it, empty and with counters at zero. OSError EBUSY when somebody lives there."""
    try:
        os.makedirs(folder, 0o755)
    except FileExistsError:
        if not remove(folder):
            raise OSError(errno.EBUSY, "a former process still lives in the cgroup") from None
        os.makedirs(folder, 0o755)


def write(path: str, data: bytes) -> None:
    """Write to a group's file in one piece: a buffer would hide the kernel's answer. OSError names the file.

    Not blocking: a memory limit below what is in use shall not make the writer wait until it was taken back.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError as error:
        # The name is part of the words: they travel without the rest of the exception.
        raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from None


def remove_empty(folder: str) -> None:
    """Take a folder away that may still be needed; then it stays."""
    try:
        os.rmdir(folder)
    except OSError:
        pass  # somebody is inside, or it is gone


def can_enter(door: str) -> bool:
    """Whether a process may write itself into a group by this file, found out on a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        try:
            write(door, b"0")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
