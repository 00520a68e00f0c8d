"""What is in a source, read without following a link: names, kinds, sizes, and by what to tell that nothing changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit
from botd.core.classify import Found, Rules
from botd.storage import tree

DEPTH_MAX = 100
PATH_MAX = 2000
"""Bytes of a path within a tree: with the path of a bot's folder before it, it stays under the 4096 of Linux."""
VENV_MARK = "pyvenv.cfg"
BYTE_CODE = "__pycache__"
_LISTED = 1_000_000
"""Names in a source, whether they are kept or not."""

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of content and inode of a file or folder: other ones mean that it changed."""


class Changed(Exception):
    """The source changed while it was read; `path` says where."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(slots=True)
class Scan:
    """`found`: folders before what is in them; `ignored`: path -> (is it a folder, why); `venvs`: their folders."""

    found: list[Found] = field(default_factory=list)
    ignored: dict[str, tuple[bool, str]] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    """Of each folder, what is kept."""
    byte_code: int = 0
    """How much of Python's was left out; there may be hundreds of it, and nobody misses it."""
    venvs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0


def refused(path: str, why: str, hint: str) -> BotdError:
    """What a release cannot have in it."""
    return BotdError("invalid", f"{shown(path)}: {why}", hint=hint, exit=Exit.INVALID, details={"path": shown(path)})


