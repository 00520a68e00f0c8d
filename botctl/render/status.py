"""The block that `status` prints for a bot, after the manner of systemctl."""

from __future__ import annotations

import time

from botctl.render.command_line import command_line
from botctl.render.documents import items_of
from botctl.render.logs import line_of
from botctl.render.panel import gauge
from botctl.render.phases import health_style, phase_style, symbol
from botctl.render.table import pairs
from botctl.render.terminal import BOLD, DIM, clean, cut
from botctl.render.units import NONE, ago, amount, duration, epoch, local, number, percent, size
from botd.contract.errors import BotdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal

_LINES = 5
# What stands in front of the values at least: the longest of the names that always appear.
_NAMES_WIDTH = len("  Environment: ")


def blocks(invocation: Invocation, bots: list[dict[str, Any]]) -> None:
    """One block for each; a single bot also gets its last lines of output."""
    now = time.time()
    for i, bot in enumerate(bots):
        if i:
            invocation.out.line()
        _block(invocation.out, bot, now)
    if len(bots) == 1:
        _last_lines(invocation, str(bots[0].get("id")))


def _block(out: Terminal, bot: dict[str, Any], now: float) -> None:
    phase, health = bot.get("phase"), bot.get("health")
    style = phase_style(phase)
    head = [
        out.paint(symbol(out, phase), style),
        out.paint(clean(str(bot.get("id"))), BOLD),
        "-",
        out.paint(clean(str(phase)), style),
    ]
    if health and health != phase:
        head.append(f"({out.paint(clean(str(health)), health_style(health))})")
    out.line(" ".join(part for part in head if part))
    pairs(out, [(name, _tidy(cell)) for name, cell in _facts(out, bot, now)], indent=2)


def _tidy(cell: Cell) -> Cell:
    return "" if cell == NONE else cell


def _facts(out: Terminal, bot: dict[str, Any], now: float) -> list[tuple[str, Cell]]:
    return [
        ("Since", _since(bot, now)),
        ("Reason", (clean(str(bot.get("reason") or "")), phase_style(bot.get("phase")))),
        ("Next try", _moment(bot.get("next_retry_at"), now)),
        ("PID", _pid(bot)),
        ("Memory", _memory(out, bot)),
        ("CPU", _cpu(bot)),
        ("Processes", _processes(bot)),
        ("Restarts", _restarts(bot)),
        ("Last exit", _last_exit(bot, now)),
        ("Template", _template(bot)),
        ("Port", _text(bot.get("port"))),
        ("Command", _command(out, bot)),
        ("Folder", clean(_text(bot.get("directory")))),
        ("Environment", clean(" ".join(f"{k}={v}" for k, v in _table(bot, "env").items()))),
        ("Labels", clean(" ".join(f"{k}={v}" for k, v in _table(bot, "labels").items()))),
        ("Logs", size(bot.get("log_bytes"))),
        ("Created", _moment(bot.get("created_at"), now)),
    ]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _table(bot: dict[str, Any], key: str) -> dict[str, Any]:
    value = bot.get(key)
    return value if isinstance(value, dict) else {}


def _moment(value: object, now: float) -> str:
    return f"{local(value)}; {ago(value, now)}" if epoch(value) is not None else ""


def _since(bot: dict[str, Any], now: float) -> str:
    if bot.get("pid") is None or epoch(bot.get("started_at")) is None:
        return ""
    # The daemon's own figure where there is one: it does not jump with the clock.
    up = bot.get("uptime_s")
    return (
        f"{local(bot['started_at'])}; {duration(up)} ago" if amount(up) is not None else _moment(bot["started_at"], now)
    )


def _template(bot: dict[str, Any]) -> str:
    if not bot.get("template"):
        return ""
    return clean(f"{bot['template']} (release {str(bot.get('release') or '-')[:12]})")


def _pid(bot: dict[str, Any]) -> str:
    if bot.get("pid") is None:
        return ""
    life = bot.get("generation")
    return f"{bot['pid']} (life {life})" if life is not None else str(bot["pid"])


def _memory(out: Terminal, bot: dict[str, Any]) -> str:
    used, limit = bot.get("memory_bytes"), bot.get("memory_limit_bytes")
    known, most = amount(used), amount(limit)
    if known is None:
        return f"limit {size(limit)}{_held(bot, 'memory')}" if most else ""
    return f"{size(used)} {gauge(out, known / most)} of {size(limit)}{_held(bot, 'memory')}" if most else size(used)


def _cpu(bot: dict[str, Any]) -> str:
    used, most = percent(bot.get("cpu_percent")), amount(bot.get("cpu_limit"))
    return used if most is None or used == NONE else f"{used} of {percent(100 * most)}{_held(bot, 'cpu')}"


def _processes(bot: dict[str, Any]) -> str:
    used, most = bot.get("processes"), bot.get("processes_limit")
    if amount(used) is None:
        return ""
    return f"{number(used)} of {number(most)}{_held(bot, 'processes')}" if amount(most) is not None else number(used)


def _held(bot: dict[str, Any], limit: str) -> str:
    """Whether the kernel keeps a limit, or botd watches it."""
    how = _table(bot, "limits_by").get(limit)
    return f" ({clean(str(how))})" if how not in (None, "none") else ", which nothing enforces here" if how else ""


def _restarts(bot: dict[str, Any]) -> str:
    count, row, policy = bot.get("restarts"), bot.get("attempts"), bot.get("restart")
    if count is None:
        return ""
    more = [f"{row} in a row"] if row else []
    more += [f"policy {policy}"] if policy else []
    return f"{count} ({', '.join(more)})" if more else str(count)


def _last_exit(bot: dict[str, Any], now: float) -> str:
    last = bot.get("last_exit")
    if not isinstance(last, dict):
        return ""
    if last.get("signal") is not None:
        how = f"signal {last['signal']}"
    elif last.get("code") is not None:
        how = f"status {last['code']}"
    else:
        how = "status unknown"
    reason = last.get("words") or last.get("reason")
    when = f"; {ago(last.get('at'), now)}" if epoch(last.get("at")) is not None else ""
    return clean(f"{how}{f' ({reason})' if reason else ''}{when}")


def _command(out: Terminal, bot: dict[str, Any]) -> str:
    command = bot.get("command")
    if not isinstance(command, list):
        return ""
    line = clean(command_line(command))
    return line if out.width is None else cut(line, out.width - _NAMES_WIDTH, out.pick("…", "~"))


def _last_lines(invocation: Invocation, id: str) -> None:
    try:
        result = invocation.call("bots.logs", {"select": {"any": [{"id": id}]}, "lines": _LINES})
    except BotdError as error:
        # The status is what was asked for; its lines are an extra that may be denied or damaged.
        invocation.out.line(invocation.out.paint(f"\n(its output cannot be shown: {clean(error.message)})", DIM))
        return
    lines = items_of(result)
    if lines:
        invocation.out.line()
    for line in lines:
        invocation.out.line(line_of(invocation.out, line, timestamps=True))
