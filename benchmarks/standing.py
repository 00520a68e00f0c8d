"""What a fleet costs that only stands there, and what it costs to look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from time import perf_counter, sleep

from benchmarks import floors, processes
from benchmarks.figures import Figure
from benchmarks.house import House
from benchmarks.lives import BAR_AT
from benchmarks.machine import BUSY_PERCENT, BusyMeter
from benchmarks.rpc import Rpc

IDLE_BAR_S, MEMORY_BAR_MB, LIST_BAR_MS, STATUS_BAR_MS = 0.15, 40.0, 60.0, 30.0
FLOOD_BAR_CPU_S = 1.0
_FLOOD_ID, _NEIGHBOUR_ID = "u0/flood", "u1/neighbour"
_KILLS, _BETWEEN_KILLS_S = 8, 0.05
"""Fewer than make a bot be given up."""


def idle(house: House, n: int, seconds: float) -> Figure:
    """CPU of botd and the keeper while nobody asks for anything, scaled to a minute."""
    with BusyMeter() as machine:
        before, began = house.cpu_s(), perf_counter()
        sleep(seconds)
        used, took = house.cpu_s() - before, perf_counter() - began
    notes = [] if seconds >= 60 else [f"measured over {seconds:g} s"]
    if machine.percent > BUSY_PERCENT:
        notes.append(f"the machine was {machine.percent:.0f} % busy with other work")
    return Figure(
        "idle CPU a minute",
        n,
        used * 60 / took,
        "CPU s",
        bar=IDLE_BAR_S if n == BAR_AT else None,
        note="; ".join(notes),
    )


def memory(house: House, n: int) -> list[Figure]:
    """Proportional set size of both processes."""
    daemon = sum(processes.pss_mb(pid) for pid in house.daemon())
    keeper = sum(processes.pss_mb(pid) for pid in house.keepers())
    bar = MEMORY_BAR_MB if n == BAR_AT else None
    return [
        Figure("memory (PSS), botd + keeper", n, daemon + keeper, "MB", bar=bar),
        Figure("memory (PSS), keeper alone", n, keeper, "MB"),
    ]


def commands(house: House, n: int, bot_id: str, runs: int) -> list[Figure]:
    """Wall time of `botctl list` and `botctl status`, interleaved with what the interpreter takes for nothing."""
    lines = {
        "pass": [sys.executable, "-c", "pass"],
        "socket": [sys.executable, "-c", "import json, socket"],
        "list": [*house.botctl(), "list"],
        "status": [*house.botctl(), "status", bot_id],
    }
    took: dict[str, list[float]] = {name: [] for name in lines}
    for number in range(runs + 1):
        for name, line in lines.items():
            began = perf_counter()
            subprocess.run(line, env=house.environ, stdout=subprocess.DEVNULL, check=True)
            # The first run fills caches, of the disk and of compiled modules.
            if number:
                took[name].append(1000 * (perf_counter() - began))
    return [
        Figure(
            f"botctl {name}",
            n,
            median(took[name]),
            "ms",
            floor=median(took["pass"]),
            second_floor=median(took["socket"]),
            floors="`python -c pass` and `python -c 'import json, socket'`",
            bar=bar,
            samples=took[name],
        )
        for name, bar in (("list", LIST_BAR_MS if n == BAR_AT else None), ("status", STATUS_BAR_MS))
    ]


def flood(house: House, seconds: float) -> list[Figure]:
    """A bot that writes 200-byte lines as fast as they are taken: how many go through, and what that costs."""
    spliced, catted = floors.splice(seconds), floors.cat(seconds)
    with house.rpc() as rpc:
        alone = _back_ms(house, rpc)
        pid = house.one_bot(rpc, _FLOOD_ID, floors.flooder())
        daemon, keeper = house.daemon()[0], house.keepers()[0]
        sleep(0.5)
        written, began = processes.written_bytes(pid), perf_counter()
        before = [processes.cpu_s(daemon), processes.cpu_s(keeper)]
        sleep(seconds)
        took = perf_counter() - began
        used = [processes.cpu_s(daemon) - before[0], processes.cpu_s(keeper) - before[1]]
        lines_per_s = (processes.written_bytes(pid) - written) / floors.LINE_BYTES / took
        beside = _back_ms(house, rpc)
        rpc.call("bots.delete", select={"any": [{"id": _FLOOD_ID}]})
    keeper_s, daemon_s = used[1] / took, used[0] / took
    movers = f"one splice loop, and cat, of the same lines; {os.cpu_count()} cores shared with the writer"
    return [
        Figure(
            "log lines",
            None,
            lines_per_s,
            "/s",
            floor=spliced.lines_per_s,
            second_floor=catted.lines_per_s,
            floors=movers,
        ),
        Figure(
            "CPU per 10 million lines",
            None,
            (keeper_s + daemon_s) / lines_per_s * 1e7,
            "CPU s",
            floor=spliced.cpu_s / spliced.lines_per_s * 1e7,
            second_floor=catted.cpu_s / catted.lines_per_s * 1e7,
            floors=movers,
            bar=FLOOD_BAR_CPU_S,
            note=f"during the flood the keeper used {keeper_s:.2f} and botd {daemon_s:.3f} CPU seconds a second",
        ),
        Figure(
            "crash to running beside a flood",
            None,
            median(beside),
            "ms",
            floor=median(alone),
            floors="the same without the flood",
            samples=beside,
        ),
    ]


def _back_ms(house: House, rpc: Rpc) -> list[float]:
    """How long a neighbour of the flood takes from SIGKILL to its `started` event, each of _KILLS times."""
    pid = house.one_bot(rpc, _NEIGHBOUR_ID, [processes.SLEEP, processes.MARK])
    took = []
    with house.rpc() as watcher:
        watcher.subscribe()
        started = watcher.events("started")
        for _ in range(_KILLS):
            began = perf_counter()
            processes.kill(pid)
            while next(started)["id"] != _NEIGHBOUR_ID:
                pass
            took.append(1000 * (perf_counter() - began))
            sleep(_BETWEEN_KILLS_S)
            pid = rpc.call("bots.status", select={"any": [{"id": _NEIGHBOUR_ID}]})["items"][0]["pid"]
    rpc.call("bots.delete", select={"any": [{"id": _NEIGHBOUR_ID}]})
    return took
