"""Compressing rotated log files, in a process of the lowest priority: one folder after the other, one file at a time.

A file NAME.N (N from 2 on; .1 stays plain for those who follow) becomes NAME.N.gz in steps of which each leaves a
complete and readable set, wherever the process dies:
    1  NAME.gz.tmp is written and synced                    (left alone: thrown away by the next round)
    2  under the lock of the folder: NAME.gz.tmp is renamed to NAME.N.gz, N being the file's number by now
    3  NAME.N is removed                                    (left alone: both stand, the packed one counts)

`compressor.py` is the daemon's half; botd's end ends this process.
"""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    # Started by its path and isolated, so that neither the environment nor the working folder decides what is loaded.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import contextlib
import fcntl
import select

from botd.contract.errors import BotdError
from botd.storage import logsizes, packed, tree
from botd.storage.logfiles import BASES, find, inode_of, open_regular, rotated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PLAIN = 1
"""The newest so many rotated files stay plain."""
TEMPORARY = ".gz.tmp"
_MEMORY = 512 << 20
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE_CLASS = 3 << 13


class Abandoned(Exception):
    """Nobody wants the packed file any more: the plain one was removed, or botd is gone."""


def main() -> int:
    """Answer one JSON line for each {"home": path, "parts": [names of folders below it]} of standard input."""
    _be_humble()
    while raw := _line():
        request = json.loads(raw)
        answer = compress_folder(request["home"], tuple(request["parts"]), _parent_is_gone)
        try:
            os.write(1, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            return 0
    return 0


def _line() -> bytes:
    """The next line of standard input; botd sends one at a time and waits for its answer."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            return b""
        data += more
    return data


def _parent_is_gone() -> bool:
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    return bool(poll.poll(0))


def _be_humble() -> None:
    """Run, and use the disk, only when nobody else wants to."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with contextlib.suppress(OSError):
        os.nice(19)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        try:
            import ctypes

            ctypes.CDLL(None).syscall(number, 1, 0, _IDLE_CLASS)
        except (ImportError, OSError, AttributeError):
            pass  # only a courtesy to others


def compress_folder(home: str, parts: tuple[str, ...], abandoned: Callable[[], bool]) -> dict[str, Any]:
    """Compress every rotated file of a log folder that is not yet; `abandoned` is asked between pieces."""
    done: dict[str, Any] = {"files": 0, "before": 0, "after": 0, "busy": False, "problems": []}
    try:
        top = tree.open_directory(home)
        try:
            folder = tree.descend(top, parts)
        finally:
            os.close(top)
    except FileNotFoundError:
        return done
    except (OSError, BotdError) as error:
        done["problems"].append(f"{'/'.join(parts)}: {error}")
        return done
    try:
        for base in BASES.values():
            _compress_stream(folder, f"{base}.log", abandoned, done)
    except logsizes.Busy:
        done["busy"] = True
    except Abandoned:
        pass  # nothing was changed
    except OSError as error:
        done["problems"].append(f"{'/'.join(parts)}: {error.strerror or error}")
    finally:
        os.close(folder)
    return done


def _compress_stream(folder: int, log: str, abandoned: Callable[[], bool], done: dict[str, Any]) -> None:
    tidy(folder, log)
    seen: set[int] = set()
    while True:
        # The newest first: under a flood the oldest are removed before their turn comes. Numbers move meanwhile.
        names = set(os.listdir(folder))
        for number in reversed(rotated(list(names), log)):
            plain = f"{log}.{number}"
            if number <= PLAIN or plain not in names:
                continue
            if plain + packed.SUFFIX in names:
                with logsizes.locked(folder, wait=True):
                    _drop_plain(folder, log, number)
                continue
            inode = inode_of(folder, plain)
            if inode is not None and inode not in seen:
                seen.add(inode)
                break
        else:
            return
        try:
            sizes = compress_file(folder, log, plain, abandoned)
        except Abandoned:
            if abandoned():
                raise
            continue
        if sizes is not None:
            done["files"] += 1
            done["before"] += sizes[0]
            done["after"] += sizes[1]


def tidy(folder: int, log: str) -> None:
    """Remove what a compression that was cut short has left, unless it is under way."""
    fd = open_regular(folder, log + TEMPORARY)
    if fd < 0:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if inode_of(folder, log + TEMPORARY) == os.fstat(fd).st_ino:
            os.unlink(log + TEMPORARY, dir_fd=folder)
    except BlockingIOError:
        pass  # its writer lives
    finally:
        os.close(fd)


def _drop_plain(folder: int, log: str, number: int) -> None:
    """Under the lock: remove a plain file that stands beside its packed one."""
    plain = f"{log}.{number}"
    if inode_of(folder, plain + packed.SUFFIX) is not None and inode_of(folder, plain) is not None:
        os.unlink(plain, dir_fd=folder)


def compress_file(folder: int, log: str, plain: str, abandoned: Callable[[], bool]) -> tuple[int, int] | None:
    """Compress one file; its bytes before and after, or None when it is left as it is. Raises Abandoned, Busy."""
    source = open_regular(folder, plain)
    if source < 0:
        return None
    temporary = log + TEMPORARY
    try:
        st = os.fstat(source)
        if st.st_size > packed.PLAIN_MAX:
            return None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            target = os.open(temporary, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            raise Abandoned from None  # another one is at work
        try:
            fcntl.flock(target, fcntl.LOCK_EX)
            try:
                _pack(source, target, st, abandoned)
                os.fsync(target)
                _replace(folder, log, temporary, st.st_ino)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            return st.st_size, os.fstat(target).st_size
        finally:
            os.close(target)
    finally:
        os.close(source)


def _pack(source: int, target: int, st: os.stat_result, abandoned: Callable[[], bool]) -> None:
    rows: list[tuple[int, int]] = []
    at = 0
    while plain := os.pread(source, packed.CHUNK, at):
        if abandoned() or os.fstat(source).st_nlink == 0:
            raise Abandoned
        member = packed.pack_member(plain)
        _write(target, member)
        rows.append((len(member), len(plain)))
        at += len(plain)
        if len(rows) > packed.MEMBERS_MAX:
            raise Abandoned  # somebody makes it longer while we read it
    _write(target, packed.trailer(rows, st.st_ino))
    # Its time says how old its last line is.
    os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))
    if (st.st_uid, st.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(target, st.st_uid, st.st_gid)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _replace(folder: int, log: str, temporary: str, inode: int) -> None:
    """Give the packed file its name, which by now may be that of a later number."""
    with logsizes.locked(folder, wait=True):
        found = find(folder, log, inode)
        if found is None or found.number <= PLAIN or found.name.endswith(packed.SUFFIX):
            raise Abandoned
        os.rename(temporary, found.name + packed.SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
        os.unlink(found.name, dir_fd=folder)


if __name__ == "__main__":
    sys.exit(main())
