"""doctor: whether this machine has what botd needs, and what to do where it has not."""

from __future__ import annotations

from botctl.findings import FAIL, GOOD, WARN
from botctl.options import Command
from botctl.render.documents import printed
from botctl.render.terminal import DIM, GREEN, RED, YELLOW, clean
from botctl.render.units import plural
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.invocation import Invocation

_MARKS = {GOOD: ("✔", "+", GREEN), WARN: ("⚠", "!", YELLOW), FAIL: ("✖", "x", RED)}


def doctor(invocation: Invocation) -> int:
    # Every completion of a verb reads this module; the checks themselves import half of the library.
    from botctl.checks import every_check

    findings = every_check(invocation)
    bad = [finding for finding in findings if finding["level"] == FAIL]
    status = Exit.FAILED if bad else Exit.OK
    if printed(invocation, {"items": findings}, key="check"):
        return status
    out = invocation.out
    shown = [f for f in findings if f["level"] == FAIL] if invocation.quiet else findings
    width = max((len(finding["check"]) for finding in shown), default=0)
    for finding in shown:
        symbol, ascii, style = _MARKS[finding["level"]]
        mark = out.paint(out.pick(symbol, ascii), style)
        out.line(f"{mark} {finding['check'].ljust(width)}  {clean(finding['text'])}")
        if finding["remedy"]:
            out.line(f"{' ' * (width + 4)}{out.paint('try:', DIM)} {clean(finding['remedy'])}")
    warned = sum(finding["level"] == WARN for finding in findings)
    verdict = plural(len(bad), "problem") if bad else "all that is needed is here"
    more = f", {plural(warned, 'warning')}" if warned else ""
    invocation.note(verdict + more)
    return status


COMMANDS = (
    Command(
        "doctor",
        doctor,
        "Check the machine, the home of the fleet and the daemon, and name the remedy of what is wrong.",
        examples=(("botctl doctor -o json | jq '.items[] | select(.level != \"good\")'", "for programs"),),
    ),
)
