"""daemon repair: the database of the fleet, looked at and put right."""

from __future__ import annotations

from botctl.options import Command, Option
from botctl.render.documents import printed
from botctl.render.terminal import GREEN, YELLOW, clean
from botctl.render.units import plural
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation

PATIENCE_S = 600.0


def repair(invocation: Invocation, *, check: bool) -> int:
    report = _asked(invocation, check)
    problem = report.get("problem")
    status = Exit.FAILED if problem and not report.get("repaired") else Exit.OK
    if not printed(invocation, report, key="kept") and not (invocation.quiet and status == Exit.OK):
        _show(invocation, report)
    return status


def _asked(invocation: Invocation, check: bool) -> dict[str, Any]:
    try:
        return invocation.call("daemon.repair", {"check": check}, timeout=PATIENCE_S, autostart=not check)
    except BotdError as error:
        if error.exit not in (Exit.UNREACHABLE, Exit.INVALID):
            raise
    # It does not run, or cannot: its program does the same by itself.
    from botctl.offline import repaired

    return repaired(check)


def _show(invocation: Invocation, report: dict[str, Any]) -> None:
    out, problem = invocation.out, report.get("problem")
    good, bad = out.paint(out.pick("✔", "+"), GREEN), out.paint(out.pick("⚠", "!"), YELLOW)
    if not problem:
        out.line(f"{good} the database is sound")
        return
    out.line(f"{bad} {clean(str(problem))}")
    if not report.get("repaired"):
        out.line(f"    try: {clean(str(report.get('remedy') or 'botctl daemon repair'))}")
        return
    bots = report.get("bots")
    count = f": {plural(bots, 'bot')} on record" if isinstance(bots, int) else ""
    out.line(f"{good} repaired{count}")
    for key, text in (
        ("adopted", "taken over as they run, their whole environment as secrets"),
        ("from_snapshot", f"as they were in the snapshot of {report.get('snapshot_at')}"),
        ("state_unknown", "without their last state"),
    ):
        names = report.get(key)
        if names:
            out.line(f"    {text}: {clean(', '.join(map(str, names)))}")
    for text in report.get("lost") or ():
        out.line(f"{bad} lost: {clean(str(text))}")
    if report.get("kept"):
        out.line(f"    the damaged file is kept: {clean(str(report['kept']))}")


COMMANDS = (
    Command(
        "daemon repair",
        repair,
        "Check the database and put a damaged one right: what can be read, the snapshot, what runs. No bot is touched.",
        Option("--check", kind="flag", help="Only look; exit 1 when it is damaged."),
        examples=(("botctl daemon repair --check", "is it sound?"),),
        changes=True,
    ),
)
