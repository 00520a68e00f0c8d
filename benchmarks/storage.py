"""What a fleet of one template costs on disk, beside what copies would cost: real bots of a real botd.

    python -m benchmarks.storage [--bots N] [--only node|python] [--json FILE]

Each bot writes a session file beside its own code, and a verdict of what it found there. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter, sleep

from benchmarks import machine, trees
from benchmarks.house import USERS, House
from benchmarks.rpc import Rpc, RpcError

SCHEMA = 1
SAVED_BYTES, SAVED_INODES, CREATED_S = 99.0, 95.0, 3.0
"""The bars: per cent of what copies would take, and seconds for 200 bots with their folders."""
_BARS_FOR = 200
_WITHIN_S = 120.0
_KINDS: dict[str, Callable[[str], None]] = {"node": trees.node, "python": trees.python}


@dataclass(frozen=True)
class Space:
    """Whole blocks on disk, hard links counted once, and inodes."""

    bytes: int
    inodes: int


@dataclass(frozen=True)
class Result:
    """`copies`: what as many copies of the template would take; `used`: the release store and all bots' folders."""

    kind: str
    bots: int
    files: int
    template: Space
    copies: Space
    used: Space
    per_bot: Space
    add_s: float
    created_s: float
    ready_s: float
    started_s: float
    second_start_s: float
    mixed_up: list[str]

    @property
    def saved_bytes(self) -> float:
        return 100.0 * (1 - self.used.bytes / self.copies.bytes)

    @property
    def saved_inodes(self) -> float:
        return 100.0 * (1 - self.used.inodes / self.copies.inodes)


