"""system storage: what is used by what, what sharing saves, who has most, what cleaning would free."""

from __future__ import annotations

from botctl.options import Command, Option
from botctl.render.documents import printed
from botctl.render.panel import gauge, panel, part
from botctl.render.table import Column, draw
from botctl.render.terminal import BOLD, DIM, GREEN, RED, YELLOW, clean
from botctl.render.units import amount, bar, number, percent, plural, size
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal

_PATIENCE_S = 600.0
_CELLS = 20
_CLASSES = (
    ("private_bytes", "Private data"),
    ("log_bytes", "Logs"),
    ("release_bytes", "Releases"),
    ("trash_bytes", "Trash"),
    ("database_bytes", "Database"),
    ("run_bytes", "Run files"),
)
_USERS = (
    Column("USER", flexible=True),
    Column("BOTS", right=True),
    Column("STORAGE", right=True),
    Column(""),
    Column("BIGGEST BOT", flexible=True),
)
_STYLES = {"near": YELLOW, "over": RED}


def storage(invocation: Invocation, *, verify: bool) -> int:
    result = invocation.call("system.storage", {"verify": verify}, timeout=_PATIENCE_S)
    if printed(invocation, result, key="home"):
        return Exit.OK
    out = invocation.out
    panel(out, "Used", _used(out, result))
    panel(out, "Sharing", _sharing(out, part(result, "sharing")))
    _users(out, part(result, "quota"), result.get("users"))
    panel(out, "Biggest bots", [(clean(str(bot.get("id"))), size(bot.get("bytes"))) for bot in _dicts(result, "bots")])
    panel(out, "Cleaning", _cleaning(part(result, "cleanup")))
    _measured(out, part(result, "measured"))
    if verify:
        _verified(out, part(result, "verified"))
    return Exit.OK


def _dicts(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _used(out: Terminal, result: dict[str, Any]) -> list[tuple[str, Cell]]:
    used, disk = part(result, "used"), part(result, "disk")
    total = amount(result.get("used_bytes"))
    facts: list[tuple[str, Cell]] = []
    for key, title in _CLASSES:
        count = amount(used.get(key))
        if count is not None:
            drawn = out.paint(bar(count / total if total else 0.0, _CELLS, unicode=out.unicode), GREEN)
            facts.append((title, f"{drawn} {size(count)}"))
    facts.append(("In all", size(total)))
    room, space = amount(disk.get("free_bytes")), amount(disk.get("total_bytes"))
    if room is not None and space:
        facts.append(("Disk", f"{gauge(out, 1 - room / space)} {size(room)} free of {size(space)}"))
    return facts


def _sharing(out: Terminal, sharing: dict[str, Any]) -> list[tuple[str, Cell]]:
    bots = sharing.get("bots")
    if not isinstance(bots, int):
        return []
    if not bots:
        return [("Saved", "nothing: no bot has a template")]
    saved = out.paint(percent(sharing.get("saved_percent")), GREEN)
    return [
        ("Bots", f"{number(bots)} with a template"),
        ("As copies", size(sharing.get("copies_bytes"))),
        ("As it is", size(sharing.get("used_bytes"))),
        ("Saved", saved),
    ]


def _users(out: Terminal, quota: dict[str, Any], bots: object) -> None:
    users = [user for user in bots if isinstance(user, dict)] if isinstance(bots, list) else []
    if not users:
        return
    over, near = quota.get("over"), quota.get("near")
    told = f"Biggest users ({size(quota.get('hard_bytes'))} each"
    told += "".join(f", {number(count)} {word}" for count, word in ((over, "over"), (near, "near")) if count)
    out.line(out.paint(f"{told})", BOLD))
    draw(out, _USERS, _rows(out, users))
    out.line()


def _rows(out: Terminal, users: Sequence[dict[str, Any]]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for user in users:
        used, limit = amount(user.get("bytes")), amount(user.get("limit_bytes"))
        drawn = bar(used / limit, 10, unicode=out.unicode) if used is not None and limit else ""
        style = _STYLES.get(str(user.get("level")), GREEN)
        biggest = str(user.get("biggest") or "-")
        rows.append([str(user.get("user")), number(user.get("bots")), size(used), (drawn, style), biggest])
    return rows


def _cleaning(cleanup: dict[str, Any]) -> list[tuple[str, Cell]]:
    items = cleanup.get("items")
    if not isinstance(items, int):
        return []
    if not items:
        return [("Would free", "nothing")]
    facts: list[tuple[str, Cell]] = [("Would free", f"{size(cleanup.get('bytes'))} ({plural(items, 'item')})")]
    facts += [(clean(kind), size(count)) for kind, count in part(cleanup, "by_kind").items()]
    return [*facts, ("Try", "botctl cleanup --dry-run")]


def _measured(out: Terminal, measured: dict[str, Any]) -> None:
    if missing := measured.get("missing"):
        out.line(out.paint(f"{plural(int(missing), 'bot')} not measured yet", DIM))
    found = measured.get("in_part")
    if isinstance(found, list) and found:
        names = ", ".join(clean(str(name)) for name in found)
        out.line(f"{out.paint('!', YELLOW)} measured in part, something in it is closed to botd: {names}")


def _verified(out: Terminal, verified: dict[str, Any]) -> None:
    bots, different = verified.get("bots"), verified.get("different")
    if not isinstance(bots, int) or not isinstance(different, int):
        return
    if not different:
        out.line(f"{plural(bots, 'bot')} measured again: every figure was right")
        return
    out.line(f"{plural(bots, 'bot')} measured again, {number(different)} changed since the last look:")
    for item in _dicts(verified, "items"):
        out.line(f"  {clean(str(item.get('id')))}: {size(item.get('kept_bytes'))} -> {size(item.get('found_bytes'))}")


COMMANDS = (
    Command(
        "system storage",
        storage,
        "Show what is used by what, what sharing saves, who has most and what cleaning would free.",
        Option("--verify", kind="flag", help="Walk through every bot's folder first, and say which figures were old."),
        examples=(
            ("botctl system storage", "the report"),
            ("botctl system storage -o json | jq .sharing.saved_percent", "for programs"),
        ),
    ),
)
