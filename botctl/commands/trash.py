"""undelete, and the trash: deleted bots, for as long as they are kept."""

from __future__ import annotations

from botctl.commands.actions import DRY_RUN, GRACE_S, TIMEOUT, WAIT
from botctl.commands.create import full_id
from botctl.options import Argument, Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.table import Column, draw, pairs
from botctl.render.terminal import DIM, YELLOW
from botctl.render.units import ago, epoch, local, plural, size
from botctl.render.verdicts import settle
from botd.contract.errors import not_found
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell

_PATIENCE_S = 600.0
_COLUMNS = (
    Column("ID", flexible=True),
    Column("DELETED"),
    Column("KEPT UNTIL"),
    Column("SIZE", right=True),
    Column("KEY", flexible=True),
)
_IDS = Argument("ids", metavar="ID...", many=True, required=False, help="Ids, or keys as `trash list` shows them.")


def undelete(invocation: Invocation, *, id: str, new_id: str | None, start: bool, wait: bool, timeout: float) -> int:
    params = {
        "id": id,
        "as": None if new_id is None else full_id(new_id),
        "start": start,
        "wait": wait,
        "timeout_s": timeout,
    }
    return settle(invocation, invocation.call("bots.undelete", params, timeout=timeout + GRACE_S))


def list_(invocation: Invocation, *, user: str | None) -> int:
    result = invocation.call("trash.list", {"user": user}, timeout=_PATIENCE_S)
    items = items_of(result)
    if printed(invocation, result, key="key"):
        return Exit.OK
    if not items:
        invocation.note("the trash is empty")
        return Exit.OK
    now = _now()
    draw(invocation.out, _COLUMNS, [_row(item, now) for item in items])
    invocation.note(f"{plural(len(items), 'deleted bot')}, {size(result.get('bytes'))}; botctl undelete ID")
    return Exit.OK


def _now() -> float:
    import time

    return time.time()


def _row(item: dict[str, Any], now: float) -> list[Cell]:
    until = epoch(item.get("kept_until"))
    soon = until is not None and until - now < 86400
    kept = local(item.get("kept_until")) if until is not None else "for ever"
    return [
        str(item.get("id")) if item.get("restorable") else (str(item.get("id")), DIM),
        ago(item.get("deleted_at"), now),
        (kept, YELLOW if soon else ""),
        size(item.get("bytes")),
        str(item.get("key")),
    ]


def show(invocation: Invocation, *, id: str) -> int:
    result = invocation.call("trash.list", {"ids": [id]}, timeout=_PATIENCE_S)
    items = items_of(result)
    if not items:
        raise not_found(f"{id} is not in the trash", hint="see what is there with: botctl trash list")
    if printed(invocation, result, key="key"):
        return Exit.OK
    now = _now()
    for number, item in enumerate(items):
        if number:
            invocation.out.line("")
        _describe(invocation, item, now)
    return Exit.OK


def _describe(invocation: Invocation, item: dict[str, Any], now: float) -> None:
    command = item.get("command")
    labels = item.get("labels")
    until = item.get("kept_until")
    rows: list[tuple[str, Cell]] = [
        ("Bot", str(item.get("id"))),
        ("Key", str(item.get("key"))),
        ("Deleted", f"{local(item.get('deleted_at'))} ({ago(item.get('deleted_at'), now)})"),
        ("Kept until", f"{local(until)} ({ago(until, now)})" if until else "for ever"),
        ("Created", local(item.get("created_at"))),
        ("Size", size(item.get("bytes"))),
        ("Folder", str(item.get("path"))),
        ("Command", " ".join(map(str, command)) if isinstance(command, list) else ""),
        ("Directory", str(item.get("directory") or "")),
        ("Template", str(item.get("template") or "")),
        ("Port", str(item.get("port") or "")),
        ("Environment", ", ".join(item.get("env") or {})),
        ("Secrets", ", ".join(item.get("secrets") or [])),
        ("Labels", ", ".join(f"{k}={v}" for k, v in labels.items()) if isinstance(labels, dict) else ""),
    ]
    pairs(invocation.out, rows)
    if item.get("restorable"):
        invocation.note(f"bring it back: botctl undelete {item.get('key')}")
    else:
        invocation.warn("its specification is lost: only its data can be copied from that folder")


def empty(invocation: Invocation, *, ids: list[str], user: str | None, dry_run: bool) -> int:
    params: dict[str, Any] = {"ids": ids or None, "user": user}
    if not dry_run and not invocation.yes:
        found = invocation.call("trash.list", params, timeout=_PATIENCE_S)
        items = items_of(found)
        if items:
            named = ", ".join(str(item.get("id")) for item in items[:3]) + (", ..." if len(items) > 3 else "")
            count = plural(len(items), "deleted bot")
            invocation.confirm(f"Remove {count} for good, {size(found.get('bytes'))} ({named})?")
    result = invocation.call("trash.empty", {**params, "dry_run": dry_run}, timeout=_PATIENCE_S)
    if not items_of(result):
        printed(invocation, result)
        invocation.note("the trash is empty")
        return Exit.OK
    status = settle(invocation, result)
    invocation.note(f"{size(result.get('freed_bytes'))} {'would be freed' if dry_run else 'freed'}")
    return status


COMMANDS = (
    Command(
        "undelete",
        undelete,
        "Bring a deleted bot back, stopped, with its data, logs, settings and secrets.",
        Argument("id", help="Its id, or the key of one deletion as `trash list` shows it."),
        Option("--as", metavar="ID", name="new_id", help="Bring it back under this id."),
        Option("--start", kind="flag", help="Start it at once."),
        WAIT,
        TIMEOUT,
        examples=(
            ("botctl undelete alice/shop --start", "as if nothing had happened"),
            ("botctl undelete alice/shop --as alice/old-shop", "beside a new bot of that name"),
        ),
        changes=True,
    ),
    Command(
        "trash list",
        list_,
        "List the deleted bots that can be brought back.",
        Option("--user", metavar="USER", help="Only of this user."),
        examples=(("botctl trash list -o json", "for programs"),),
        aliases=("trash ls",),
    ),
    Command(
        "trash show",
        show,
        "Show everything about a deleted bot.",
        Argument("id", help="Its id or key."),
        examples=(("botctl trash show alice/shop", "each of its deletions"),),
    ),
    Command(
        "trash empty",
        empty,
        "Remove deleted bots for good, all or these. Asks first.",
        _IDS,
        Option("--user", metavar="USER", help="Only of this user."),
        DRY_RUN,
        examples=(
            ("botctl trash empty", "all, asks"),
            ("botctl trash empty --user alice", "all of alice's"),
            ("botctl trash empty alice/shop --yes", "this one, does not ask"),
        ),
        changes=True,
    ),
)
