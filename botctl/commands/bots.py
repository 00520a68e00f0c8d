"""list, status, is-active: looking at bots. Quick commands: nothing here imports anything heavy."""

from __future__ import annotations

import time

from botctl.options import Argument, Command, Option
from botctl.render.command_line import command_line
from botctl.render.documents import items_of, printed
from botctl.render.phases import count_phases, health_cell, phase_cell, phases_in_words
from botctl.render.table import Column, draw
from botctl.render.units import ago, duration, percent, plural, size
from botctl.selection import SELECTORS, look_at, nothing_matches
from botd.contract import selector
from botd.contract.errors import invalid, not_found
from botd.contract.views import LIST_FIELDS
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botd.contract.selector import Selection

_WIDE_FIELDS = (
    *LIST_FIELDS,
    "template",
    "release",
    "port",
    "restart",
    "attempts",
    "last_exit",
    "next_retry_at",
    "labels",
    "command",
)
_PAGE = 2000

_COLUMNS = (
    Column("ID", flexible=True),
    Column("PHASE"),
    Column("HEALTH"),
    Column("PID", right=True),
    Column("UPTIME", right=True),
    Column("RESTARTS", right=True),
    Column("MEMORY", right=True),
    Column("CPU", right=True),
)
_WIDE_COLUMNS = (
    *_COLUMNS,
    Column("TEMPLATE"),
    Column("RELEASE"),
    Column("PORT", right=True),
    Column("POLICY"),
    Column("LAST EXIT", flexible=True),
    Column("NEXT TRY"),
    Column("LABELS", flexible=True),
    Column("COMMAND", flexible=True),
    Column("REASON", flexible=True),
)


