"""health: how many are well, and what is wrong with the others."""

from __future__ import annotations

import time

from botctl.commands.bots import CHECK, is_well
from botctl.options import Command
from botctl.render.documents import items_of, printed
from botctl.render.phases import health_cell, health_style, phase_cell
from botctl.render.table import Column, draw
from botctl.render.terminal import BOLD, GREEN, RED, YELLOW, clean
from botctl.render.units import ago, amount, bar, duration
from botctl.selection import SELECTORS, look_at, nothing_matches
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell

_COLUMNS = (
    Column("ID", flexible=True),
    Column("STATUS"),
    Column("PHASE"),
    Column("UPTIME", right=True),
    Column("ATTEMPTS", right=True),
    Column("RESTARTS", right=True),
    Column("LAST RESTART", right=True),
    Column("NOTE", flexible=True),
)


def health(invocation: Invocation, *, selectors: list[str], check: bool) -> int:
    select = look_at(selectors)
    result = invocation.call("bots.health", {"select": select})
    items = items_of(result)
    if not items and selectors:
        raise nothing_matches(select)
    if not printed(invocation, result) and not (check and invocation.quiet):
        _show(invocation, items, result.get("summary"))
    # A bot that its owner has stopped is not ill.
    ill = [item for item in items if not is_well(item) and item.get("health") != "stopped"]
    return Exit.NOT_RUNNING if check and ill else Exit.OK


def _show(invocation: Invocation, items: list[dict[str, Any]], summary: object) -> None:
    out = invocation.out
    if isinstance(summary, dict):
        out.line(_headline(invocation, summary))
        out.line()
    if not items:
        invocation.note("no bots yet")
        return
    now = time.time()
    rows = [_row(invocation, item, now) for item in items]
    # Of those that are well there is nothing to note: the column appears when it is needed.
    if any(item.get("note") for item in items):
        draw(out, _COLUMNS, rows)
    else:
        draw(out, _COLUMNS[:-1], [row[:-1] for row in rows])


def _headline(invocation: Invocation, summary: dict[str, Any]) -> str:
    out = invocation.out
    share = amount(summary.get("percentage"))
    drawn = ""
    if share is not None:
        style = GREEN if share >= 90 else YELLOW if share >= 60 else RED
        drawn = f"  {out.paint(bar(share / 100, 24, unicode=out.unicode), style)} {share:.0f}%"
    words = ("healthy", "unhealthy", "unknown", "stopped")
    counts = [
        out.paint(f"{summary[word]} {word}{_recovered(summary, word)}", health_style(word))
        for word in words
        if summary.get(word)
    ]
    total = out.paint(f"{clean(str(summary.get('total', '?')))} bots", BOLD)
    return f"{total}{drawn}  {', '.join(counts)}".rstrip()


def _recovered(summary: dict[str, Any], word: str) -> str:
    """How many of the healthy ones are so again, after automatic restarts."""
    count = summary.get("recovered")
    return f" ({count} recovered)" if word == "healthy" and count else ""


def _row(invocation: Invocation, item: dict[str, Any], now: float) -> list[Cell]:
    return [
        str(item.get("id")),
        health_cell(item.get("health")),
        phase_cell(invocation.out, item.get("phase")),
        duration(item.get("uptime_s")),
        str(item.get("attempts", "-")),
        str(item.get("restarts", "-")),
        ago(item.get("last_restart_at"), now),
        str(item.get("note") or ""),
    ]


COMMANDS = (
    Command(
        "health",
        health,
        "Show the health of bots: how many are well, and what is wrong with the others.",
        SELECTORS,
        CHECK,
        examples=(
            ("botctl health", "everybody"),
            ("botctl health -q --check user:alice || mail -s 'bots are ill' alice", "in a cron job"),
        ),
    ),
)
