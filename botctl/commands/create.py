"""create: a new bot from the command line."""

from __future__ import annotations

import os

from botctl.commands.actions import GRACE_S, TIMEOUT, WAIT
from botctl.options import Argument, Command, Option
from botctl.render.verdicts import settle
from botctl.secrets import read_secret
from botd.contract.errors import invalid
from botd.contract.vocabulary import NAME_RULE, RESTART_MODES, STOP_SIGNALS, USER_RULE, is_bot_id, is_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from botctl.invocation import Invocation


def create(
    invocation: Invocation,
    *,
    id: str,
    command: list[str],
    template: str | None,
    directory: str | None,
    env: list[str],
    secret: list[str],
    label: list[str],
    memory: int | None,
    processes: int | None,
    cpu: float | None,
    restart: str | None,
    port: bool,
    stop_signal: str | None,
    stop_grace: float | None,
    probe_http: str | None,
    start: bool,
    wait: bool,
    timeout: float,
) -> int:
    spec: dict[str, Any] = {
        "id": full_id(id),
        "env": _table("--env", env),
        "labels": _table("--label", label),
        "secrets": {
            name: read_secret(os.path.abspath(os.path.expanduser(path)), f"--secret {name}")
            for name, path in _table("--secret", secret).items()
        },
        "enabled": start,
    }
    if directory is not None or template is None:
        spec["directory"] = os.path.abspath(os.path.expanduser(directory or "."))
    given = {
        "command": _checked_command(command) if command or template is None else None,
        "template": template,
        "memory_mb": memory,
        "processes": processes,
        "cpu": cpu,
        "restart": restart,
        "stop_signal": stop_signal,
        "stop_grace_s": stop_grace,
        "port": True if port else None,
        "probe": {"kind": "http", "url": probe_http} if probe_http else None,
    }
    spec |= {key: value for key, value in given.items() if value is not None}
    params = {"spec": spec, "start": start, "wait": wait, "timeout_s": timeout}
    return settle(invocation, invocation.call("bots.create", params, timeout=timeout + GRACE_S))


def own_name() -> str:
    """The user that a bare bot name belongs to: the caller's name, found in the way in which botd finds it."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name.lower()
    except KeyError:
        name = ""
    return name if is_user(name) else f"uid{os.geteuid()}"


def full_id(id: str) -> str:
    """`user/name` of what was typed. Raises BotdError(invalid)."""
    full = id if "/" in id else f"{own_name()}/{id}"
    if not is_bot_id(full):
        user, _, name = full.partition("/")
        rule = f"a name is {NAME_RULE}" if "/" not in name and user else f"an id is user/name; a user is {USER_RULE}"
        raise invalid("", f"{full!r} is no bot id", hint=rule)
    return full


def _checked_command(command: list[str]) -> list[str]:
    if not command:
        raise invalid(
            "",
            "no command is given: what shall the bot run?",
            hint="put it after --, as in: botctl create shop -- python3 bot.py",
        )
    if len(command) == 1 and any(char.isspace() for char in command[0]) and not os.path.exists(command[0]):
        words = command[0].split()
        raise invalid(
            "",
            f"the command is one string, {command[0]!r}, and no program has that name",
            hint=f"write it without quotes: -- {' '.join(words)}   (or: -- sh -c '...' for a shell)",
        )
    return command


def _table(option: str, given: Sequence[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            # The text may be a secret by itself: only the option is named, never the text.
            raise invalid("", f"{option} wants KEY=VALUE", hint=f"write {option} KEY=VALUE")
        if key in out:
            raise invalid("", f"{option} {key} is given twice", hint="give it once")
        out[key] = value
    return out


COMMANDS = (
    Command(
        "create",
        create,
        "Add a bot: a program, its folder and how to treat it.",
        Argument("id", help="user/name, or a bare name for a bot of your own."),
        Argument(
            "command", metavar="COMMAND...", many=True, required=False, help="The program and its arguments, after --."
        ),
        Option("-t", "--template", metavar="NAME", help="The template that brings its code and its defaults."),
        Option("-C", "--directory", metavar="DIR", help="The folder it runs in; not with a template. [default: .]"),
        Option("-e", "--env", many=True, metavar="K=V", help="A variable of its environment."),
        Option(
            "--secret",
            many=True,
            metavar="NAME=FILE",
            help="A variable whose value is read from a file and never shown.",
        ),
        Option("-l", "--label", many=True, metavar="K=V", help="A label to select it by."),
        Option(
            "-m",
            "--memory",
            kind="whole",
            low=1,
            high=1_048_576,
            metavar="MB",
            help="Memory limit; over it, it is restarted.",
        ),
        Option(
            "--processes",
            kind="whole",
            low=1,
            high=4_194_304,
            metavar="N",
            help="The most processes and threads it may have.",
        ),
        Option("--cpu", kind="number", low=0.01, high=1024, metavar="CORES", help="Processors it may keep busy."),
        Option("--restart", choices=RESTART_MODES, help="When to start it again after it ended."),
        Option("--port", kind="flag", help="Give it a stable loopback port, in PORT."),
        Option("--stop-signal", choices=STOP_SIGNALS, help="How to ask it to end."),
        Option("--stop-grace", kind="number", low=0, high=3600, metavar="S", help="How long it may take to end."),
        Option("--probe-http", metavar="URL", help="Healthy when this answers, as in http://127.0.0.1:{port}/health."),
        Option("--start", kind="flag", help="Start it at once."),
        WAIT,
        TIMEOUT,
        examples=(
            ("botctl create shop --start -- python3 bot.py", "your own, in this folder"),
            ("botctl create alice/shop -t messenger --start", "of a template, see: botctl template"),
            ("botctl create alice/shop -e PREFIX=! --secret TOKEN=token.txt -- node bot.js", "with a secret"),
        ),
        changes=True,
    ),
)
