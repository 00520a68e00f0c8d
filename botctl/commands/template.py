"""template add, update, list, show, remove: code that many bots share."""

from __future__ import annotations

import os
import time

from botctl.commands.actions import WAIT
from botctl.commands.rolls import ROLL, begin, wire
from botctl.options import Argument, Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.progress import Watch
from botctl.render.table import Column, draw
from botctl.render.terminal import GREEN, YELLOW, clean
from botctl.render.units import ago, number, plural, size
from botd.contract.errors import invalid
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell

SILENCE_S = 600.0
"""How long botd may say nothing while it makes a release: packages may have to be installed for it."""
HASH = 12
_COLUMNS = (
    Column("TEMPLATE", flexible=True),
    Column("RELEASE"),
    Column("RELEASES", right=True),
    Column("BOTS", right=True),
    Column("BEHIND", right=True),
    Column("FILES", right=True),
    Column("SIZE", right=True),
    Column("UPDATED"),
)
_WIDE_COLUMNS = (*_COLUMNS, Column("FORMER"), Column("SOURCE", flexible=True))


def short(hash: object) -> str:
    """A release as people see it."""
    return hash[:HASH] if isinstance(hash, str) and hash else "-"


def make(
    invocation: Invocation, method: str, name: str, path: str, manifest: str | None, **more: Any
) -> dict[str, Any]:
    """Have a release made under a progress bar: what botd says of it."""
    with Watch(invocation, f"{method.partition('.')[2]} {name}", of_bytes=True) as watch:
        given = {"name": name, "path": path, "manifest": manifest, "progress": watch.wanted, **more}
        return invocation.call(
            method,
            {key: value for key, value in given.items() if value is not None},
            timeout=SILENCE_S,
            on_notification=watch.on_notification,
            on_silence=watch.on_silence if watch.wanted else None,
        )


def tell(invocation: Invocation, result: dict[str, Any], *, rolls: bool = False) -> None:
    """For people: which release it is, what was left out, who runs another one. `rolls`: they are moved next."""
    out, name = invocation.out, clean(str(result.get("name")))
    mark = out.paint(out.pick("✔", "+"), GREEN) if result.get("changed") else "="
    done = {"create": "added", "update": "made" if rolls else "updated"}.get(
        str(result.get("action")), "has this release already"
    )
    figures = f"{plural(_count(result.get('files')), 'file')}, {size(result.get('bytes'))}"
    stored = result.get("stored_bytes")
    new = f", {size(stored)} of it new on disk" if result.get("new") and isinstance(stored, int) else ""
    out.line(f"{mark} {name}  {done}: release {short(result.get('release'))} ({figures}{new})")
    for note in _texts(result, "notes"):
        out.line(f"    {note}")
    left_out = _texts(result, "left_out")
    if left_out:
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        out.line(f"    {out.paint('left out:', YELLOW)} {', '.join(left_out[:10])}{more}")
    if not rolls:
        tell_behind(invocation, result)


def tell_behind(invocation: Invocation, result: dict[str, Any]) -> None:
    behind = _count(result.get("bots_behind"))
    if behind:
        run = "runs" if behind == 1 else "run"
        name = clean(str(result.get("name")))
        invocation.out.line(
            f"    {plural(behind, 'bot')} {run} another release; to move them: botctl template roll {name}"
        )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(result: dict[str, Any], key: str) -> list[str]:
    found = result.get(key)
    return [clean(str(text)) for text in found] if isinstance(found, list) else []


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def add(invocation: Invocation, *, name: str, path: str, manifest: str | None, dry_run: bool) -> int:
    return _made(invocation, "templates.add", name, path, manifest, dry_run=dry_run)


def update(
    invocation: Invocation,
    *,
    name: str,
    path: str,
    manifest: str | None,
    dry_run: bool,
    roll: bool,
    batch: str,
    canary: int,
    max_failures: int,
    gate_timeout: float,
    pause: float,
    keep_done: bool,
    wait: bool,
) -> int:
    options = wire(batch, canary, max_failures, gate_timeout, pause, keep_done)
    if not roll:
        given = zip(ROLL, options.values(), strict=True)
        if unused := [option.flags[0] for option, value in given if value != option.default]:
            raise invalid("", f"{unused[0]} needs --roll", hint="add --roll, or leave it out")
        return _made(invocation, "templates.update", name, path, manifest, dry_run=dry_run)
    if dry_run:
        return _made(invocation, "templates.update", name, path, manifest, dry_run=True)
    where = None if manifest is None else _whole(manifest)
    made = make(invocation, "templates.update", name, _whole(path), where, hold=True)
    if invocation.for_people and not invocation.quiet:
        tell(invocation, made, rolls=True)
    return begin(invocation, "templates.roll", {"name": name, "to": made["release"], **options}, wait=wait)


