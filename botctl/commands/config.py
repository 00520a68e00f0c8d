"""config: what is in force, and checking a new file."""

from __future__ import annotations

import os

from botctl.options import Argument, Command
from botctl.render.documents import printed
from botctl.render.panel import panel
from botctl.render.table import pairs
from botctl.render.terminal import clean
from botctl.render.units import local
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation


def show(invocation: Invocation) -> int:
    result = invocation.call("config.show")
    if not printed(invocation, result, key="source"):
        values = result.get("config")
        out = invocation.out
        loose: list[tuple[str, str]] = []
        for name, value in (values if isinstance(values, dict) else {}).items():
            if isinstance(value, dict):
                panel(out, clean(name), [(clean(key), _told(inner)) for key, inner in value.items()])
            else:
                loose.append((clean(name), _told(value)))
        pairs(out, [*loose, *_origin(result)])
    return Exit.OK


def _told(value: Any) -> str:
    from botctl import wire

    return clean(value) if isinstance(value, str) else clean(wire.encode(value))


def _origin(result: dict[str, Any]) -> list[tuple[str, str]]:
    loaded = result.get("loaded_at")
    return [
        ("source", clean(str(result.get("source") or "the shipped defaults"))),
        ("loaded", local(loaded) if loaded else ""),
    ]


def reload(invocation: Invocation) -> int:
    result = invocation.call("config.reload", autostart=False)
    if not printed(invocation, result, key="source") and not invocation.quiet:
        changes = result.get("changes")
        keys = [str(change.get("key")) for change in changes] if isinstance(changes, list) else []
        what = ", ".join(keys) if keys else "nothing"
        source = clean(str(result.get("source") or "the shipped defaults"))
        invocation.out.line(f"{source}: read again; changed: {clean(what)}")
    return Exit.OK


def check(invocation: Invocation, *, file: str | None) -> int:
    # An absolute path: a file may be called --help.
    return _botd(invocation, "config", "check", *([os.path.abspath(file)] if file else []))


def schema(invocation: Invocation) -> int:
    return _botd(invocation, "config", "schema")


def _botd(invocation: Invocation, *arguments: str) -> int:
    """Let botd answer, which alone knows its configuration; no daemon is needed or started."""
    import subprocess

    from botctl.autostart import botd_command

    invocation.out.flush()
    quiet = subprocess.DEVNULL if invocation.quiet else None
    return subprocess.run(botd_command(*arguments), stdout=quiet, check=False).returncode


COMMANDS = (
    Command(
        "config show",
        show,
        "Show the configuration in force, defaults included, and where it came from.",
        examples=(("botctl config show -o json | jq .config.botRecovery", "for programs"),),
    ),
    Command(
        "config check",
        check,
        "Check a configuration file without using it; exit 9 when it is invalid.",
        Argument("file", required=False, help="The file; without it, the one that botd would read."),
        examples=(("botctl config check bot_config.json", "before a reload"),),
    ),
    Command("config schema", schema, "Print the JSON Schema of the configuration."),
    Command(
        "config reload",
        reload,
        "Read the configuration again; a bad one changes nothing. No bot is restarted.",
        changes=True,
    ),
)
