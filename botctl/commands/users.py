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
        _bar(out, storage, storage_limit),
        _of(size, item.get("log_bytes"), item.get("log_limit_bytes")),
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
        "Show what each user has and may have: bots, memory, CPU, storage.",
        Option("--user", metavar="USER", help="Only this user."),
        examples=(("botctl resources", "everybody"), ("botctl resources --user alice -o json", "for programs")),
    ),
)