def _made(invocation: Invocation, method: str, name: str, path: str, manifest: str | None, *, dry_run: bool) -> int:
    where = None if manifest is None else _whole(manifest)
    result = make(invocation, method, name, _whole(path), where, dry_run=dry_run)
    if printed(invocation, result, key="name") or invocation.quiet:
        return Exit.OK
    if dry_run:
        would = {"create": "would be added", "update": "would be updated", "keep": "has this release already"}
        word = would.get(str(result.get("action")), "")
        invocation.out.line(f"{clean(str(result.get('name')))} {word}: release {short(result.get('release'))}")
    else:
        tell(invocation, result)
    return Exit.OK


def list_(invocation: Invocation) -> int:
    result = invocation.call("templates.list")
    items = items_of(result)
    if printed(invocation, result, key="name"):
        return Exit.OK
    if not items:
        invocation.note("no templates yet; a first one: botctl template add NAME PATH")
        return Exit.OK
    now, wide = time.time(), invocation.output == "wide"
    draw(invocation.out, _WIDE_COLUMNS if wide else _COLUMNS, [_row(item, now, wide=wide) for item in items])
    return Exit.OK


def _row(item: dict[str, Any], now: float, *, wide: bool) -> list[Cell]:
    behind = item.get("bots_behind")
    row: list[Cell] = [
        clean(str(item.get("name"))),
        short(item.get("release")),
        number(item.get("releases")),
        number(item.get("bots")),
        (number(behind), YELLOW) if behind else number(behind),
        number(item.get("files")),
        size(item.get("bytes")),
        ago(item.get("updated_at"), now),
    ]
    return [*row, short(item.get("former")), clean(str(item.get("source") or "-"))] if wide else row


def show(invocation: Invocation, *, name: str, release: str | None, files: bool) -> int:
    result = invocation.call("templates.show", {"name": name, "release": release})
    if not printed(invocation, result, key="name"):
        from botctl.render.template import show_template

        show_template(invocation.out, result, files=files)
    return Exit.OK


def remove(invocation: Invocation, *, name: str) -> int:
    if not invocation.yes:
        # What cannot be removed is refused before anybody is asked.
        shown = invocation.call("templates.show", {"name": name})
        releases = shown.get("releases")
        count = len(releases) if isinstance(releases, list) else 0
        if not shown.get("bots"):
            invocation.confirm(f"Remove template {name} with {plural(count, 'release')}?", dry_run=False)
    result = invocation.call("templates.remove", {"name": name}, timeout=SILENCE_S)
    if not printed(invocation, result, key="name") and not invocation.quiet:
        invocation.out.line(f"{clean(name)} was removed, {size(result.get('freed_bytes'))}")
    for problem in _texts(result, "problems"):
        invocation.warn(f"botctl: not removed: {problem}")
    return Exit.OK


_NAME = Argument("name", metavar="NAME", help="The template.")
_MAKES = (
    _NAME,
    Argument("path", metavar="PATH", help="Its folder or archive (.tar, .tar.gz, .zip)."),
    Option("--manifest", metavar="FILE", help="Its manifest; botd-template.toml in PATH otherwise."),
    Option("--dry-run", kind="flag", help="Only say which release it would be."),
)

COMMANDS = (
    Command(
        "template add",
        add,
        "Add a template: code that many bots share, kept once.",
        *_MAKES,
        examples=(
            ("botctl template add messenger ./messenger", "then: botctl create alice/shop -t messenger --start"),
            ("botctl template add messenger app.tar.gz", "out of an archive"),
        ),
        changes=True,
    ),
    Command(
        "template update",
        update,
        "Make a new release of a template; bots that are there keep theirs, or are moved with --roll.",
        *_MAKES,
        Option("--roll", kind="flag", help="Move the bots over in batches; taken back when that goes wrong."),
        *ROLL,
        WAIT,
        examples=(
            ("botctl template update messenger ./messenger", "new bots get it"),
            ("botctl template update messenger ./messenger --roll --batch 20%", "everybody, one bot first"),
        ),
        changes=True,
    ),
    Command(
        "template list",
        list_,
        "List templates with their release in force and their bots.",
        examples=(("botctl template list -o wide", "also where they came from"),),
    ),
    Command(
        "template show",
        show,
        "Show a template: what is shared, copied and private, and why; releases, bots.",
        _NAME,
        Option("--release", metavar="HASH", help="Another release than the one in force."),
        Option("--files", kind="flag", help="Every file and folder that has a class of its own."),
        examples=(("botctl template show messenger --files", "with each reason"),),
    ),
    Command(
        "template remove",
        remove,
        "Remove a template that no bot uses, with all its releases. Asks first.",
        _NAME,
        examples=(("botctl template remove messenger --yes", "does not ask"),),
        changes=True,
    ),
)
