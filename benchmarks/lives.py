"""How long bots take to come, to come back, and to go."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter, sleep

from benchmarks import floors, processes
from benchmarks.figures import Figure
from benchmarks.floors import Lives
from benchmarks.house import SETTLE_S, House
from benchmarks.rpc import ALL, Missed, Rpc

Say = Callable[[str], None]

BAR_AT = 1000
"""Bars that the project set for one size of fleet hold for this one."""

_BETWEEN_KILLS_S = 0.02
_BACK_WITHIN_S = 120.0
_LOOK_S = 0.1


def start_and_stop(house: House, rpc: Rpc, n: int, rounds: int, spawner: str | None, say: Say) -> list[Figure]:
    """Starts and stops of all bots, each round beside the floors of the same moment. Leaves the bots stopped."""
    ups: list[float] = []
    downs: list[float] = []
    costs: list[float] = []
    python: list[Lives] = []
    c: list[Lives] = []
    for number in range(rounds):
        say(f"start and stop all, round {number + 1} of {rounds}")
        python.append(floors.spawn(n))
        if spawner is not None:
            c.append(floors.spawn_in_c(spawner, n))
        cpu_before = house.cpu_s()
        ups.append(house.start_all(rpc))
        costs.append(house.cpu_s() - cpu_before)
        _check_all_run(rpc, n)
        sleep(SETTLE_S)
        downs.append(house.stop_all(rpc))
        if left := len(processes.marked()):
            raise RuntimeError(f"{left} processes are left after all bots were stopped")
    start_floor, stop_floor = median(f.start_s for f in python), median(f.stop_s for f in python)
    return [
        Figure(
            "start all",
            n,
            median(ups),
            "s",
            floor=start_floor,
            second_floor=median(f.start_s for f in c) if c else None,
            floors="posix_spawn in a loop until all have executed their program, in Python and in C",
            bar=1.5 * start_floor + 0.5,
            note=_first(ups),
            samples=ups,
        ),
        Figure("CPU of botd + keeper to start all", n, median(costs), "CPU s", note=_first(costs), samples=costs),
        Figure(
            "stop all",
            n,
            median(downs),
            "s",
            floor=stop_floor,
            second_floor=median(f.stop_s for f in c) if c else None,
            floors="kill and reap in a loop, in Python and in C (the bots' own time)",
            bar=stop_floor + 0.2 if n <= BAR_AT else None,
            note=_first(downs),
            samples=downs,
        ),
    ]


def one_by_one(house: House, rpc: Rpc, n: int, kills: int) -> list[Figure]:
    """SIGKILL to `running` again, one bot after the other, as a subscriber of events sees it."""
    floor = sorted(floors.respawn(kills))
    victims = rpc.everyone("id", "pid")[:kills]
    took = []
    with house.rpc() as watcher:
        watcher.subscribe()
        started = watcher.events("started")
        cpu_before = house.cpu_s()
        for bot in victims:
            began = perf_counter()
            processes.kill(bot["pid"])
            while next(started)["id"] != bot["id"]:
                pass
            took.append(perf_counter() - began)
            sleep(_BETWEEN_KILLS_S)
        cost = (house.cpu_s() - cpu_before) / len(victims)
    took.sort()
    words = "kill, waitpid, posix_spawn in a loop"
    times = [
        Figure(
            f"crash to running {name}",
            n,
            1000 * _percentile(took, share),
            "ms",
            floor=1000 * _percentile(floor, share),
            floors=words,
            bar=3.0 if name == "p50" else None,
            note=f"{len(took)} kills" if len(took) < 100 else "",
            samples=[1000 * value for value in took],
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    return [*times, Figure("CPU of botd + keeper a crash", n, 1000 * cost, "ms")]


def all_at_once(house: House, rpc: Rpc, n: int, rounds: int, floor: float | None) -> Figure:
    """SIGKILL to every bot, until every one is `running` again."""
    took = []
    note = ""
    for _ in range(rounds):
        before = {bot["id"]: bot for bot in rpc.everyone("id", "pid", "generation")}
        with house.rpc() as watcher:
            watcher.subscribe()
            began = perf_counter()
            for bot in before.values():
                processes.kill(bot["pid"])
            missing = set(before)
            try:
                for event in watcher.events("started"):
                    missing.discard(event["id"])
                    if not missing:
                        break
            except Missed:
                note = "some events were dropped; the end was seen by listing"
                _until_all_later(rpc, {bot_id: bot["generation"] for bot_id, bot in before.items()})
            took.append(perf_counter() - began)
        _check_all_run(rpc, n)
        sleep(SETTLE_S)
    return Figure(
        "all killed, all back",
        n,
        median(took),
        "s",
        floor=floor,
        floors="kill and reap all, then posix_spawn all (of start and stop above)",
        bar=1.5 if n == BAR_AT else None,
        note="; ".join(filter(None, (note, _first(took)))),
        samples=took,
    )


def daemon_killed(house: House, rpc: Rpc, n: int) -> tuple[Figure, Figure]:
    """kill -9 of botd: when it answers again, how many bots ran on and how many run twice."""
    before = {bot["pid"] for bot in rpc.everyone("pid")}
    began = perf_counter()
    processes.kill(house.daemon()[0])
    if not house.answers(_BACK_WITHIN_S):
        raise RuntimeError("botd did not come back after kill -9")
    took = perf_counter() - began
    sleep(SETTLE_S)
    after = processes.marked()
    kept = len(before & set(after))
    return (
        Figure("kill -9 of the manager: answers again", n, took, "s"),
        Figure("kill -9 of the manager: bots", n, survival(kept, n, len(after) - n), ""),
    )


def survival(kept: int, n: int, extra: int) -> str:
    """`kept` of `n` bots ran on; `extra` processes are there beyond the n that should be."""
    words = "all run on" if kept == n else f"{n - kept} died"
    return words if extra <= 0 else f"{words}, {extra} run twice"


def _until_all_later(rpc: Rpc, generations: dict[str, int]) -> None:
    deadline = perf_counter() + _BACK_WITHIN_S
    while perf_counter() < deadline:
        bots = rpc.everyone("id", "phase", "generation")
        if all(bot["phase"] == "running" and bot["generation"] > generations[bot["id"]] for bot in bots):
            return
        sleep(_LOOK_S)
    raise RuntimeError(f"not all bots were back within {_BACK_WITHIN_S:.0f} s")


def _check_all_run(rpc: Rpc, n: int) -> None:
    """What botd says must be what the kernel says: n processes, these pids, all past their exec."""
    rpc.call("bots.wait", select=ALL, timeout_s=_BACK_WITHIN_S, **{"for": "running"})
    told, seen = {bot["pid"] for bot in rpc.everyone("pid")}, set(processes.marked())
    if told != seen or len(seen) != n:
        raise RuntimeError(f"botd tells of {len(told)} processes and {len(seen)} of {n} run ({len(told & seen)} agree)")


def _first(samples: list[float]) -> str:
    """The first round makes the files that later ones find."""
    return f"median of {len(samples)} rounds, {samples[0]:.3g} s in the first" if len(samples) > 1 else ""


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
