"""What one bot takes on disk, and what else lies in the home. Blocks: call it in a thread.

Measured in blocks, by a walk that follows no link: what a bot only links to (the release it shares) is not its own.
A file that the file system shares with another one behind the scenes (a reflink) counts in full, because the first
write makes it so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from botd.contract.errors import BotdError
from botd.core import logbudget
from botd.core.quota import Usage
from botd.storage import logsizes, tree
from botd.storage.measure import Survey, survey


class Measured(NamedTuple):
    """`entries`: files and folders of its own; `complete` is False where something was closed to us; `took_s`."""

    usage: Usage
    entries: int
    complete: bool
    took_s: float


def measure(home: str, bots: Iterable[str]) -> dict[str, Measured]:
    """Each of these bots; nothing for one that has no folders. BotdError(unavailable) without a home."""
    try:
        fd = tree.open_directory(home)
    except OSError as error:
        raise BotdError("unavailable", f"{home} cannot be read: {error.strerror}") from error
    try:
        return {bot_id: _measure(fd, bot_id) for bot_id in bots}
    finally:
        os.close(fd)


def _measure(home: int, bot_id: str) -> Measured:
    began = time.monotonic()
    found = _below(home, ("bots", *bot_id.split("/")))
    logs = logbudget.total(logsizes.look(home, bot_id))
    return Measured(Usage(found.bytes, logs), found.entries, found.complete, time.monotonic() - began)


def folder(home: str, *parts: str) -> Survey:
    """What lies below a folder of the home; nothing where there is none. A hard link counts once."""
    try:
        fd = tree.open_directory(home)
    except OSError:
        return Survey(complete=False)
    try:
        return _below(fd, parts)
    finally:
        os.close(fd)


def _below(home: int, parts: tuple[str, ...]) -> Survey:
    try:
        fd = tree.descend(home, parts)
    except FileNotFoundError:
        return Survey()
    except (OSError, BotdError):
        return Survey(complete=False)  # a link or a file stands there
    try:
        return survey(fd)
    finally:
        os.close(fd)


def files(home: str, prefix: str) -> int:
    """The bytes on disk of the files in the home whose names begin with `prefix` (the database and what is beside)."""
    size = 0
    try:
        with os.scandir(home) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_blocks * tree.BLOCK
    except OSError:
        pass  # what is there can be counted the next time
    return size