def fetch(invocation: Invocation, selection: Selection, fields: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """Every selected bot, page after page. `fields` None asks for everything."""
    params: dict[str, Any] = {"select": selection, "limit": _PAGE}
    if fields is not None:
        params["fields"] = list(fields)
    items: list[dict[str, Any]] = []
    while True:
        page = invocation.call("bots.list", params)
        items += items_of(page)
        after = page.get("next")
        # A page that does not advance would be asked for again and again.
        if not isinstance(after, str) or after == params.get("after"):
            return items
        params["after"] = after


def list_bots(invocation: Invocation, *, selectors: list[str]) -> int:
    selection = look_at(selectors)
    fields = {None: LIST_FIELDS, "table": LIST_FIELDS, "wide": _WIDE_FIELDS, "name": ("id",)}
    items = fetch(invocation, selection, fields.get(invocation.output))
    if not items and selectors:
        raise nothing_matches(selection)
    if printed(invocation, {"items": items, "total": len(items)}):
        return Exit.OK
    if not items:
        invocation.note("no bots yet; a first one: botctl create NAME --start -- python3 bot.py")
        return Exit.OK
    _table(invocation, items)
    counts = phases_in_words(invocation.err, count_phases(items))
    invocation.note(f"{plural(len(items), 'bot')}: {counts}")
    return Exit.OK


def _table(invocation: Invocation, items: list[dict[str, Any]]) -> None:
    out = invocation.out
    if invocation.output == "wide":
        now = time.time()
        draw(out, _WIDE_COLUMNS, [[*_row(out, bot), *_more(bot, now)] for bot in items])
        return
    # Most fleets have nothing to say here most of the time: the column appears when it is needed.
    if any(bot.get("reason") for bot in items):
        columns = (*_COLUMNS, Column("REASON", flexible=True))
        draw(out, columns, [[*_row(out, bot), str(bot.get("reason") or "")] for bot in items])
    else:
        draw(out, _COLUMNS, [_row(out, bot) for bot in items])


def _row(out: Any, bot: dict[str, Any]) -> list[Cell]:
    pid = bot.get("pid")
    return [
        str(bot.get("id")),
        phase_cell(out, bot.get("phase")),
        health_cell(bot.get("health")),
        "-" if pid is None else str(pid),
        duration(bot.get("uptime_s")),
        str(bot.get("restarts", "-")),
        size(bot.get("memory_bytes")),
        percent(bot.get("cpu_percent")),
    ]


def _more(bot: dict[str, Any], now: float) -> list[Cell]:
    last, labels, command = bot.get("last_exit"), bot.get("labels"), bot.get("command")
    port = bot.get("port")
    return [
        str(bot.get("template") or "-"),
        str(bot.get("release") or "-")[:12],
        "-" if port is None else str(port),
        str(bot.get("restart") or "-"),
        str(last.get("reason") or "-") if isinstance(last, dict) else "-",
        ago(bot.get("next_retry_at"), now),
        ",".join(f"{k}={v}" for k, v in labels.items()) or "-" if isinstance(labels, dict) else "-",
        command_line(command) if isinstance(command, list) else "-",
        str(bot.get("reason") or ""),
    ]


def status(invocation: Invocation, *, selectors: list[str], check: bool) -> int:
    selection = look_at(selectors)
    if selectors:
        result = invocation.call("bots.status", {"select": selection})
        if not items_of(result):
            raise nothing_matches(selection)
    else:
        # Nobody asked for any bot: that there is none is no error, and there may be thousands.
        result = {"items": fetch(invocation, selection, None)}
    items = items_of(result)
    if not printed(invocation, result) and not (check and invocation.quiet):
        from botctl.render.status import blocks

        blocks(invocation, items)
    missing = result.get("missing") or []
    for bot_id in missing:
        invocation.warn(f"there is no bot {bot_id}")
    if check and not all(is_well(bot) for bot in items):
        return Exit.NOT_RUNNING
    return Exit.PARTIAL if missing else Exit.OK


def is_well(bot: dict[str, Any]) -> bool:
    """What `--check` asks: healthy, or healthy again."""
    return bot.get("health") in ("healthy", "recovered")


def is_active(invocation: Invocation, *, id: str) -> int:
    selection = selector.parse([id])
    if selector.is_glob(id) or set(selection["any"][0]) != {"id"}:
        raise invalid("", f"is-active asks about one bot, not about {id!r}", hint="botctl list 'alice/*'")
    page = invocation.call("bots.list", {"select": selection, "fields": ["id", "phase"], "limit": 1}, autostart=False)
    items = items_of(page)
    if not items:
        raise not_found(f"there is no bot {id}", hint="botctl list shows every bot")
    if not printed(invocation, {"items": items}) and not invocation.quiet:
        invocation.out.line(str(items[0].get("phase")))
    return Exit.OK if items[0].get("phase") == "running" else Exit.NOT_RUNNING


CHECK = Option("--check", kind="flag", help="Exit 3 when any of them is neither healthy nor recovered.")

COMMANDS = (
    Command(
        "list",
        list_bots,
        "List bots with their phase, health and consumption.",
        SELECTORS,
        examples=(
            ("botctl list", "every bot"),
            ("botctl list user:alice phase:failed", "alice's, and all that failed"),
            ("botctl list -o name | botctl stop -", "feed ids to another verb"),
            ("botctl list -o json | jq '.items[].id'", "for programs"),
        ),
        aliases=("ps", "ls"),
    ),
    Command(
        "status",
        status,
        "Show everything about some bots, and the last lines of a single one.",
        SELECTORS,
        CHECK,
        examples=(
            ("botctl status alice/shop", "one bot, with its last lines"),
            ("botctl status -q --check user:alice", "in a cron job: only the exit status"),
        ),
    ),
    Command(
        "is-active",
        is_active,
        "Print the phase of a bot; exit 0 when it runs, 3 when not, 4 when there is none.",
        Argument("id", help="The bot, as in alice/shop."),
        examples=(("botctl is-active -q alice/shop || botctl start alice/shop", "in a script"),),
    ),
)
