"""template roll, rollback, abort, rolls: moving bots to another release in batches, with a way back."""

from __future__ import annotations

import time

from botctl.commands.actions import GRACE_S, WAIT
from botctl.options import Argument, Command, Option
from botctl.render import failure
from botctl.render.documents import items_of, printed
from botctl.render.progress import Watch
from botctl.render.table import Column, draw
from botctl.render.terminal import GREEN, RED, YELLOW, clean
from botctl.render.units import ago, plural
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell

RECONNECT_S = 30.0
"""How long a botd that went away may take to come back: the roll goes on with the next one."""
_OPEN = ("moving", "watching", "returning")
_DOING = {"moving": "moving", "watching": "watching", "returning": "taking back"}
_STYLES = {"finished": GREEN, "taken-back": RED, "stopped": RED}
_HASH = 12

ROLL = (
    Option("--batch", default="10%", metavar="N|N%", help="So many bots at a time, as in 20 or 10%."),
    Option("--canary", kind="whole", default=1, low=0, high=10_000, metavar="N", help="So many first; 0: a batch."),
    Option(
        "--max-failures",
        kind="whole",
        default=0,
        low=0,
        high=10_000,
        metavar="N",
        help="More failures than this, and it is taken back.",
    ),
    Option(
        "--gate-timeout",
        kind="number",
        default=120.0,
        low=1,
        high=86400,
        metavar="S",
        help="Within which a batch has to run well, in seconds.",
    ),
    Option(
        "--pause",
        kind="number",
        default=0.0,
        low=0,
        high=86400,
        metavar="S",
        help="Watch each batch so long before the next, in seconds.",
    ),
    Option("--keep-done", kind="flag", help="Finished batches keep the new release when the roll is taken back."),
)


def wire(
    batch: str,
    canary: int,
    max_failures: int,
    gate_timeout: float,
    pause: float,
    keep_done: bool,
) -> dict[str, Any]:
    """What the options of `ROLL` are in a call."""
    return {
        "batch": batch,
        "canary": canary,
        "max_failures": max_failures,
        "gate_timeout_s": gate_timeout,
        "pause_s": pause,
        "keep_done": keep_done,
    }


def begin(invocation: Invocation, method: str, params: dict[str, Any], *, wait: bool) -> int:
    """Begin a roll, see it to its end unless told otherwise, and say how it went."""
    roll = _ended(invocation, invocation.call(method, params), wait=wait)
    failed = roll.get("phase") in ("taken-back", "stopped")
    if not printed(invocation, roll) and not failed and not invocation.quiet:
        _say(invocation, roll)
    if not failed:
        return Exit.OK
    failure.tell(invocation.err, *_words_of_failure(roll))
    return Exit.FAILED


def _ended(invocation: Invocation, roll: dict[str, Any], *, wait: bool) -> dict[str, Any]:
    """The roll when it is over. It goes on in botd whatever becomes of us, and with the next botd if this one dies."""
    if not wait or roll.get("phase") not in _OPEN:
        return roll
    options = roll["options"]
    patience = options["gate_timeout_s"] + options["pause_s"] + GRACE_S
    with Watch(invocation, _title(roll)) as watch:

        def told(method: str, params: dict[str, Any]) -> None:
            if isinstance(item := params.get("item"), dict):
                watch.retitle(_title(item))
            watch.on_notification(method, params)

        while roll.get("phase") in _OPEN:
            asked = {"name": roll["template"], "wait": True, "progress": True}
            try:
                listed = invocation.call("templates.rolls", asked, timeout=patience, on_notification=told)
            except BotdError as error:
                if error.kind != "unavailable":
                    raise
                invocation.reconnect(RECONNECT_S)
                continue
            found = [item for item in items_of(listed) if item.get("id") == roll["id"]]
            if not found:
                raise BotdError("not_found", f"botd knows nothing of roll {roll['id']} any more", hint="botctl events")
            roll = found[0]
    return roll


def _title(roll: dict[str, Any]) -> str:
    doing = _DOING.get(str(roll.get("phase")), "rolling")
    name = clean(str(roll.get("template")))
    return f"{doing} {name}, batch {roll.get('batch')} of {roll.get('batches')}"


def _short(roll: dict[str, Any]) -> str:
    return str(roll.get("release"))[:_HASH]


def _count(roll: dict[str, Any], key: str) -> int:
    value = roll.get(key)
    return value if isinstance(value, int) else 0


def _say(invocation: Invocation, roll: dict[str, Any]) -> None:
    out, name = invocation.out, clean(str(roll.get("template")))
    if roll.get("phase") in _OPEN:
        batch = f"batch {roll.get('batch')} of {roll.get('batches')}"
        out.line(
            f"{name}  roll {roll.get('id')} to {_short(roll)} has begun: {plural(_count(roll, 'bots'), 'bot')}, {batch}"
        )
        out.line(f"    see it: botctl template rolls {name}   take it back: botctl template abort {name}")
        return
    mark = out.paint(out.pick("✔", "+"), GREEN)
    out.line(f"{mark} {name}  release {_short(roll)} is in force, {plural(_count(roll, 'moved'), 'bot')} moved")
    for failed in roll.get("failures") or ():
        out.line(f"    {out.paint('failing:', YELLOW)} {clean(str(failed['id']))}: {clean(str(failed['reason']))}")


