"""apply, diff, export: the fleet as a file."""

from __future__ import annotations

from botctl.commands.actions import DRY_RUN, GRACE_S, TIMEOUT, WAIT
from botctl.commands.template import make, tell
from botctl.options import Command, Option
from botctl.render.changes import differing, show_changes, show_template_change, summary_in_words
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
    manifest, shared = _manifest(file)
    result = _difference(invocation, manifest, shared, prune=prune)
    items = [*items_of(result), *_parts(result, "templates")]
    _show_difference(invocation, result)
    return Exit.NOT_RUNNING if differing(items) else Exit.OK


def apply(invocation: Invocation, *, file: str | None, prune: bool, dry_run: bool, wait: bool, timeout: float) -> int:
    manifest, shared = _manifest(file)
    if dry_run:
        _show_difference(invocation, _difference(invocation, manifest, shared, prune=prune))
        return Exit.OK
    if prune and not invocation.yes:
        _confirm_prune(invocation, manifest, shared)
    made = [_bring(invocation, one) for one in shared]
    with Watch(invocation, "applying") as watch:
        params = {**manifest, "prune": prune, "wait": wait, "timeout_s": timeout, "progress": watch.wanted}
        result = invocation.call(
            "fleet.apply",
            params,
            timeout=timeout + GRACE_S,
            on_notification=watch.on_notification,
            on_silence=watch.on_silence if watch.wanted else None,
        )
    if made:
        result = {**result, "templates": made}
    if invocation.for_people:
        kept = [item for item in items_of(result) if item.get("action") == "keep" and item.get("ok", True)]
        if len(kept) == len(items_of(result)):
            invocation.note(f"{plural(len(kept), 'bot')} as they should be, nothing to do")
            return Exit.OK
        result = {**result, "items": [item for item in items_of(result) if item not in kept]}
    return settle(invocation, result)


def _manifest(file: str | None) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What is sent of it, and its templates."""
    if file is None:
        raise invalid("", "which manifest?", hint="name it with -f, as in: -f fleet.toml")
    from botctl.manifests import read  # the schema of a manifest needs `re`, tomllib and more

    source, bots, shared = read(file)
    return {"source": source, "bots": bots}, shared


def _bring(invocation: Invocation, template: dict[str, str]) -> dict[str, Any]:
    """Its content is in force when this returns, whether it was or not."""
    result = make(invocation, "templates.update", create=True, **_args(template))
    if result.get("changed") and invocation.for_people and not invocation.quiet:
        tell(invocation, result)
    return result


def _args(template: dict[str, str]) -> dict[str, Any]:
    return {"name": template["name"], "path": template["path"], "manifest": template.get("manifest")}


def _difference(
    invocation: Invocation, manifest: dict[str, Any], shared: list[dict[str, str]], *, prune: bool
) -> dict[str, Any]:
    """What apply would change; with the templates under a key of their own, where there are any."""
    looked = [make(invocation, "templates.update", create=True, dry_run=True, **_args(one)) for one in shared]
    given = {**manifest, "prune": prune}
    if shared:
        given["expect"] = [one["name"] for one in shared]
    result = invocation.call("fleet.diff", given)
    return {**result, "templates": looked} if shared else result


def _parts(result: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return items_of({"items": result.get(key)})


def _show_difference(invocation: Invocation, result: dict[str, Any]) -> None:
    if printed(invocation, result) or invocation.quiet:
        return
    for one in _parts(result, "templates"):
        show_template_change(invocation.out, one)
    show_changes(invocation.out, items_of(result))
    invocation.note(summary_in_words(part(result, "summary")))


def _confirm_prune(invocation: Invocation, manifest: dict[str, Any], shared: list[dict[str, str]]) -> None:
    given = {**manifest, "prune": True, "expect": [one["name"] for one in shared]}
    found = items_of(invocation.call("fleet.diff", given))
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
