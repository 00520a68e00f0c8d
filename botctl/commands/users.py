"""resources: what each user has and may have."""

from __future__ import annotations

from botctl.options import Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.table import Column, draw
from botctl.render.terminal import GREEN, RED, YELLOW
from botctl.render.units import amount, bar, number, percent, size
from botd.contract.errors import not_found
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal

_CELLS = 10
_LEVELS = {"near": YELLOW, "over": RED}
_BOTS = (
    Column("BOT", flexible=True),
    Column("STORAGE", right=True),
    Column("PRIVATE", right=True),
    Column("LOGS", right=True),
    Column("SHARED", right=True),
    Column("FILES", right=True),
)
_COLUMNS = (
    Column("USER", flexible=True),
    Column("BOTS", right=True),
    Column(""),
    Column("RUNNING", right=True),
    Column("MEMORY", right=True),
    Column(""),
    Column("CPU", right=True),
    Column("STORAGE", right=True),
    Column(""),
    Column("LOGS", right=True),
)


def resources(invocation: Invocation, *, user: str | None) -> int:
    result = invocation.call("users.resources", {"user": user})
    items = items_of(result)
    if user is not None and not items:
        raise not_found(f"no bot belongs to {user}", hint="botctl resources shows every user")
    if printed(invocation, result, key="user"):
        return Exit.OK
    if not items:
        invocation.note("no bots yet")
        return Exit.OK
    draw(invocation.out, _COLUMNS, [_row(invocation.out, item) for item in items])
    if user is not None:
        _bots(invocation.out, items[0].get("bots_storage"))
    fleet = result.get("fleet")
    if isinstance(fleet, dict):
        invocation.note(f"the fleet: {_of(number, fleet.get('bots'), fleet.get('bots_limit'))} bots")
    return Exit.OK


def _row(out: Terminal, item: dict[str, Any]) -> list[Cell]:
    memory, memory_limit = item.get("memory_bytes"), item.get("memory_limit_bytes")
    storage, storage_limit = item.get("storage_bytes"), item.get("storage_limit_bytes")
    return [
        str(item.get("user")),
        _of(number, item.get("bots"), item.get("bots_limit")),
        _bar(out, item.get("bots"), item.get("bots_limit")),
        number(item.get("running")),
        _of(size, memory, memory_limit),
        _bar(out, memory, memory_limit),
        percent(item.get("cpu_percent")),
        _of(size, storage, storage_limit),
        _storage_bar(out, item),
        _of(size, item.get("log_bytes"), item.get("log_limit_bytes")),
    ]


def _storage_bar(out: Terminal, item: dict[str, Any]) -> Cell:
    """With the soft limit as a mark; the colours are the daemon's own words for it."""
    used, limit, soft = (amount(item.get(f"storage_{key}")) for key in ("bytes", "limit_bytes", "soft_limit_bytes"))
    if used is None or not limit:
        return ""
    style = _LEVELS.get(str(item.get("storage_level")), GREEN)
    return bar(used / limit, _CELLS, unicode=out.unicode, mark=None if soft is None else soft / limit), style


def _bots(out: Terminal, bots: object) -> None:
    """The storage of each bot, the biggest first."""
    shown = [bot for bot in bots if isinstance(bot, dict)] if isinstance(bots, list) else []
    if shown:
        shown.sort(key=lambda bot: -(amount(bot.get("storage_bytes")) or 0))
        out.line()
        draw(out, _BOTS, [_bot(bot) for bot in shown])


def _bot(bot: dict[str, Any]) -> list[Cell]:
    in_part = bot.get("complete") is False
    return [
        str(bot.get("id")),
        f"{'at least ' if in_part else ''}{size(bot.get('storage_bytes'))}",
        size(bot.get("private_bytes")),
        size(bot.get("log_bytes")),
        size(bot.get("shared_bytes")),
        number(bot.get("files")),
    ]


def _of(show: Any, used: object, limit: object) -> str:
    return str(show(used)) if limit is None else f"{show(used)}/{show(limit)}"


def _bar(out: Terminal, used: object, limit: object) -> Cell:
    known, most = amount(used), amount(limit)
    if known is None or not most:
        return ""
    share = known / most
    style = RED if share >= 0.9 else YELLOW if share >= 0.75 else GREEN
    return bar(share, _CELLS, unicode=out.unicode), style


COMMANDS = (
    Command(
        "resources",
        resources,
        "Show what each user has and may have: bots, memory, CPU, storage. The mark in a bar is the soft limit.",
        Option("--user", metavar="USER", help="Only this user, with the storage of each bot."),
        examples=(("botctl resources", "everybody"), ("botctl resources --user alice -o json", "for programs")),
    ),
)