def _words_of_failure(roll: dict[str, Any]) -> tuple[str, str]:
    kept = roll.get("phase") == "stopped"
    what = f"was stopped, {plural(_count(roll, 'moved'), 'bot')} keep it" if kept else "was taken back"
    failures = roll.get("failures") or ()
    hint = f"botctl explain {failures[0]['id']}" if failures else f"botctl template rolls {roll.get('template')}"
    return f"the roll of {roll.get('template')} to {_short(roll)} {what}: {roll.get('reason')}", hint


def roll(
    invocation: Invocation,
    *,
    name: str,
    to: str | None,
    batch: str,
    canary: int,
    max_failures: int,
    gate_timeout: float,
    pause: float,
    keep_done: bool,
    wait: bool,
) -> int:
    options = wire(batch, canary, max_failures, gate_timeout, pause, keep_done)
    return begin(invocation, "templates.roll", {"name": name, "to": to, **options}, wait=wait)


def rollback(
    invocation: Invocation,
    *,
    name: str,
    batch: str,
    canary: int,
    max_failures: int,
    gate_timeout: float,
    pause: float,
    keep_done: bool,
    wait: bool,
) -> int:
    options = wire(batch, canary, max_failures, gate_timeout, pause, keep_done)
    return begin(invocation, "templates.rollback", {"name": name, **options}, wait=wait)


def abort(invocation: Invocation, *, name: str, keep_done: bool, wait: bool) -> int:
    begun = invocation.call("templates.abort", {"name": name, "keep_done": keep_done})
    roll = _ended(invocation, begun, wait=wait)
    if not printed(invocation, roll) and not invocation.quiet:
        done = {"taken-back": "was taken back", "stopped": "was stopped"}.get(str(roll["phase"]), "is taken back")
        kept = f"; {plural(_count(roll, 'moved'), 'bot')} keep it" if roll["phase"] == "stopped" else ""
        invocation.out.line(f"{clean(name)}  roll {roll['id']} to {_short(roll)} {done}{kept}")
    return Exit.OK


_COLUMNS = (
    Column("ROLL", right=True),
    Column("TEMPLATE"),
    Column("TO"),
    Column("PHASE"),
    Column("BATCH", right=True),
    Column("MOVED", right=True),
    Column("FAILED", right=True),
    Column("BEGAN"),
    Column("REASON", flexible=True),
)


def rolls(invocation: Invocation, *, name: str | None) -> int:
    result = invocation.call("templates.rolls", {"name": name})
    items = items_of(result)
    if printed(invocation, result):
        return Exit.OK
    if not items:
        invocation.note("no roll yet; a first one: botctl template update NAME PATH --roll")
        return Exit.OK
    now = time.time()
    draw(invocation.out, _COLUMNS, [_row(item, now) for item in items])
    return Exit.OK


def _row(roll: dict[str, Any], now: float) -> list[Cell]:
    phase = str(roll.get("phase"))
    return [
        str(roll.get("id")),
        clean(str(roll.get("template"))),
        _short(roll),
        (phase, _STYLES.get(phase, YELLOW)),
        f"{roll.get('batch')}/{roll.get('batches')}",
        f"{roll.get('moved')}/{roll.get('bots')}",
        str(roll.get("failed")),
        ago(roll.get("began_at"), now),
        clean(str(roll.get("reason") or "")),
    ]


_NAME = Argument("name", metavar="NAME", help="The template.")

COMMANDS = (
    Command(
        "template roll",
        roll,
        "Move the bots of a template to a release in batches; taken back when that goes wrong.",
        _NAME,
        Option("--to", metavar="HASH", help="The release; the one in force by default."),
        *ROLL,
        WAIT,
        examples=(
            ("botctl template roll messenger", "whoever is behind gets the release in force"),
            ("botctl template roll messenger --canary 5 --pause 600 --batch 20%", "five first, ten minutes each"),
        ),
        changes=True,
    ),
    Command(
        "template rollback",
        rollback,
        "Put the former release in force again and move the bots back to it, their data untouched.",
        _NAME,
        *ROLL,
        WAIT,
        examples=(("botctl template rollback messenger --batch 100% --canary 0", "all at once"),),
        changes=True,
    ),
    Command(
        "template abort",
        abort,
        "Take the open roll of a template back.",
        _NAME,
        Option("--keep-done", kind="flag", help="Finished batches keep the new release."),
        WAIT,
        examples=(("botctl template abort messenger", "every bot gets its former release back"),),
        changes=True,
    ),
    Command(
        "template rolls",
        rolls,
        "List the last rolls, how far they came and why they were taken back.",
        Argument("name", metavar="NAME", required=False, help="Only of this template."),
        examples=(("botctl template rolls messenger", "the newest first"),),
    ),
)
