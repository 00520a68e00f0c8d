"""What app/ says about itself: one line of JSON in .botd-release, written last."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import get_args

from botd.contract.errors import BotdError
from botd.storage import tree
from botd.storage.layout import copies
from botd.storage.layout.plans import Links

RECORD = ".botd-release"
_MAX_BYTES = 4096
_is_template = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}").fullmatch
_is_hash = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class Record:
    """Which release, with which links, made in which boot. `begun_ns`, `at_ns`: when making it began and ended,
    nanoseconds since the epoch by the clock of the file system: what it copied was written in between.
    """

    template: str
    hash: str
    links: Links
    boot: str
    begun_ns: int
    at_ns: int = 0


def read(bot: int, name: str) -> Record | None:
    """The record of the folder `name` in a bot's folder; None when there is none that could be ours. OSError."""
    try:
        app = tree.open_below(bot, name, name)
    except (FileNotFoundError, BotdError):
        return None
    try:
        fd = copies.open_file(RECORD, app)
    finally:
        os.close(app)
    if fd is None:
        return None
    try:
        st, text = os.fstat(fd), os.read(fd, _MAX_BYTES)
    finally:
        os.close(fd)
    try:
        return _parse(text, st.st_mtime_ns)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _parse(text: bytes, at_ns: int) -> Record | None:
    found = json.loads(text)
    template, hash, links = found["template"], found["release"], found.get("links", "shared")
    if not _is_template(template) or not _is_hash(hash) or links not in get_args(Links):
        return None
    return Record(template, hash, links, str(found.get("boot")), int(found.get("begun_ns", 0)), at_ns)


def write(app: int, record: Record, name: str = RECORD) -> None:
    """Write the record into the folder `app`, which has none of that name. FileExistsError; other OSErrors."""
    document = {
        "template": record.template,
        "release": record.hash,
        "links": record.links,
        "boot": record.boot,
        "begun_ns": record.begun_ns,
    }
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=app)
    try:
        os.write(fd, json.dumps(document, separators=(",", ":")).encode() + b"\n")
        if record.at_ns:
            os.utime(fd, ns=(record.at_ns, record.at_ns))
    finally:
        os.close(fd)


@cache
def boot() -> str:
    """What tells this boot from any other."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
