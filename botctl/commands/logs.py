"""logs: what bots wrote, and what they write."""

from __future__ import annotations

import time

from botctl import wire
from botctl.moments import moment
from botctl.options import Command, Option
from botctl.render.documents import items_of, printed
from botctl.render.logs import Prefixes, show_line
from botctl.render.terminal import clean
from botctl.render.units import plural
from botctl.selection import ALL, SELECTORS, choose
from botd.contract.errors import BotdError, invalid
from botd.contract.selector import is_glob
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from botctl.invocation import Invocation
    from botd.contract.selector import Selection

LINES = 100
PATIENCE_S = 30.0
"""How long -f waits for a botd that went away: its keeper brings it back, or an upgrade puts another in its place."""


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
        "resumable": follow,
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
    for note in result.get("notes") or ():
        invocation.warn(f"botctl: {clean(str(note))}")
    if follow:
        follower = _Follower(
            invocation, params, result, show or (lambda item: invocation.out.line(wire.encode(item))), early
        )
        follower.run()
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
        show_line(invocation.out, item, timestamps=timestamps, prefix=prefix)

    return show


def _names_one(select: Selection) -> bool:
    clauses = select.get("any", [])
    return len(clauses) == 1 and "id" in clauses[0] and not is_glob(clauses[0]["id"])


def _names_bots(select: Selection) -> bool:
    """Whether it names bots one by one, so that no others can come."""
    clauses = select.get("any", [])
    return bool(clauses) and all(set(clause) == {"id"} and not is_glob(clause["id"]) for clause in clauses)


class _Ended(Exception):
    """Every bot that was named is gone."""


class _Follower:
    """Shows what comes, and goes on after a restart of botd where it was: each line tells the place behind it."""

    def __init__(
        self,
        invocation: Invocation,
        params: dict[str, Any],
        result: dict[str, Any],
        show: Callable[[dict[str, Any]], None],
        early: list[tuple[str, dict[str, Any]]],
    ) -> None:
        self._invocation = invocation
        self._params = params
        self._show = show
        self._early = early
        self._places = _places(result.get("positions"))

    def run(self) -> None:
        """Until every bot that was named is deleted. Raises BotdError when botd goes and does not come back."""
        try:
            while True:
                early, self._early = self._early, []
                for method, params in early:
                    self._notified(method, params)
                self._invocation.out.flush()
                try:
                    self._invocation.client().follow(self._notified)
                except BotdError as error:
                    if error.kind != "unavailable" or self._places is None:
                        raise
                    self._resume()
        except _Ended:
            return

    def _resume(self) -> None:
        self._invocation.note("the connection to botd was lost; waiting for it")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._invocation.reconnect(max(0.0, deadline - time.monotonic()))
            # Bots without a line yet are known as well: they go on from their beginning.
            params = {**self._params, "resume": self._places}
            try:
                result = self._invocation.call(
                    "bots.logs", params, on_notification=lambda *args: self._early.append(args)
                )
            except BotdError as error:
                if error.kind != "unavailable" or time.monotonic() > deadline:
                    raise
                self._early.clear()
                continue
            self._places = _places(result.get("positions")) or self._places
            return

    def _notified(self, method: str, params: dict[str, Any]) -> None:
        invocation = self._invocation
        id = clean(str(params.get("id", "")))
        if method == "logs.line":
            self._show({key: value for key, value in params.items() if key not in ("subscription", "next")})
            invocation.out.flush()
            if self._places is not None and "next" in params:
                self._places.setdefault(str(params.get("id")), {})[str(params.get("stream"))] = params["next"]
        elif method == "logs.missed":
            invocation.warn(f"... {_missed(params)} missed{f' of {id}' if id else ''}: too many to keep up with")
        elif method == "logs.note":
            invocation.warn(f"botctl: {clean(str(params.get('text', '')))}")
        elif method == "logs.ended":
            if self._places is not None:
                self._places.pop(str(params.get("id")), None)
            invocation.note(f"{id} was deleted")
            if not params.get("left") and _names_bots(self._params["select"]):
                raise _Ended


def _missed(params: dict[str, Any]) -> str:
    number, more = params.get("missed", 0), params.get("more")
    if not number:
        return "some lines were"
    return f"{'more than ' if more else ''}{plural(number, 'line')} {'was' if number == 1 and not more else 'were'}"


def _places(given: object) -> dict[str, dict[str, Any]] | None:
    """Positions by bot and stream; None from a botd that knows no such thing."""
    if not isinstance(given, dict):
        return None
    return {str(id): dict(streams) for id, streams in given.items() if isinstance(streams, dict)}


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
