"""start, stop, restart, delete, recover, bulk: verbs over a selection, a verdict for each bot."""

from __future__ import annotations

from botctl.options import Argument, Command, Option
from botctl.render.documents import items_of
from botctl.render.progress import Watch
from botctl.render.verdicts import settle
from botctl.selection import ALL, SELECTORS, choose, nothing_matches, reads_stdin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botd.contract.selector import Selection

WAIT = Option("--wait", off="--no-wait", kind="flag", default=True, help="Wait for the outcome (the default).")
TIMEOUT = Option(
    "--timeout", kind="number", default=60.0, low=0, high=86400, metavar="S", help="How long to wait, in seconds."
)
DRY_RUN = Option("--dry-run", kind="flag", help="Only say what would happen.")

# The daemon answers when its own time is over; the client only gives up well after that.
GRACE_S = 10.0
_NAMED = 3
_DOING = {
    "start": "starting",
    "stop": "stopping",
    "restart": "restarting",
    "delete": "deleting",
    "recover": "recovering",
}


def act(invocation: Invocation, method: str, params: dict[str, Any], title: str) -> int:
    """Make one changing call under a progress bar, print its verdicts, return the exit status."""
    with Watch(invocation, title) as watch:
        result = invocation.call(
            method,
            {"progress": watch.wanted, **params},
            timeout=params["timeout_s"] + GRACE_S,
            on_notification=watch.on_notification,
            on_silence=watch.on_silence if watch.wanted else None,
        )
    if not items_of(result) and "select" in params and not params["select"].get("all"):
        raise nothing_matches(params["select"])
    if not items_of(result):
        invocation.note("there is no bot to do this with")
    return settle(invocation, result)


def _verb(verb: str) -> Any:
    def run(
        invocation: Invocation,
        *,
        selectors: list[str],
        all: bool,
        wait: bool,
        timeout: float,
        dry_run: bool,
    ) -> int:
        params = {"select": choose(selectors, every=all), "wait": wait, "timeout_s": timeout, "dry_run": dry_run}
        return act(invocation, f"bots.{verb}", params, _DOING[verb])

    return run


def delete(
    invocation: Invocation,
    *,
    selectors: list[str],
    all: bool,
    purge: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> int:
    select = choose(selectors, every=all)
    params = {"select": select, "wait": wait, "timeout_s": timeout, "dry_run": dry_run, "purge": purge}
    if not dry_run:
        _confirm_delete(invocation, select, selectors, purge=purge)
    return act(invocation, "bots.delete", params, _DOING["delete"])


def _confirm_delete(invocation: Invocation, select: Selection, selectors: list[str], *, purge: bool = False) -> None:
    if invocation.yes:
        return
    found = invocation.call("bots.list", {"select": select, "fields": ["id"], "limit": _NAMED + 1})
    ids = [str(bot.get("id")) for bot in items_of(found)]
    if not ids:
        raise nothing_matches(select)
    total = found.get("total")
    count = total if isinstance(total, int) else len(ids)
    named = ", ".join(ids[:_NAMED]) + (", ..." if count > _NAMED else "")
    noun = "bot" if count == 1 else "bots"
    lasting = " for good" if purge else ""
    question = f"Delete {count:,} {noun} with data and logs{lasting} ({named})?"
    invocation.confirm(question, stdin_used=reads_stdin(selectors))


def recover(invocation: Invocation, *, selectors: list[str], wait: bool, timeout: float, dry_run: bool) -> int:
    params: dict[str, Any] = {"wait": wait, "timeout_s": timeout, "dry_run": dry_run}
    if selectors:
        params["select"] = choose(selectors)
    return act(invocation, "bots.recover", params, _DOING["recover"])


def bulk(
    invocation: Invocation,
    *,
    op: str,
    selectors: list[str],
    all: bool,
    parallel: int,
    batch: str | None,
    max_failures: int | None,
    on_error: str,
    timeout: float,
    dry_run: bool,
) -> int:
    select = choose(selectors, every=all)
    if op == "delete" and not dry_run:
        _confirm_delete(invocation, select, selectors)
    params = {
        "op": op,
        "select": select,
        "parallel": parallel,
        "batch": batch,
        "max_failures": max_failures,
        "on_error": on_error,
        "timeout_s": timeout,
        "dry_run": dry_run,
        # The time-out is for each bot: the reports tell that the run as a whole goes on.
        "progress": True,
    }
    return act(invocation, "bots.bulk", params, _DOING[op])


def _command(verb: str, help: str, *examples: tuple[str, str]) -> Command:
    params = (SELECTORS, ALL, WAIT, TIMEOUT, DRY_RUN)
    return Command(verb, _verb(verb), help, *params, examples=examples, changes=True)


COMMANDS = (
    _command(
        "start",
        "Start bots and keep them running.",
        ("botctl start alice/shop", "one"),
        ("botctl start 'user:alice,phase:failed'", "all of alice's that failed"),
    ),
    _command(
        "stop",
        "Stop bots, every process of them, and keep them stopped.",
        ("botctl stop alice/shop bob/news", "two"),
        ("botctl stop --all --no-wait", "all, without waiting for their end"),
    ),
    _command(
        "restart",
        "Stop bots and start them again.",
        ("botctl restart 'label:tier=free'", "by a label"),
        ("botctl bulk restart --all --batch 10%", "a tenth at a time"),
    ),
    Command(
        "delete",
        delete,
        "Stop bots and put them in the trash, from where undelete brings them back for some days. Asks first.",
        SELECTORS,
        ALL,
        Option("--purge", kind="flag", help="Remove data and logs at once, too: no undelete."),
        WAIT,
        TIMEOUT,
        DRY_RUN,
        examples=(
            ("botctl delete alice/shop", "asks"),
            ("botctl delete 'alice/test-*' --yes", "does not ask"),
            ("botctl delete alice/shop --purge", "with its data, for good"),
        ),
        changes=True,
    ),
    Command(
        "recover",
        recover,
        "Start every bot again that failed or waits for its next attempt.",
        SELECTORS,
        WAIT,
        TIMEOUT,
        DRY_RUN,
        examples=(("botctl recover", "all that need it"), ("botctl recover user:alice --dry-run", "only look")),
        changes=True,
    ),
    Command(
        "bulk",
        bulk,
        "Do one thing to many bots, a batch at a time; each has its own verdict.",
        Argument("op", choices=("start", "stop", "restart", "delete"), help="What to do."),
        SELECTORS,
        ALL,
        Option(
            "--parallel", kind="whole", default=50, low=1, high=10_000, metavar="N", help="How many at the same time."
        ),
        Option("--batch", metavar="N|N%", help="Finish so many before the next begin, as in 20 or 10%."),
        Option("--max-failures", kind="whole", low=0, metavar="N", help="Skip the rest after more failures than this."),
        Option(
            "--on-error",
            choices=("continue", "stop"),
            default="continue",
            help="Whether the first failure ends the run.",
        ),
        TIMEOUT,
        DRY_RUN,
        examples=(
            ("botctl bulk restart --all --batch 10% --max-failures 2", "a careful roll-out"),
            ("botctl bulk stop user:alice user:bob -o json", "the verdicts for a program"),
        ),
        changes=True,
    ),
)