def measure(kind: str, bots: int, say: Callable[[str], None]) -> Result:
    """Make the template, the fleet and the bots; RuntimeError when something is not as it shall be."""
    scratch = tempfile.mkdtemp(prefix="s", dir="/tmp")
    try:
        source = f"{scratch}/{kind}"
        _KINDS[kind](source)
        template = space(source)
        files = sum(len(names) for _, _, names in os.walk(source))
        say(f"{kind}: a template of {files} files, {template.bytes / 1e6:.1f} MB")
        with House() as house, house.rpc() as rpc:
            return _measure(kind, bots, house, rpc, source, template, files, say)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _measure(
    kind: str, bots: int, house: House, rpc: Rpc, source: str, template: Space, files: int, say: Callable[[str], None]
) -> Result:
    began = perf_counter()
    rpc.call("templates.add", name=kind, path=source)
    add_s = perf_counter() - began
    say(f"added in {add_s:.2f} s")

    ids = [f"u{number % USERS}/b{number:05d}" for number in range(bots)]
    specs = [{"id": bot_id, "template": kind, "enabled": False} for bot_id in ids]
    began = perf_counter()
    rpc.call("fleet.apply", source="benchmarks", bots=specs, wait=False)
    created_s = perf_counter() - began
    records = [f"{house.home}/bots/{bot_id}/app/.botd-release" for bot_id in ids]
    _until(lambda: all(map(os.path.exists, reversed(records))), "the folders of the bots")
    ready_s = perf_counter() - began
    say(f"{bots} bots created in {created_s:.2f} s, their folders made after {ready_s:.2f} s")

    releases, folders = space(f"{house.home}/templates"), space(f"{house.home}/bots")
    used = Space(releases.bytes + folders.bytes, releases.inodes + folders.inodes)
    copies = Space(template.bytes * bots, template.inodes * bots)
    per_bot = Space(folders.bytes // bots, folders.inodes // bots)

    mixed_up: list[str] = []
    starts = []
    for before in (False, True):
        _forget_verdicts(house, ids)
        starts.append(house.start_all(rpc))
        _until(lambda: all(os.path.exists(_verdict(house, bot_id)) for bot_id in reversed(ids)), "their verdicts")
        mixed_up += [problem for bot_id in ids for problem in _judge(house, bot_id, before)]
        say(f"all run after {starts[-1]:.1f} s")
        house.stop_all(rpc)
    return Result(
        kind, bots, files, template, copies, used, per_bot, add_s, created_s, ready_s, starts[0], starts[1], mixed_up
    )


def space(folder: str) -> Space:
    """What a folder takes with all that is in it."""
    seen, size = set(), 0
    for here, folders, files in os.walk(folder):
        for name in ("", *files, *(name for name in folders if os.path.islink(f"{here}/{name}"))):
            st = os.lstat(f"{here}/{name}" if name else here)
            if st.st_ino not in seen:
                seen.add(st.st_ino)
                size += st.st_blocks * 512
    return Space(size, len(seen))


def _verdict(house: House, bot_id: str) -> str:
    return f"{house.home}/bots/{bot_id}/app/verdict.json"


def _forget_verdicts(house: House, ids: list[str]) -> None:
    for bot_id in ids:
        if os.path.exists(_verdict(house, bot_id)):
            os.unlink(_verdict(house, bot_id))


def _judge(house: House, bot_id: str, before: bool) -> list[str]:
    """What a bot has seen that it should not, or has not that it should."""
    app = os.path.realpath(f"{house.home}/bots/{bot_id}/app")
    for _ in range(100):
        try:
            with open(_verdict(house, bot_id)) as file:
                verdict = json.load(file)
            break
        except ValueError:
            sleep(0.05)  # it is being written
    else:
        return [f"{bot_id}: no verdict"]
    with open(f"{app}/session.json") as file:
        session = json.load(file)["id"]
    wanted = {"id": bot_id, "before": bot_id if before else None, "code": app, "folder": app}
    found = {name: verdict[name] for name in wanted}
    return [] if found == wanted and session == bot_id else [f"{bot_id}: {found}, its session is that of {session}"]


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = perf_counter() + _WITHIN_S
    while not true():
        if perf_counter() > deadline:
            raise RuntimeError(f"{what} are not there after {_WITHIN_S:.0f} s")
        sleep(0.01)


def table(results: list[Result]) -> list[str]:
    """Lines of a Markdown table, for docs/benchmarks.md."""
    rows: list[tuple[str, Callable[[Result], str]]] = [
        ("template", lambda r: f"{_mb(r.template.bytes)}, {r.files:,} files"),
        (f"{results[0].bots} copies of it", lambda r: f"{_mb(r.copies.bytes)}, {r.copies.inodes:,} inodes"),
        ("used: the release and all bots", lambda r: f"{_mb(r.used.bytes)}, {r.used.inodes:,} inodes"),
        ("a bot", lambda r: f"{r.per_bot.bytes / 1024:.0f} KiB, {r.per_bot.inodes} inodes"),
        ("saved on disk", lambda r: f"{r.saved_bytes:.2f} %{_bar(r, r.saved_bytes >= SAVED_BYTES)}"),
        ("saved in inodes", lambda r: f"{r.saved_inodes:.2f} %{_bar(r, r.saved_inodes >= SAVED_INODES)}"),
        ("template added", lambda r: f"{r.add_s:.2f} s"),
        ("all created and on record", lambda r: f"{r.created_s:.2f} s"),
        ("and their folders made", lambda r: f"{r.ready_s:.2f} s{_bar(r, r.ready_s <= CREATED_S)}"),
        ("all run, first and second start", lambda r: f"{r.started_s:.1f} s, {r.second_start_s:.1f} s"),
        ("bots that saw what is another's", lambda r: str(len(r.mixed_up))),
    ]
    head = ["", *(result.kind for result in results)]
    body = [[name, *(value(result) for result in results)] for name, value in rows]
    return [_line(head), _line(["---"] * len(head)), *map(_line, body)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _bar(result: Result, met: bool) -> str:
    return "" if met or result.bots < _BARS_FOR else " (missed)"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("--bots", type=int, default=_BARS_FOR)
    parser.add_argument("--only", choices=sorted(_KINDS))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    kinds = [options.only] if options.only else list(_KINDS)
    if "node" in kinds and shutil.which("node") is None:
        print("node is not installed: Python alone", file=sys.stderr)
        kinds.remove("node")
    began = perf_counter()

    def say(text: str) -> None:
        print(f"[{perf_counter() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    facts = machine.look()
    for line in facts.lines():
        print(line)
    try:
        results = [measure(kind, options.bots, say) for kind in kinds]
    except (OSError, RuntimeError, RpcError, subprocess.CalledProcessError) as error:
        print(f"benchmarks: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    for line in table(results):
        print(line)
    for result in results:
        for problem in result.mixed_up[:10]:
            print(f"{result.kind}: {problem}")
    if options.json:
        with open(options.json, "w") as file:
            document = {"schema": SCHEMA, "machine": facts.as_json(), "results": [asdict(r) for r in results]}
            json.dump(document, file, indent=1)
    return 1 if any(result.mixed_up for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
