"""apply, diff, export: the fleet as a file."""

from __future__ import annotations

from botctl.commands.actions import DRY_RUN, GRACE_S, TIMEOUT, WAIT
from botctl.options import Command, Option
from botctl.render.changes import differing, show_changes, summary_in_words
from botctl.render.documents import items_of, printed
from botctl.render.panel import part
from botctl.render.progress import Watch
from botctl.render.units import plural
from botctl.render.verdicts import settle
from botctl.selection import SELECTORS, look_at
from botd.contract.errors import invalid
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation

_HEADER = """\
# The fleet as botd knows it; `botctl apply -f THIS_FILE` brings it back.
# Values of secrets are not exported: the files that are named must exist.
"""


def diff(invocation: Invocation, *, file: str | None, prune: bool) -> int:
    result = _difference(invocation, _manifest(file), prune=prune)
    items = items_of(result)
    if not printed(invocation, result) and not invocation.quiet:
        show_changes(invocation.out, items)
        invocation.note(summary_in_words(part(result, "summary")))
    return Exit.NOT_RUNNING if differing(items) else Exit.OK


def apply(invocation: Invocation, *, file: str | None, prune: bool, dry_run: bool, wait: bool, timeout: float) -> int:
    manifest = _manifest(file)
    if dry_run:
        result = _difference(invocation, manifest, prune=prune)
        if not printed(invocation, result) and not invocation.quiet:
            show_changes(invocation.out, items_of(result))
            invocation.note(summary_in_words(part(result, "summary")))
        return Exit.OK
    if prune and not invocation.yes:
        _confirm_prune(invocation, manifest)
    with Watch(invocation, "applying") as watch:
        params = {**manifest, "prune": prune, "wait": wait, "timeout_s": timeout, "progress": watch.wanted}
        result = invocation.call(
            "fleet.apply",
            params,
            timeout=timeout + GRACE_S,
            on_notification=watch.on_notification,
            on_silence=watch.on_silence if watch.wanted else None,
        )
    if invocation.for_people:
        kept = [item for item in items_of(result) if item.get("action") == "keep" and item.get("ok", True)]
        if len(kept) == len(items_of(result)):
            invocation.note(f"{plural(len(kept), 'bot')} as they should be, nothing to do")
            return Exit.OK
        result = {**result, "items": [item for item in items_of(result) if item not in kept]}
    return settle(invocation, result)


def _manifest(file: str | None) -> dict[str, Any]:
    if file is None:
        raise invalid("", "which manifest?", hint="name it with -f, as in: -f fleet.toml")
    from botctl.manifests import read  # the schema of a manifest needs `re`, tomllib and more

    source, bots = read(file)
    return {"source": source, "bots": bots}


def _difference(invocation: Invocation, manifest: dict[str, Any], *, prune: bool) -> dict[str, Any]:
    return invocation.call("fleet.diff", {**manifest, "prune": prune})


def _confirm_prune(invocation: Invocation, manifest: dict[str, Any]) -> None:
    found = items_of(_difference(invocation, manifest, prune=True))
    gone = [str(item.get("id")) for item in found if item.get("action") == "delete"]
    if gone:
        named = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
        invocation.confirm(f"Delete {plural(len(gone), 'bot')} with data and logs ({named})?")


def export(invocation: Invocation, *, selectors: list[str]) -> int:
    result = invocation.call("fleet.export", {"select": look_at(selectors)})
    if not printed(invocation, result):
        import tomli_w

        # TOML has no null, and an empty table says nothing.
        bots = [{key: value for key, value in bot.items() if value not in (None, {})} for bot in items_of(result)]
        document: dict[str, Any] = {"schema": 1, "bot": bots}
        invocation.out.write(_HEADER + "\n" + tomli_w.dumps(document))
    return Exit.OK


FILE = Option("-f", "--file", metavar="FILE", help="The manifest, as in fleet.toml.")
PRUNE = Option(
    "--prune", kind="flag", help="Delete bots that an earlier apply of this file brought and it no longer has."
)

COMMANDS = (
    Command(
        "apply",
        apply,
        "Make the fleet as a file says, touching only what differs.",
        FILE,
        PRUNE,
        DRY_RUN,
        WAIT,
        TIMEOUT,
        examples=(
            ("botctl apply -f fleet.toml", "create and change what differs"),
            ("botctl apply -f fleet.toml --prune --yes", "and delete what it no longer has"),
        ),
        changes=True,
    ),
    Command(
        "diff",
        diff,
        "Show what apply would change; exit 3 when there is a difference.",
        FILE,
        PRUNE,
        examples=(("botctl diff -f fleet.toml", "field by field"),),
    ),
    Command(
        "export",
        export,
        "Print the fleet as a file that apply reads; secrets are left out.",
        SELECTORS,
        examples=(("botctl export > fleet.toml", "everything"), ("botctl export user:alice -o json", "for programs")),
    ),
)
