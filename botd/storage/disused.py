"""Releases that nobody uses any more, content that no release has, and what makers that are no more have left.

Looking only, but for `remove_release`, `remove_objects` and `recover`, which are those of the release store.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.settings import Cleaning
from botd.storage import probing, tree
from botd.storage.items import Folder, Item, ago, item, span

SHOWN = 12
_OWN_NAMES = 2
"""A file of a release has its name there and one among the objects; more, and other releases have it as well."""


def disused(
    paths: Paths, home: int, needed: Mapping[tuple[str, str], str], now: float, cleaning: Cleaning
) -> Iterator[Item]:
    """`home`: a descriptor of it; `needed`: (template, release) -> why it is; `now`: seconds since the epoch."""
    with Folder(home, ("templates",)) as templates:
        for name, st in templates.entries():
            if stat.S_ISDIR(st.st_mode) and not name.startswith("."):
                yield from _releases(paths, home, name, needed, now, cleaning)
    yield from _objects(paths, cleaning)
    yield from _staging(home)


def _releases(
    paths: Paths, home: int, template: str, needed: Mapping[tuple[str, str], str], now: float, cleaning: Cleaning
) -> Iterator[Item]:
    from botd.storage import releases

    with Folder(home, ("templates", template, "releases")) as folder:
        for hash in releases.list_releases(paths, template):
            st = folder.stat(hash)
            if st is None or not stat.S_ISDIR(st.st_mode):
                continue
            path, shown = f"templates/{template}/releases/{hash}", f"{template} {hash[:SHOWN]}"
            why, age = needed.get((template, hash)), now - st.st_mtime
            if why is not None:
                yield item(path, "release", st, why, False, shown)
                continue
            reason, remove = f"no bot uses it; made {ago(age)}", True
            if not cleaning.garbage_collection:
                reason, remove = "no bot uses it, and enableGarbageCollection is off", False
            elif age <= cleaning.max_file_age_s:
                reason = f"no bot uses it; made {ago(age)}, kept until {span(cleaning.max_file_age_s)} have passed"
                remove = False
            yield Item(
                path, "release", _own_bytes(folder.fd, hash), reason, remove, shown, False, (st.st_dev, st.st_ino)
            )


def _own_bytes(parent: int, name: str) -> int:
    """The bytes that go with a release; what others have as well stays. Releases are the daemon's own and read-only."""
    total = 0
    for _, folders, files, fd in os.fwalk(name, dir_fd=parent):
        for one in (*folders, *files):
            st = os.stat(one, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode) or st.st_nlink <= _OWN_NAMES:
                total += st.st_blocks * tree.BLOCK
    return total


def _objects(paths: Paths, cleaning: Cleaning) -> Iterator[Item]:
    from botd.storage import releases

    found = releases.collect(paths, dry=True)
    if found.objects:
        kept = "" if cleaning.garbage_collection else ", and enableGarbageCollection is off"
        reason = f"content that no release has{kept}; {found.objects} files"
        yield Item("templates/.objects", "objects", found.bytes, reason, cleaning.garbage_collection)


def _staging(home: int) -> Iterator[Item]:
    with Folder(home, ("templates", ".staging")) as folder:
        for name, st in folder.entries():
            if stat.S_ISDIR(st.st_mode) and not probing.somebody_holds(folder.fd, name, tree.DIRECTORY):
                reason = "the beginning of a release, whose maker is no more"
                yield item(f"templates/.staging/{name}", "staging", st, reason, True)


def remove_release(paths: Paths, path: str) -> tree.Removed:
    """Of an item of that kind; blocks. It is gone for everybody at once, and then removed."""
    from botd.storage import releases

    _, template, _, hash = path.split("/")
    try:
        return releases.remove(paths, template, hash)
    except BotdError as error:
        return tree.Removed(problems=[error.message])


def remove_objects(paths: Paths) -> int:
    """Bytes given back; blocks."""
    from botd.storage import releases

    return releases.collect(paths).bytes


def recover(paths: Paths) -> tree.Removed:
    """Remove what makers that are no more have left; blocks."""
    from botd.storage import releases

    return releases.recover(paths)