def shown(path: str) -> str:
    """A path as it may be printed: what is not printable is escaped."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return ascii(os.fsencode(path))[2:-1]
    return path if path.isprintable() else ascii(path)[1:-1]


def signature(st: os.stat_result) -> Signature:
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def scan(root: int, rules: Rules, left_out: Mapping[str, str], max_files: int, max_bytes: int) -> Scan:
    """Walk the folder `root` (a descriptor). `left_out`: path -> why, beside what the rules ignore.

    Raises BotdError(invalid) for what a release cannot have, naming it; Changed when something went away meanwhile.
    """
    done = Scan()
    pending = [""]
    listed = 0
    while pending:
        folder = pending.pop()
        try:
            fd = tree.descend(root, tuple(folder.split("/")) if folder else ())
        except PermissionError:
            raise _unreadable(folder) from None
        except (OSError, BotdError):
            raise Changed(folder) from None
        try:
            done.signatures[folder] = signature(os.fstat(fd))
            names = sorted(os.listdir(fd))
            listed += len(names)
            if listed > max(_LISTED, max_files):
                raise refused(folder or ".", f"more than {max(_LISTED, max_files):,} names in the source", _IS_IT)
            if VENV_MARK in names and folder:
                done.venvs.append(folder)
            inner = []
            for name in names:
                path = f"{folder}/{name}" if folder else name
                one = _look(fd, name, path, rules, left_out, done)
                if one is None:
                    continue
                done.found.append(one)
                done.names.setdefault(folder, set()).add(name)
                done.bytes += one.bytes
                if one.type == "d":
                    inner.append(path)
                if len(done.found) > max_files:
                    hint = f"leave out what bots do not need (.botdignore), or raise max_files. {_IS_IT}"
                    raise refused(path, f"more than {max_files:,} files and folders (max_files)", hint)
                if done.bytes > max_bytes:
                    hint = f"leave out what bots do not need (.botdignore), or raise max_bytes. {_IS_IT}"
                    raise refused(path, f"with it the source has more than {max_bytes:,} bytes (max_bytes)", hint)
            pending += reversed(inner)
        finally:
            os.close(fd)
    return done


_IS_IT = "is it the folder that was meant?"
_LEAVE_OUT = "or leave it out: name it in .botdignore"


def _look(fd: int, name: str, path: str, rules: Rules, left_out: Mapping[str, str], done: Scan) -> Found | None:
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except PermissionError:
        raise _unreadable(path) from None
    except OSError:
        raise Changed(path) from None
    folder = stat.S_ISDIR(st.st_mode)
    why = _why_not(path, folder, rules, left_out, done)
    if why is not None:
        if name == BYTE_CODE or name.endswith(".pyc"):
            done.byte_code += 1
        else:
            done.ignored[shown(path)] = (folder, why)
        return None
    _check_name(path)
    done.signatures[path] = signature(st)
    if folder:
        return Found(path, "d", False, 0)
    if stat.S_ISLNK(st.st_mode):
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError:
            raise Changed(path) from None
        return Found(path, "l", False, len(os.fsencode(target)), target)
    if not stat.S_ISREG(st.st_mode):
        raise refused(path, f"is a {_kind(st.st_mode)}, which no release can have", f"remove it, {_LEAVE_OUT}")
    if st.st_mode & (stat.S_ISUID | stat.S_ISGID):
        done.notes.append(f"{path}: its set-uid or set-gid bit is not kept")
    return Found(path, "f", bool(st.st_mode & 0o111), st.st_size)


def _of_a_venv(path: str, done: Scan) -> str | None:
    folder, _, name = path.rpartition("/")
    above, _, bin = folder.rpartition("/")
    if bin == "bin" and above in done.venvs and name.lower().startswith("activate"):
        return "built-in: it activates the environment in the place where that was made; {python} is the interpreter"
    return None


def _check_name(path: str) -> None:
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise refused(path, "its name is not UTF-8", f"rename it, {_LEAVE_OUT} (* stands for anything)") from None
    if any(c < 32 or c == 127 for c in raw):
        raise refused(path, "its name has a control character in it", f"rename it, {_LEAVE_OUT} (? stands for one)")
    if path.count("/") >= DEPTH_MAX or len(raw) > PATH_MAX:
        why = f"deeper than {DEPTH_MAX} folders or longer than {PATH_MAX} bytes"
        raise refused(path[:200], why, f"is it a link farm or an archive bomb? {_LEAVE_OUT}")


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "device"


def _unreadable(path: str) -> BotdError:
    hint = f"give the user who runs botd the right to read it, {_LEAVE_OUT}"
    return BotdError("denied", f"{shown(path) or '.'}: cannot be read: permission denied", hint=hint)


def open_file(root: int, path: str, wanted: Signature) -> int:
    """A descriptor of a file that is still what the scan saw. Raises Changed, BotdError(denied)."""
    folder, _, name = path.rpartition("/")
    try:
        parent = tree.descend(root, tuple(folder.split("/")) if folder else ())
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
        finally:
            os.close(parent)
    except PermissionError:
        raise _unreadable(path) from None
    except (OSError, BotdError):
        raise Changed(path) from None
    if signature(os.fstat(fd)) != wanted:
        os.close(fd)
        raise Changed(path)
    return fd


def check_unchanged(root: int, seen: Scan, rules: Rules, left_out: Mapping[str, str], secret: frozenset[str]) -> None:
    """Raise Changed when anything that was found is another one by now, is gone, or has company.

    What is left out, by the rules or as a `secret`, may come and go as it likes: a bot may be running right there.
    So a folder is compared by its names and not by its times.
    """
    for folder in ["", *(one.path for one in seen.found if one.type == "d" and one.path not in secret)]:
        try:
            fd = tree.descend(root, tuple(folder.split("/")) if folder else ())
        except (OSError, BotdError):
            raise Changed(folder) from None
        try:
            if signature(os.fstat(fd))[:2] != seen.signatures[folder][:2]:
                raise Changed(folder)
            prefix = f"{folder}/" if folder else ""
            known = {name for name in seen.names.get(folder, ()) if prefix + name not in secret}
            names = {name for name in os.listdir(fd) if prefix + name not in secret}
            if not known <= names:
                raise Changed(folder)
            for name in names:
                path = prefix + name
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
                is_folder = stat.S_ISDIR(st.st_mode)
                if name not in known:
                    if _why_not(path, is_folder, rules, left_out, seen) is None:
                        raise Changed(path)
                elif not is_folder and signature(st) != seen.signatures[path]:
                    raise Changed(path)
        except OSError:
            raise Changed(folder) from None
        finally:
            os.close(fd)


def _why_not(path: str, folder: bool, rules: Rules, left_out: Mapping[str, str], seen: Scan) -> str | None:
    """Why a path is left out, None when it is not."""
    return left_out.get(path) or rules.ignored(path, folder) or _of_a_venv(path, seen)
