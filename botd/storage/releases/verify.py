"""Is a release what it says it is?"""

from __future__ import annotations

import os
import stat

from botd.contract.errors import BotdError
from botd.storage.releases import model, objects
from botd.storage.releases.model import Entry, Release

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def verify(release: Release) -> list[str]:
    """Read all of it; in words what is not as it was added: missing, more, changed, writable. None: it is sound."""
    problems: list[str] = []
    try:
        wanted = {entry.path: entry for entry in model.entries(release)}
    except BotdError as error:
        return [error.message]
    if model.compute_hash(release.manifest, wanted.values()) != release.hash:
        problems.append("manifest.toml or index.json: not what the release was named after")
    seen = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(release.tree, folder)) as listed:
                names = sorted(one.name for one in listed)
        except OSError as error:
            problems.append(f"{folder or 'tree'}: {error.strerror}")
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            entry = wanted.get(path)
            if entry is None:
                problems.append(f"{path!a}: is no part of the release")
                continue
            seen.add(path)
            try:
                problem = _check(f"{release.tree}/{path}", entry)
            except OSError as error:
                problem = str(error.strerror)
            if problem:
                problems.append(f"{path}: {problem}")
            elif entry.type == "d":
                pending.append(path)
    problems += [f"{path}: is missing" for path in wanted if path not in seen]
    return problems


def _check(path: str, entry: Entry) -> str:
    st = os.stat(path, follow_symlinks=False)
    kind = "l" if stat.S_ISLNK(st.st_mode) else "d" if stat.S_ISDIR(st.st_mode) else "f"
    if kind != entry.type or (kind == "f" and not stat.S_ISREG(st.st_mode)):
        return "is something else"
    if kind == "l":
        return "" if os.readlink(path) == entry.digest else "leads elsewhere"
    if stat.S_IMODE(st.st_mode) != (0o555 if kind == "d" else objects.mode(entry.x)):
        return f"has the rights {stat.S_IMODE(st.st_mode):04o}"
    if kind == "d":
        return ""
    if st.st_size != entry.bytes:
        return f"has {st.st_size} bytes, not {entry.bytes}"
    fd = os.open(path, _READ)
    try:
        return "" if objects.digest_of(fd) == entry.digest else "its content is another one"
    finally:
        os.close(fd)
