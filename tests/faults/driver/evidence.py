"""What the bots wrote down against what botd recorded and the keeper filed. Read when nothing lives any more.

A `Life` is what a witness says of itself. `judge` finds the generation of each on botd's record, and compares.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import signal
from binascii import crc32
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from struct import unpack_from

TO_STDERR = 5
IN_FLIGHT = 5
"""So many lines may have been written and not yet counted when a life was ended."""


@dataclass
class Life:
    """`end` is ("exit" or "signal", number) where it ended by itself or answered SIGTERM, None where it was killed."""

    number: int
    pid: int
    began: float
    term_at: float | None = None
    end: tuple | None = None
    ended_at: float | None = None
    until: float = float("inf")
    """No later than this: the next life began."""
    since: float = float("-inf")
    """A request may be older than the life that it ends: not older than the beginning of the one before."""


@dataclass
class Recorded:
    """One generation as botd's history tells it."""

    generation: int
    pid: int | None = None
    started: int = 0
    exited: list = field(default_factory=list)


def lives_of(folder):
    """(lives in order, number of twins) of one bot, from its own book."""
    lives, twins = {}, 0
    path = Path(folder, "lives")
    for line in path.read_text().splitlines() if path.exists() else ():
        word, number, pid, at, *more = line.split()
        if word == "twin":
            twins += 1
        elif word == "begin":
            lives[int(number)] = Life(int(number), int(pid), float(at))
        elif word == "term":
            life = lives[int(number)]
            life.term_at = life.term_at or float(at)
        else:
            # The last word counts: SIGTERM may arrive between what it meant to do and its doing it.
            lives[int(number)].end = (more[0], int(more[1]))
            lives[int(number)].ended_at = float(at)
    ordered = [lives[number] for number in sorted(lives)]
    for life, later in pairwise(ordered):
        life.until, later.since = later.began, life.began
    return ordered, twins


def counts_of(folder):
    path = Path(folder, "counts")
    data = path.read_bytes() if path.exists() else b""
    return {i: unpack_from("<Q", data, 8 * i)[0] for i in range(len(data) // 8)}


def history(events):
    """bot -> generation -> Recorded."""
    out = {}
    for event in events:
        if event["id"] is None or event["generation"] is None:
            continue
        one = out.setdefault(event["id"], {}).setdefault(event["generation"], Recorded(event["generation"]))
        if event["kind"] == "started":
            one.started += 1
            one.pid = int(re.search(r"pid (\d+)", event["text"])[1])
        elif event["kind"] == "exited":
            one.exited.append(status(event["text"]))
    return out


def status(text):
    """("exit", code), ("signal", number) or None for unknown, from a line of history."""
    if found := re.match(r"exited with code (\d+)", text):
        return "exit", int(found[1])
    if found := re.match(r"killed by (SIG\w+)", text):
        return "signal", int(signal.Signals[found[1]])
    if text.startswith("ended with an unknown status"):
        return None
    return "told", text


def match(lives, recorded, may_be):
    """life number -> Recorded: by pid where botd saw the start, in order and by status where it did not."""
    out, rest = {}, []
    by_pid = {one.pid: one for one in recorded if one.pid is not None}
    for life in lives:
        if life.pid in by_pid:
            out[life.number] = by_pid[life.pid]
        else:
            rest.append(life)
    generations = sorted(one.generation for one in recorded)
    by_generation = {one.generation: one for one in recorded}
    for life in rest:
        before = max((out[n].generation for n in out if n < life.number), default=-1)
        after = min((out[n].generation for n in out if n > life.number), default=float("inf"))
        free = [by_generation[g] for g in generations if before < g < after and by_generation[g].pid is None]
        fitting = [one for one in free if one.exited and may_be(life, one.exited[0])]
        if fitting or free:
            out[life.number] = (fitting or free)[0]
    return out


def output_of(folder, stream):
    """Every line that the keeper filed, the oldest first; a rotation that a kill cut short is read as it will be."""
    if not folder.is_dir():
        return []
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Who renames or compresses does it under this lock.
        fcntl.flock(held, fcntl.LOCK_SH)
        return _lines_in(folder, stream)
    finally:
        os.close(held)


def _lines_in(folder, stream):
    numbered = [p for p in folder.glob(f"{stream}.log.*") if re.fullmatch(r"\w+\.log\.\d+(\.gz)?", p.name)]
    # One that was just compressed: the plain one is about to go.
    numbered = [path for path in numbered if path.with_name(f"{path.name}.gz") not in numbered]
    parts = [
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in sorted(numbered, key=lambda p: -int(p.name.split(".")[2]))
    ]
    current = folder / f"{stream}.log"
    if current.exists():
        parts.append(current.read_bytes())
    for cut in folder.glob(f"{stream}.log.cut-*"):
        if current.exists():
            parts[-1] = parts[-1][: int(cut.name.rpartition("-")[2])]
        parts.append(cut.read_bytes())
    return b"".join(parts).splitlines()


@dataclass
class Output:
    """Of one bot: `found` has the numbers of each life; `torn`, `doubled` and `disordered` are sentences."""

    found: dict = field(default_factory=dict)
    torn: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    lines: int = 0


def read_output(bot_id, folder):
    out = Output()
    for stream in ("out", "err"):
        last = (0, 0)
        for raw in output_of(Path(folder), stream):
            out.lines += 1
            text, _, checksum = raw.decode("ascii", "replace").rpartition(" ")
            words = text.split(" ")
            if len(words) != 3 or checksum != f"{crc32(f'{bot_id} {text}'.encode()):08x}":
                out.torn.append(f"{bot_id}: {stream}: a line that it did not write: {raw[:80]!r}")
                continue
            here = int(words[0]), int(words[1])
            if here <= last:
                out.doubled.append(f"{bot_id}: {stream}: line {here} after {last}")
            last = max(last, here)
            out.found.setdefault(here[0], set()).add(here[1])
    return out


def missing(found, count):
    """(numbers that are not there, whether they are only a tail of each stream), of `count` that were written."""
    gone = [n for n in range(1, count + 1) if n not in found]
    heads = {}
    for n in gone:
        heads.setdefault(n % TO_STDERR == 0, n)
    tail = all(not any(n > first and (n % TO_STDERR == 0) == err for n in found) for err, first in heads.items())
    return gone, tail
