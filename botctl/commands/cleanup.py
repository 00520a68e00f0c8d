"""cleanup: remove what nothing needs any more."""

from __future__ import annotations

from botctl.commands.actions import DRY_RUN
from botctl.options import Command
from botctl.render.documents import items_of, printed
from botctl.render.table import Column, draw
from botctl.render.terminal import DIM, GREEN, RED, YELLOW
from botctl.render.units import plural, size
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell

_PATIENCE_S = 600.0
_COLUMNS = (
    Column("ACTION"),
    Column("KIND"),
    Column("SIZE", right=True),
    Column("WHAT", flexible=True),
    Column("REASON", flexible=True),
)
_STYLES = {"removed": GREEN, "would remove": YELLOW, "kept": DIM, "failed": RED}


def cleanup(invocation: Invocation, *, dry_run: bool) -> int:
    if not dry_run and not invocation.yes:
        _confirm_data(invocation)
    result = invocation.call("system.cleanup", {"dry_run": dry_run}, timeout=_PATIENCE_S)
    items = items_of(result)
    failed = any(item.get("action") == "failed" for item in items)
    if not printed(invocation, result, key="path"):
        _show(invocation, items, dry_run=dry_run)
    return Exit.FAILED if failed else Exit.OK


def _confirm_data(invocation: Invocation) -> None:
    """Sockets and locks of the dead go without a word; what somebody might miss does not."""
    found = items_of(invocation.call("system.cleanup", {"dry_run": True}, timeout=_PATIENCE_S))
    data = [item for item in found if item.get("data") and item.get("action") == "would remove"]
    if data:
        total = sum(item["bytes"] for item in data if isinstance(item.get("bytes"), int))
        names = ", ".join(_what(item) for item in data[:3]) + (", ..." if len(data) > 3 else "")
        invocation.confirm(f"Remove {plural(len(data), 'item')} of data, {size(total)} ({names})?")


def _what(item: dict[str, Any]) -> str:
    return str(item.get("path") or item.get("id") or "-")


def _show(invocation: Invocation, items: list[dict[str, Any]], *, dry_run: bool) -> None:
    gone = [item for item in items if item.get("action") in ("removed", "would remove")]
    shown = items if not invocation.quiet else [item for item in items if item.get("action") == "failed"]
    if shown:
        draw(invocation.out, _COLUMNS, [_row(item) for item in shown])
    total = sum(item["bytes"] for item in gone if isinstance(item.get("bytes"), int))
    if not gone:
        invocation.note("nothing to clean up")
    else:
        verb = "would be removed" if dry_run else "removed"
        invocation.note(f"{plural(len(gone), 'item')} {verb}, {size(total)}")


def _row(item: dict[str, Any]) -> list[Cell]:
    action = str(item.get("action") or "-")
    return [
        (action, _STYLES.get(action, "")),
        str(item.get("kind") or "-"),
        size(item.get("bytes")),
        _what(item),
        str(item.get("reason") or ""),
    ]


COMMANDS = (
    Command(
        "cleanup",
        cleanup,
        "Remove stale sockets, dead locks, orphaned files and old logs. Asks before data goes.",
        DRY_RUN,
        examples=(("botctl cleanup --dry-run", "only look"), ("botctl cleanup --yes -q", "in a cron job")),
        changes=True,
    ),
)
