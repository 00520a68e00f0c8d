"""system performance: how quickly the daemon works and how well bots come back."""

from __future__ import annotations

from botctl.commands.explain import recovery_in_words
from botctl.options import Command
from botctl.render.documents import printed
from botctl.render.panel import panel, part
from botctl.render.table import Column, draw
from botctl.render.terminal import BOLD, clean
from botctl.render.units import duration, number, percent, plural, size
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal

_LATENCY = (("p50_s", "half within"), ("p99_s", "99% within"), ("max_s", "at most"))
_METHODS = (
    Column("METHOD"),
    Column("CALLS", right=True),
    Column("ERRORS", right=True),
)


def performance(invocation: Invocation) -> int:
    result = invocation.call("system.performance")
    if printed(invocation, result, key="schema"):
        return Exit.OK
    out = invocation.out
    recovery, requests = part(result, "recovery"), part(result, "requests")
    panel(
        out,
        "Work",
        [
            ("Recovery", recovery_in_words(recovery) if recovery.get("attempts") else "nothing had to be recovered"),
            ("Starts", _latency(part(result, "starts"))),
            ("Restarts", _latency(part(result, "restarts"))),
            ("Requests", _latency(requests)),
            ("Events", number(part(result, "events").get("count"))),
        ],
    )
    panel(out, "Memory", [(clean(_words(key)), _amount(key, value)) for key, value in part(result, "memory").items()])
    panel(out, "CPU", [(clean(_words(key)), _amount(key, value)) for key, value in part(result, "cpu").items()])
    _top(out, "Most memory", result.get("top_memory"), "memory_bytes", size)
    _top(out, "Most CPU", result.get("top_cpu"), "cpu_percent", percent)
    if invocation.output == "wide":
        _methods(out, part(requests, "by_method"))
    return Exit.OK


def _latency(figures: dict[str, Any]) -> str:
    count = figures.get("count")
    if not isinstance(count, int):
        return ""
    told = [f"{words} {duration(figures[key])}" for key, words in _LATENCY if figures.get(key) is not None]
    errors = figures.get("errors")
    told += [plural(errors, "error")] if isinstance(errors, int) and errors else []
    return ", ".join([f"{count:,}", *told])


def _words(key: str) -> str:
    return key.removesuffix("_bytes").removesuffix("_percent").replace("_", " ")


def _amount(key: str, value: object) -> str:
    if key.endswith("_percent"):
        return percent(value)
    return size(value) if key.endswith("_bytes") else number(value)


def _top(out: Terminal, title: str, bots: object, key: str, show: Any) -> None:
    items = [bot for bot in bots if isinstance(bot, dict)] if isinstance(bots, list) else []
    panel(out, title, [(clean(str(bot.get("id"))), show(bot.get(key))) for bot in items])


def _methods(out: Terminal, methods: dict[str, Any]) -> None:
    rows: list[list[Cell]] = [
        [name, number(f.get("count")), number(f.get("errors", 0))]
        for name, f in sorted(methods.items())
        if isinstance(f, dict)
    ]
    if rows:
        out.line(out.paint("Requests by method", BOLD))
        draw(out, _METHODS, rows)


COMMANDS = (
    Command(
        "system performance",
        performance,
        "Show latencies, rates and how well bots come back after a crash.",
        examples=(("botctl system performance -o wide", "with every method"),),
    ),
)
