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
_GROUPS = (
    Column("ACTION"),
    Column("KIND"),
    Column("COUNT", right=True),
    Column("SIZE", right=True),
    Column("REASON", flexible=True),
)
_FEW = 20
_ORDER = {"failed": 0, "removed": 1, "would remove": 1, "kept": 2}
_STYLES = {"removed": GREEN, "would remove": YELLOW, "kept": DIM, "failed": RED}


def cleanup(invocation: Invocation, *, dry_run: bool) -> int:
    if not dry_run and not invocation.yes:
        _confirm_data(invocation)
    result = invocation.call("system.cleanup", {"dry_run": dry_run}, timeout=_PATIENCE_S)
    items = items_of(result)
    failed = any(item.get("action") == "failed" for item in items)
    if not printed(invocation, result, key="path"):
        _show(invocation, result, dry_run=dry_run)
    return Exit.FAILED if failed else Exit.OK


def _confirm_data(invocation: Invocation) -> None:
    """Sockets and locks of the dead go without a word; what somebody might miss does not."""
    found = items_of(invocation.call("system.cleanup", {"dry_run": True}, timeout=_PATIENCE_S))
    data = [item for item in found if item.get("data") and item.get("action") == "would remove"]
    if data:
        names = ", ".join(_what(item) for item in data[:3]) + (", ..." if len(data) > 3 else "")
        invocation.confirm(f"Remove {plural(len(data), 'item')} of data, {size(_bytes(data))} ({names})?")


def _what(item: dict[str, Any]) -> str:
    if item.get("kind") == "release" and item.get("id"):
        return str(item["id"])
    return str(item.get("path") or item.get("id") or "-")


def _show(invocation: Invocation, result: dict[str, Any], *, dry_run: bool) -> None:
    """By reason, for a clean-up of a fleet has hundreds of items; each with `-o wide`, and where there are few."""
    items = items_of(result)
    gone = [item for item in items if item.get("action") in ("removed", "would remove")]
    shown = items if not invocation.quiet else [item for item in items if item.get("action") == "failed"]
    shown = sorted(shown, key=lambda item: _ORDER.get(str(item.get("action")), 0))
    if shown and (len(shown) <= _FEW or invocation.output == "wide" or invocation.quiet):
        draw(invocation.out, _COLUMNS, [_row(item) for item in shown])
    elif shown:
        draw(invocation.out, _GROUPS, _grouped(shown))
        invocation.note("each of them: botctl cleanup --dry-run -o wide")
    if not gone:
        invocation.note("nothing to clean up")
    else:
        verb = "would be removed" if dry_run else "removed"
        invocation.note(f"{plural(len(gone), 'item')} {verb}, {size(_bytes(gone))}")
    bots = result.get("bots")
    if isinstance(bots, int) and bots:
        invocation.note(f"{plural(bots, 'bot')}: what is theirs stays, whether they run or not")


def _bytes(items: list[dict[str, Any]]) -> int:
    return sum(item["bytes"] for item in items if isinstance(item.get("bytes"), int))


def _grouped(items: list[dict[str, Any]]) -> list[list[Cell]]:
    """One row for each action, kind and rule: what stands before the semicolon of a reason."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for item in items:
        rule = str(item.get("reason") or "").partition(";")[0]
        groups.setdefault((str(item.get("action")), str(item.get("kind")), rule), []).append(item)
    return [
        [(action, _STYLES.get(action, "")), kind, f"{len(members):,}", size(_bytes(members)), rule]
        for (action, kind, rule), members in groups.items()
    ]


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
        "Remove what nobody needs any more, and say why; a bot that exists loses nothing. Asks before data goes.",
        DRY_RUN,
        examples=(("botctl cleanup --dry-run", "only look"), ("botctl cleanup --yes -q", "in a cron job")),
        changes=True,
    ),
)
