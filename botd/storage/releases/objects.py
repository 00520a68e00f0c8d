"""One file on disk for every distinct content, whatever releases have it.

An object and the files of releases are names (hard links) of one inode. Among bots that would be a trap: an append in
place changes everybody's file. Among releases it is safe, because nobody ever opens a file of a release for writing:
they are made under a name that nobody knows, made read-only, and then only linked and unlinked. Mode and content go
with the inode, so an executable is an object of its own (-x). What somebody changed against all this (root can) is
noticed when a release is to share it, and not shared.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases.staging import PRIVATE

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_UNLINKABLE = (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP)
"""Too many names already, or a file system that has no hard links: the content is stored once more."""
CHUNK = 1 << 20


@dataclass(slots=True)
class Collected:
    """Objects that no release has, and the bytes on disk that they take."""

    objects: int = 0
    bytes: int = 0


def mode(x: bool) -> int:
    return 0o555 if x else 0o444


def name_of(digest: str, x: bool) -> str:
    """Where the object lies below .objects."""
    return f"{digest[:2]}/{digest}{'-x' if x else ''}"


def take(paths: Paths, digest: str, x: bool, target: str) -> bool:
    """Make `target` a name of the object, if there is one and it is sound."""
    object_path = f"{paths.objects}/{name_of(digest, x)}"
    try:
        os.link(object_path, target, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _UNLINKABLE:
            return False
        raise
    if _is_sound(target, digest, x):
        return True
    os.unlink(target)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(object_path)  # the releases that have it keep it; `verify` names them
    return False


def _is_sound(path: str, digest: str, x: bool) -> bool:
    try:
        fd = os.open(path, _READ)
    except OSError:
        return False
    try:
        if os.fstat(fd).st_mode & 0o7777 != mode(x):
            return False
        return digest_of(fd) == digest
    except OSError:
        return False
    finally:
        os.close(fd)


def digest_of(fd: int) -> str:
    """SHA-256 of a file from its beginning, in hex."""
    digest = hashlib.sha256()
    while data := os.read(fd, CHUNK):
        digest.update(data)
    return digest.hexdigest()


def publish(paths: Paths, digest: str, x: bool, stored: str, scratch: str) -> None:
    """Let others share the file `stored`, whose content is on disk by now. `scratch`: a free name beside the tree."""
    object_path = f"{paths.objects}/{name_of(digest, x)}"
    for _ in range(2):
        try:
            os.link(stored, object_path, follow_symlinks=False)
            crash_point("store-object-published")
            return
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(object_path), PRIVATE)
        except FileExistsError:
            _share(paths, digest, x, stored, scratch)
            return
        except OSError as error:
            if error.errno in _UNLINKABLE:
                return  # it is there without being shared
            raise


def _share(paths: Paths, digest: str, x: bool, stored: str, scratch: str) -> None:
    """Somebody stored the same content meanwhile: theirs takes the place of ours."""
    if take(paths, digest, x, scratch):
        os.rename(scratch, stored)


def collect(paths: Paths, *, dry: bool = False) -> Collected:
    """Remove the objects that no release has; `dry`: only count them.

    Beside an addition it costs at worst that something is stored twice: a file that is being linked keeps its content.
    """
    done = Collected()
    for folder in _list(paths.objects):
        for name in _list(f"{paths.objects}/{folder}"):
            _collect_one(f"{paths.objects}/{folder}/{name}", dry, done)
        if not dry:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(f"{paths.objects}/{folder}")
    return done


def collect_these(paths: Paths, objects: Iterable[tuple[str, bool]]) -> Collected:
    """Of these (digest, executable) the ones that no release has."""
    done = Collected()
    for digest, x in set(objects):
        _collect_one(f"{paths.objects}/{name_of(digest, x)}", False, done)
    return done


def _collect_one(path: str, dry: bool, done: Collected) -> None:
    try:
        st = os.stat(path, follow_symlinks=False)
        if st.st_nlink != 1:
            return
        if not dry:
            os.unlink(path)
            crash_point("store-object-collected")
    except FileNotFoundError:
        return
    done.objects += 1
    done.bytes += st.st_blocks * tree.BLOCK


def _list(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
