"""logs: what bots wrote, and what they write."""

from __future__ import annotations

import time

from botctl import wire
from botctl.moments import moment
from botctl.options import Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.logs import Prefixes, line_of
from botctl.selection import ALL, SELECTORS, choose
from botd.contract.errors import invalid
from botd.contract.selector import is_glob
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from botctl.invocation import Invocation
    from botd.contract.selector import Selection

LINES = 100


def logs(
    invocation: Invocation,
    *,
    selectors: list[str],
    all: bool,
    follow: bool,
    lines: int | None,
    since: str | None,
    until: str | None,
    grep: str | None,
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    no_prefix: bool,
) -> int:
    select = choose(selectors, every=all)
    if follow and invocation.output == "json":
        raise invalid("", "-f never ends, and json is one document", hint="use -o jsonl with -f")
    now = time.time()
    # A bound in time replaces the bound in lines, unless that one is asked for as well.
    bounded = since is not None or until is not None
    params: dict[str, Any] = {
        "select": select,
        "lines": lines if lines is not None else None if bounded else LINES,
        "since": None if since is None else moment(since, "--since", now),
        "until": None if until is None else moment(until, "--until", now),
        "grep": grep,
        "stream": "both" if stdout == stderr else "stdout" if stdout else "stderr",
        "follow": follow,
    }
    # Lines written between the answer and its printing arrive as notifications and must wait for it.
    early: list[tuple[str, dict[str, Any]]] = []
    result = invocation.call("bots.logs", params, on_notification=lambda *args: early.append(args))
    items = items_of(result)
    show = _printer(invocation, select, items, timestamps=timestamps, no_prefix=no_prefix)
    if show is None:
        printed(invocation, result, key="line")
    else:
        for item in items:
            show(item)
    if result.get("truncated"):
        invocation.note("there are more lines than these; narrow it with -n, --since or --grep")
    if follow:
        _follow(invocation, show or (lambda item: invocation.out.line(wire.encode(item))), early)
    return Exit.OK


def _printer(
    invocation: Invocation,
    select: Selection,
    items: list[dict[str, Any]],
    *,
    timestamps: bool,
    no_prefix: bool,
) -> Callable[[dict[str, Any]], None] | None:
    """How to print a line for people; None where -o asks for something else."""
    if not invocation.for_people:
        return None
    ids = list(dict.fromkeys(str(item.get("id")) for item in items))
    several = len(ids) > 1 or not _names_one(select)
    prefixes = Prefixes(invocation.out, ids) if several and not no_prefix else None

    def show(item: dict[str, Any]) -> None:
        prefix = prefixes.of(str(item.get("id"))) if prefixes else ""
        invocation.out.line(line_of(invocation.out, item, timestamps=timestamps, prefix=prefix))

    return show


def _names_one(select: Selection) -> bool:
    clauses = select.get("any", [])
    return len(clauses) == 1 and "id" in clauses[0] and not is_glob(clauses[0]["id"])


def _follow(
    invocation: Invocation,
    show: Callable[[dict[str, Any]], None],
    early: list[tuple[str, dict[str, Any]]],
) -> None:
    def notified(method: str, params: dict[str, Any]) -> None:
        if method == "logs.line":
            show({key: value for key, value in params.items() if key != "subscription"})
            invocation.out.flush()
        elif method == "logs.missed":
            invocation.warn(f"... {params.get('missed', 'some')} lines were missed: too many to keep up with")

    for method, params in early:
        notified(method, params)
    invocation.out.flush()
    invocation.client().follow(notified)


COMMANDS = (
    Command(
        "logs",
        logs,
        "Show what bots wrote; -f keeps showing.",
        SELECTORS,
        ALL,
        Option("-f", "--follow", kind="flag", help="Keep showing new lines until interrupted."),
        Option("-n", "--lines", kind="whole", low=0, high=100_000, metavar="N", help="The last N lines (100)."),
        Option("--since", metavar="TIME", help="Not older than this: 30s, 1h30m, 2026-11-22T17:00, @epoch."),
        Option("--until", metavar="TIME", help="Not newer than this."),
        Option("-g", "--grep", metavar="RE", help="Only lines in which this regular expression is found."),
        Option("--stdout", kind="flag", help="Only standard output."),
        Option("--stderr", kind="flag", help="Only standard error."),
        Option("-t", "--timestamps", kind="flag", help="Begin each line with its time."),
        Option("--no-prefix", kind="flag", help="No bot ids in front of the lines of several bots."),
        examples=(
            ("botctl logs -f alice/shop", "follow one"),
            ("botctl logs user:alice --since 1h --grep ERROR", "the last hour's errors of all of alice's"),
            ("botctl logs alice/shop -o jsonl | jq -r .line", "for programs"),
        ),
    ),
)
