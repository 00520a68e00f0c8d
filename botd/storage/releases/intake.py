"""The way of files into the tree of a release that is being made."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence

from botd.contract.paths import Paths
from botd.core.classify import Found
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases import objects, scan
from botd.storage.releases.model import Entry
from botd.storage.releases.scan import Scan
from botd.storage.releases.venv import EDITED_MAX, Venvs

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Progress = Callable[[int, int, int, int], None]
"""Told as it goes on: files and bytes done, files and bytes in all."""


class Intake:
    """Fills `stage`/tree. `entries` is what is in it; nothing of it is read-only but its files until `close`."""

    def __init__(self, paths: Paths, stage: str, progress: Progress | None) -> None:
        self._paths = paths
        self.folder = f"{stage}/release"
        self.tree = f"{self.folder}/tree"
        self._scratch = f"{stage}/scratch"
        self._progress = progress
        self._stored: dict[tuple[str, bool], str] = {}
        """What no release had before: (digest, executable) -> where in the tree it is."""
        self.entries: list[Entry] = []
        self._files = 0
        self._bytes = 0
        os.mkdir(self.folder, 0o755)
        os.mkdir(self.tree, 0o700)

    def bring(self, root: int, seen: Scan, wanted: Sequence[Found], venvs: Venvs) -> None:
        """Bring `wanted` of a scanned folder. Raises scan.Changed; OSError when the disk refuses."""
        files = sum(one.type == "f" for one in wanted)
        size = sum(one.bytes for one in wanted if one.type == "f")
        self._files = self._bytes = 0
        for one in wanted:
            path, target = one.path, f"{self.tree}/{one.path}"
            if one.type == "d":
                os.mkdir(target, 0o700)
                self.entries.append(Entry(path, "d", False, 0, ""))
            elif one.type == "l":
                os.symlink(one.target, target)
                self.entries.append(Entry(path, "l", False, one.bytes, one.target))
            else:
                fd = scan.open_file(root, one.path, seen.signatures[one.path])
                try:
                    self._file(fd, one, venvs)
                    # Also what is written in place while it is read shows in the times of the inode.
                    if scan.signature(os.fstat(fd)) != seen.signatures[one.path]:
                        raise scan.Changed(one.path)
                finally:
                    os.close(fd)
                self._files += 1
                self._bytes += one.bytes
                crash_point("store-file-brought")
                if self._progress is not None:
                    self._progress(self._files, self._bytes, files, size)

    def _file(self, fd: int, one: Found, venvs: Venvs) -> None:
        if one.bytes > EDITED_MAX:
            self._stream(fd, one)
            return
        data = b""
        while more := os.read(fd, EDITED_MAX + 1 - len(data)):
            data += more
            if len(data) > EDITED_MAX:
                raise scan.Changed(one.path)
        if venvs.edits(one.path):
            data = venvs.edit(one.path, data)
        digest = hashlib.sha256(data).hexdigest()
        target = f"{self.tree}/{one.path}"
        if not self._link(digest, one.x, target):
            _write(target, data, one.x)
            self._stored[digest, one.x] = target
        self.entries.append(Entry(one.path, "f", one.x, len(data), digest))

    def _stream(self, fd: int, one: Found) -> None:
        """A file that does not go into memory: written, and thrown away where it turns out to be there already."""
        digest = hashlib.sha256()
        target = f"{self.tree}/{one.path}"
        size = 0
        out = os.open(target, _NEW, objects.mode(one.x))
        try:
            while data := os.read(fd, objects.CHUNK):
                size += len(data)
                if size > one.bytes:
                    raise scan.Changed(one.path)
                digest.update(data)
                _all(out, data)
            os.fchmod(out, objects.mode(one.x))
        finally:
            os.close(out)
        name = digest.hexdigest()
        if self._link(name, one.x, self._scratch):
            os.rename(self._scratch, target)
        else:
            self._stored[name, one.x] = target
        self.entries.append(Entry(one.path, "f", one.x, size, name))

    def _link(self, digest: str, x: bool, target: str) -> bool:
        """Whether the content is there already, in this tree or another one; `target` is a name of it then."""
        known = self._stored.get((digest, x))
        if known is not None:
            with contextlib.suppress(OSError):  # too many names, or no hard links here
                os.link(known, target, follow_symlinks=False)
                return True
            return False
        return objects.take(self._paths, digest, x, target)

    def adopt(self, folder: str) -> None:
        """Take in what a compiler has written into `__pycache__` folders below `folder` of the tree."""
        for here, folders, names in os.walk(f"{self.tree}/{folder}", followlinks=False):
            folders.sort()
            if not here.endswith("/__pycache__"):
                continue
            path = here[len(self.tree) + 1 :]
            self.entries.append(Entry(path, "d", False, 0, ""))
            for name in sorted(names):
                self._adopt(f"{here}/{name}", f"{path}/{name}")

    def _adopt(self, target: str, path: str) -> None:
        fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, objects.mode(False))
            size = os.fstat(fd).st_size
            digest = objects.digest_of(fd)
        finally:
            os.close(fd)
        if self._link(digest, False, self._scratch):
            os.rename(self._scratch, target)
        else:
            self._stored[digest, False] = target
        self.entries.append(Entry(path, "f", False, size, digest))

    def share(self) -> int:
        """Let other releases share what is new; it is on disk by now. The bytes of it on disk."""
        size = 0
        for (digest, x), stored in self._stored.items():
            size += os.stat(stored, follow_symlinks=False).st_blocks * tree.BLOCK
            objects.publish(self._paths, digest, x, stored, self._scratch)
        return size

    def close(self) -> int:
        """Make all folders read-only; the bytes of them on disk."""
        size = 0
        for path in [*(entry.path for entry in reversed(self.entries) if entry.type == "d"), ""]:
            folder = f"{self.tree}/{path}"
            os.chmod(folder, 0o555)
            size += os.stat(folder).st_blocks * tree.BLOCK
        return size


def _write(path: str, data: bytes, x: bool) -> None:
    fd = os.open(path, _NEW, objects.mode(x))
    try:
        _all(fd, data)
        os.fchmod(fd, objects.mode(x))  # whatever the umask
    finally:
        os.close(fd)


def _all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
