"""Archives as sources: unpacked into a private folder, and from there on looked at like any folder.

Whatever a member says, it is written below that folder: names are checked, no link exists while files are written, and
limits hold while bytes come out, not for what a header promises.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit
from botd.storage.releases.scan import DEPTH_MAX, PATH_MAX, refused, shown

_CHUNK = 1 << 20
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = "in a manifest that is given beside the archive: the one in it is not read yet"
_AGAIN = "make the archive again from a folder, for example with: tar -czf bot.tar.gz -C FOLDER ."


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    type: Literal["f", "d", "l", "hard"]
    mode: int
    size: int
    target: str = ""
    content: IO[bytes] | None = None


def extract(source: int, name: str, folder: str, max_files: int, max_bytes: int) -> tuple[str, list[str]]:
    """Unpack the archive `source` (a descriptor; `name` for messages) into the empty `folder`.

    Returns the root of its tree and what its owner should know. An archive with a single folder at its top has its
    root there. Raises BotdError(invalid), naming the member.
    """
    unpacking = _Unpacking(folder, max_files, max_bytes)
    try:
        with os.fdopen(os.dup(source), "rb") as file:
            unpacking.all(_members(file, name))
    except BotdError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _no_archive(name, str(error)) from error
    except MemoryError as error:
        raise _no_archive(name, "its headers do not fit into memory") from error
    except RuntimeError as error:  # an encrypted member
        raise _no_archive(name, str(error)) from error
    except Exception as error:
        if type(error).__name__ in ("LZMAError", "ZstdError"):  # of modules that need not be there
            raise _no_archive(name, str(error)) from error
        raise
    names = os.listdir(folder)
    if len(names) == 1 and os.path.isdir(f"{folder}/{names[0]}") and not os.path.islink(f"{folder}/{names[0]}"):
        return f"{folder}/{names[0]}", unpacking.notes
    return folder, unpacking.notes


def _no_archive(name: str, why: str) -> BotdError:
    hint = f"a folder, .tar, .tar.gz, .tar.bz2, .tar.xz or .zip is needed; {_AGAIN}"
    return BotdError("invalid", f"{name}: no archive, or damaged: {why}", hint=hint, exit=Exit.INVALID)


def _members(file: IO[bytes], name: str) -> Iterator[_Member]:
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"PK":
        return _of_zip(file)
    if magic == _ZSTANDARD and "zst" not in tarfile.TarFile.OPEN_METH:
        hint = "this Python cannot read it (3.14 can); unpack it first: zstd -d"
        raise BotdError("invalid", f"{name}: is compressed with zstd", hint=hint, exit=Exit.INVALID)
    return _of_tar(file)


def _of_tar(file: IO[bytes]) -> Iterator[_Member]:
    # As a stream: it is read once, from front to back, whatever compresses it.
    with tarfile.open(fileobj=file, mode="r|*", encoding="utf-8", errors="surrogateescape") as archive:
        for info in archive:
            kind: Literal["f", "d", "l", "hard"]
            if info.isreg():
                yield _Member(info.name, "f", info.mode, info.size, content=archive.extractfile(info))
                continue
            if info.isdir():
                kind = "d"
            elif info.issym():
                kind = "l"
            elif info.islnk():
                kind = "hard"
            else:
                what = "named pipe" if info.isfifo() else "device" if info.isdev() else "member of an unknown kind"
                raise refused(info.name, f"is a {what}, which no release can have", "leave it out of the archive")
            yield _Member(info.name, kind, info.mode, 0, info.linkname)


def _of_zip(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            if info.is_dir():
                yield _Member(info.filename, "d", mode, 0)
            elif stat.S_ISLNK(mode):
                if info.file_size > PATH_MAX:
                    raise refused(info.filename, "is a link with a target that is too long", _AGAIN)
                yield _Member(info.filename, "l", mode, 0, os.fsdecode(archive.read(info)))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise refused(info.filename, "is neither file, folder nor link", "leave it out of the archive")
            else:
                with archive.open(info) as content:
                    yield _Member(info.filename, "f", mode, info.file_size, content=content)


class _Unpacking:
    def __init__(self, folder: str, max_files: int, max_bytes: int) -> None:
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._bytes = 0
        self._members = 0
        self._folders = {""}
        self._links: dict[str, str] = {}
        self.notes: list[str] = []

    def all(self, members: Iterator[_Member]) -> None:
        for member in members:
            self._members += 1
            if self._members > self._max_files:
                hint = f"is it an archive bomb? If not, raise max_files {_ASIDE}"
                raise refused(member.path, f"more than {self._max_files:,} members (max_files)", hint)
            path = _checked(member.path)
            if not path:
                continue
            try:
                self._one(path, member)
            except OSError as error:
                if isinstance(error, (NotADirectoryError, IsADirectoryError, FileExistsError)):
                    raise refused(path, "is both a folder and something else in the archive", _AGAIN) from None
                raise
        for path, target in self._links.items():
            # Last, when nothing is written any more: no name leads through them.
            try:
                os.symlink(target, f"{self._folder}/{path}")
            except FileExistsError:
                raise refused(path, "is a link and something else in the archive", _AGAIN) from None

    def _one(self, path: str, member: _Member) -> None:
        if member.type == "d":
            self._make(path)
            return
        self._make(path.rpartition("/")[0])
        target = f"{self._folder}/{path}"
        if member.type == "l":
            self._links[path] = member.target
        elif member.type == "hard":
            other = _checked(member.target)
            try:
                os.link(f"{self._folder}/{other}", target, follow_symlinks=False)
            except (FileNotFoundError, PermissionError):
                why = f"is a hard link to {shown(member.target)}, which is no file before it in the archive"
                raise refused(path, why, _AGAIN) from None
        else:
            self._write(path, target, member)

    def _make(self, folder: str) -> None:
        if folder in self._folders:
            return
        self._make(folder.rpartition("/")[0])
        if folder in self._links:
            raise FileExistsError
        try:
            os.mkdir(f"{self._folder}/{folder}", 0o700)
            self._members += 1
        except FileExistsError:
            if not os.path.isdir(f"{self._folder}/{folder}"):
                raise
        self._folders.add(folder)

    def _write(self, path: str, target: str, member: _Member) -> None:
        assert member.content is not None
        if member.size > self._max_bytes - self._bytes:
            raise self._too_big(path)
        # What stands there already is an earlier version (tar -r); it may have other names, which keep theirs.
        if os.path.lexists(target) and not os.path.isdir(target):
            os.unlink(target)
        if member.mode & (stat.S_ISUID | stat.S_ISGID):
            # Not even for a moment is there such a file of botd with what a stranger put into it.
            self.notes.append(f"{shown(path)}: its set-uid or set-gid bit is not kept")
        fd = os.open(target, _FILE, 0o700 if member.mode & 0o111 else 0o600)
        with os.fdopen(fd, "wb") as out:
            while data := member.content.read(_CHUNK):
                self._bytes += len(data)
                if self._bytes > self._max_bytes:
                    raise self._too_big(path)
                out.write(data)

    def _too_big(self, path: str) -> BotdError:
        hint = f"is it an archive bomb? If not, raise max_bytes {_ASIDE}"
        return refused(path, f"with it the archive has more than {self._max_bytes:,} bytes (max_bytes)", hint)


def _checked(path: str) -> str:
    """The path within the tree that a member's name means, "" for the tree itself."""
    if path.startswith("/"):
        raise refused(path, "has an absolute path in the archive", _AGAIN)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused(path, "leads out of the archive with ..", _AGAIN)
    if "\0" in path or len(parts) > DEPTH_MAX or len(os.fsencode(path)) > PATH_MAX:
        raise refused(path[:200], f"is deeper than {DEPTH_MAX} folders or longer than {PATH_MAX} bytes", _AGAIN)
    return "/".join(parts)
