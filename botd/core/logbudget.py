"""Log budgets: which rotated files have to go, and in which words. Pure.

A file that is being written never goes. Within a stream the oldest goes first, so that what stays has no gap; among
streams and bots it is the one that was written last longest ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from botd.core.settings import Output


class File(NamedTuple):
    """One log file with its index. `number`: 0 is the current one with all that is not rotated; `bytes` on disk;
    `written_at`: when the last byte came into it, seconds since the epoch; `inode` tells it from a later one; `packed`:
    it is compressed already.
    """

    bot: str
    stream: str
    number: int
    bytes: int
    written_at: float
    inode: int = 0
    packed: bool = False


class Removal(NamedTuple):
    """A file that goes. Files with the same bot and `reason` are told together."""

    file: File
    reason: str


def total(files: Iterable[File]) -> int:
    return sum(file.bytes for file in files)


def decide(files: Sequence[File], output: Output, now: float) -> list[Removal]:
    """What goes of the files of one user, in this order. `now`: seconds since the epoch."""
    left = _Left(files)
    out = left.too_old(output.max_age_s, now)
    if output.max_bytes_per_bot is not None:
        for bot in dict.fromkeys(file.bot for file in files):
            out += left.shrink(bot, output.max_bytes_per_bot, bot, "output.maxPerBot")
    if output.max_bytes_per_user is not None and files:
        user = files[0].bot.partition("/")[0]
        out += left.shrink(None, output.max_bytes_per_user, user, "output.maxPerUser")
    return out


class _Left:
    """What is left of the files while some are taken away."""

    def __init__(self, files: Sequence[File]) -> None:
        self._bytes: dict[str, int] = {}
        self._rotated: dict[tuple[str, str], list[File]] = {}
        for file in files:
            self._bytes[file.bot] = self._bytes.get(file.bot, 0) + file.bytes
            if file.number > 0:
                self._rotated.setdefault((file.bot, file.stream), []).append(file)
        for stream in self._rotated.values():
            stream.sort(key=lambda file: file.number)

    def too_old(self, max_age_s: float | None, now: float) -> list[Removal]:
        if max_age_s is None:
            return []
        reason = f"older than {_span(max_age_s)} (output.maxAge)"
        gone = []
        for stream in self._rotated.values():
            while stream and now - stream[-1].written_at > max_age_s:
                gone.append(Removal(self._take(stream), reason))
        return gone

    def shrink(self, bot: str | None, most: int, whose: str, key: str) -> list[Removal]:
        """Take the oldest away until a bot (None: all of them) fits, or nothing is left that may go."""
        used = self._bytes.get(bot, 0) if bot is not None else sum(self._bytes.values())
        if used <= most:
            return []
        reason = f"logs of {whose} were {_mib(used)} of {_mib(most)} MiB ({key})"
        gone = []
        while used > most:
            streams = [s for (of, _), s in self._rotated.items() if s and bot in (None, of)]
            if not streams:
                break
            file = self._take(min(streams, key=lambda stream: (stream[-1].written_at, -stream[-1].number)))
            used -= file.bytes
            gone.append(Removal(file, reason))
        return gone

    def _take(self, stream: list[File]) -> File:
        file = stream.pop()
        self._bytes[file.bot] -= file.bytes
        return file


def summary(bot: str, files: int, size: int, reason: str) -> str:
    """The line of history: `removed the 3 oldest log files (48 MiB) of alice/shop: logs of ...`."""
    what = "the oldest log file" if files == 1 else f"the {files} oldest log files"
    return f"removed {what} ({_mib(size)} MiB) of {bot}: {reason}"


def _mib(size: int) -> str:
    mib = size / (1 << 20)
    return f"{mib:.0f}" if mib >= 10 or mib == int(mib) else f"{mib:.1f}" if mib >= 0.1 else f"{mib:.2f}"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
