"""`python -m benchmarks`: every figure of the project, beside the physical floor of the same run.

Progress goes to stderr, the table to stdout. Ends with 0 (also when a bar is missed: see the table), 1 when something
did not work, 2 on wrong arguments, 130 when interrupted. No process and no file is left in any case.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter, sleep
from types import FrameType

from benchmarks import floors, lives, machine, peers, processes, standing
from benchmarks.figures import Figure, table
from benchmarks.house import SETTLE_S, House
from benchmarks.rpc import RpcError

SCHEMA = 1
_BUSY = "WARNING: the machine was busy with other work; take these figures for upper bounds."


class Options(argparse.Namespace):
    n: list[int]
    quick: bool
    peers: bool
    idle: float
    json: str | None

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3

    @property
    def runs(self) -> int:
        return 5 if self.quick else 15

    @property
    def kills(self) -> int:
        return 20 if self.quick else 100

    @property
    def idle_s(self) -> float:
        return min(self.idle, 5.0) if self.quick else self.idle

    @property
    def flood_s(self) -> float:
        return 1.0 if self.quick else 5.0


def main(argv: list[str]) -> int:
    options = _options(argv)
    signal.signal(signal.SIGTERM, _interrupted)
    began = perf_counter()

    def say(text: str) -> None:
        print(f"[{perf_counter() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        report(options, say)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, RpcError) as error:
        print(f"benchmarks: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        processes.sweep()
    return 0


def report(options: Options, say: Callable[[str], None]) -> None:
    """Measure everything, print the table, write the JSON."""
    facts = machine.look()
    for line in facts.lines():
        print(line)
    warning = ""
    if facts.busy_percent > machine.BUSY_PERCENT:
        warning = _BUSY
        print(warning, flush=True)
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    figures: list[Figure] = []
    skipped: dict[int, str] = {}
    with floors.c_spawner() as spawner:
        for n in options.n:
            if (why := machine.no_room(n)) is not None:
                skipped[n] = why
                say(f"N = {n} is skipped: {why}")
                continue
            # Others may come while we measure: whoever is there before a size is begun counts.
            if not warning and machine.others_percent() > machine.BUSY_PERCENT:
                warning = _BUSY
            figures += _fleet(options, n, spawner, lambda text, n=n: say(f"N = {n}: {text}"))  # type: ignore[misc]  # a default argument in a lambda
    say("log lines")
    with House() as house:
        figures += standing.flood(house, options.flood_s)
    names: dict[str, str] = {}
    if options.peers:
        n = min(options.n)
        found = peers.find()
        names = {peer.name: peer.version for peer in found if peer.version is not None}
        figures = _beside(figures, peers.measure(found, n, say), n)
    for line in ["", *table(figures, [peer.name for peer in found] if options.peers else [])]:
        print(line)
    for n, why in skipped.items():
        print(f"N = {n} was skipped: {why}")
    missed = [f"{figure.name} ({figure.n})" for figure in figures if figure.met is False]
    print(f"\nbars missed: {', '.join(missed) or 'none'}")
    if warning:
        print(warning)
    if options.json:
        document = {
            "schema": SCHEMA,
            "at": at,
            "machine": facts.as_json(),
            "busy": bool(warning),
            "quick": options.quick,
            "peers": names,
            "skipped": {str(n): why for n, why in skipped.items()},
            "items": [figure.as_json() for figure in figures],
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")


def _fleet(options: Options, n: int, spawner: str | None, say: Callable[[str], None]) -> list[Figure]:
    """Everything that depends on the size of the fleet."""
    with House() as house, house.rpc() as rpc:
        say("creating the bots")
        ids = house.create(rpc, n)
        figures = lives.start_and_stop(house, rpc, n, options.rounds, spawner, say)
        start, stop = figures[0], figures[-1]
        house.start_all(rpc)
        sleep(SETTLE_S)
        say(f"idle for {options.idle_s:g} s")
        figures.append(standing.idle(house, n, options.idle_s))
        figures += standing.memory(house, n)
        say(f"{options.runs} x list and status")
        figures += standing.commands(house, n, ids[0], options.runs)
        say(f"{min(options.kills, n)} kills, one by one")
        figures += lives.one_by_one(house, rpc, n, min(options.kills, n))
        say("all killed at once")
        floor = None if start.floor is None or stop.floor is None else start.floor + stop.floor
        figures.append(lives.all_at_once(house, rpc, n, options.rounds, floor))
        say("kill -9 of botd")
        figures += lives.daemon_killed(house, rpc, n)
    return figures


def _beside(figures: list[Figure], others: dict[str, dict[str, float | str]], n: int) -> list[Figure]:
    """The other managers' values, by measure, into the rows of botd's own."""
    return [replace(one, peers=others[one.name]) if one.n == n and one.name in others else one for one in figures]


def _options(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.partition("\n\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--n", type=_numbers, default=[200, 1000, 3000], metavar="N,...", help="sizes of the fleet (200,1000,3000)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of everything: to see that it works, not to compare"
    )
    parser.add_argument(
        "--peers", action="store_true", help="other managers beside it, where installed (BENCH_PEERS: their folders)"
    )
    parser.add_argument("--idle", type=_seconds, default=60.0, metavar="S", help="how long to watch an idle fleet (60)")
    parser.add_argument("--json", metavar="FILE", help="every figure with its samples, as JSON")
    return parser.parse_args(argv, namespace=Options())


def _numbers(text: str) -> list[int]:
    numbers = sorted({int(word) for word in text.split(",")})
    if not 1 <= numbers[0] <= numbers[-1] <= 10_000:
        raise argparse.ArgumentTypeError("a fleet has 1 to 10000 bots here")
    return numbers


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1.0 <= seconds <= 3600.0:
        raise argparse.ArgumentTypeError("1 to 3600 seconds")
    return seconds


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
