"""What `template show` prints."""

from __future__ import annotations

import time

from botctl.render.command_line import command_line
from botctl.render.panel import panel
from botctl.render.table import Column, draw
from botctl.render.terminal import BOLD, CYAN, DIM, GREEN, YELLOW, clean
from botctl.render.units import ago, number, plural, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal

_CLASSES = {
    "link": ("shared", GREEN, "one link into the release in each bot's folder"),
    "copy": ("copied", CYAN, "into each bot's folder"),
    "private": ("private", YELLOW, "each bot's own, in its data folder"),
    "ignored": ("left out", DIM, "not in the release"),
}
_HASH = 12
_NAMED = 8


def show_template(out: Terminal, result: dict[str, Any], *, files: bool) -> None:
    settings = _table(result, "settings")
    command = settings.get("command")
    facts: list[tuple[str, Cell]] = [
        ("Release", _release(result)),
        ("Source", clean(str(result.get("source") or ""))),
        ("Updated", ago(result.get("updated_at"), time.time())),
        ("Command", clean(command_line(command)) if isinstance(command, list) else "(each bot has its own)"),
        ("Settings", clean(", ".join(key for key in sorted(settings) if settings[key] and _told(key)))),
    ]
    panel(out, clean(str(result.get("name"))), facts)
    _classes(out, _rows(result, "units"), files=files)
    _releases(out, _rows(result, "releases"))
    _bots(out, _rows(result, "bots"))


def _told(key: str) -> bool:
    """What is shown beside this, or concerns the making of a release and none of its bots."""
    return key not in ("command", "max_files", "max_bytes")


def _release(result: dict[str, Any]) -> str:
    shown, current = str(result.get("shown") or ""), str(result.get("release") or "")
    more = "in force" if shown == current else f"not in force; that is {current[:_HASH]}"
    return f"{shown[:_HASH]} ({more})"


def _classes(out: Terminal, units: list[dict[str, Any]], *, files: bool) -> None:
    out.line(out.paint("Files", BOLD))
    for cls, (word, style, meaning) in _CLASSES.items():
        of = [unit for unit in units if unit.get("class") == cls]
        if not of:
            continue
        count = sum(unit["files"] for unit in of if isinstance(unit.get("files"), int))
        total = sum(unit["bytes"] for unit in of if isinstance(unit.get("bytes"), int))
        figures = f"{plural(count, 'file')}, {size(total)}" if cls != "ignored" else plural(len(of), "place")
        out.line(f"  {out.paint(word.ljust(8), style)}  {figures}: {meaning}")
        shown = of if files else of[:_NAMED] if cls != "copy" else []
        width = max((len(_path(unit)) for unit in shown), default=0)
        for unit in shown:
            why = out.paint(clean(str(unit.get("why") or "")), DIM)
            out.line(f"      {_path(unit).ljust(width)}  {size(unit.get('bytes')):>6}  {why}".rstrip())
        if len(of) > len(shown):
            out.line(out.paint(f"      {len(of) - len(shown)} more: --files", DIM))
    out.line()


def _path(unit: dict[str, Any]) -> str:
    return clean(str(unit.get("path"))) + ("/" if unit.get("kind") == "dir" else "")


def _releases(out: Terminal, releases: list[dict[str, Any]]) -> None:
    now = time.time()
    columns = (
        Column("RELEASE"),
        Column("ADDED"),
        Column("FILES", right=True),
        Column("SIZE", right=True),
        Column("BOTS", right=True),
        Column(""),
    )
    draw(
        out,
        columns,
        [
            [
                str(one.get("hash"))[:_HASH],
                ago(one.get("added_at"), now),
                number(one.get("files")),
                size(one.get("bytes")),
                number(one.get("bots")),
                ("in force", GREEN) if one.get("in_force") else "",
            ]
            for one in releases
        ],
    )


def _bots(out: Terminal, bots: list[dict[str, Any]]) -> None:
    if bots:
        named = ", ".join(clean(str(bot.get("id"))) for bot in bots[:_NAMED])
        more = f" and {len(bots) - _NAMED} more" if len(bots) > _NAMED else ""
        out.line()
        out.line(f"{plural(len(bots), 'bot')}: {named}{more}")


def _table(result: dict[str, Any], key: str) -> dict[str, Any]:
    value = result.get(key)
    return value if isinstance(value, dict) else {}


def _rows(result: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = result.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
