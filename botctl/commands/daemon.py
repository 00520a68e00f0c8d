"""daemon start, stop, status, logs: botd itself."""

from __future__ import annotations

import os
import time

from botctl.commands.actions import GRACE_S, TIMEOUT
from botctl.options import Command, Option
from botctl.render.documents import document, printed
from botctl.render.mechanisms import in_words
from botctl.render.panel import part, warnings
from botctl.render.phases import symbol
from botctl.render.table import pairs
from botctl.render.terminal import BOLD, GREEN, clean
from botctl.render.units import duration, number, plural
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal
    from botd.contract.paths import Paths

_TAIL_MAX = 4 << 20
_POLL_S = 0.25
END_S = 10.0


def start(invocation: Invocation, *, config: str | None) -> int:
    try:
        result = invocation.call("daemon.status", autostart=False)
        started = False
    except BotdError as error:
        if error.kind != "unavailable":
            raise
        result = _started(invocation, config)
        started = True
    if not printed(invocation, {**result, "started": started}, key="pid") and not invocation.quiet:
        out = invocation.out
        mark = out.paint(out.pick("✔", "+"), GREEN) if started else "="
        out.line(f"{mark} botd {'started' if started else 'already running'} (pid {result.get('pid')})")
        warnings(invocation.err, result.get("warnings"))
    return Exit.OK


def _started(invocation: Invocation, config: str | None) -> dict[str, Any]:
    from botctl.autostart import start_daemon

    invocation.paths.check_socket()
    start_daemon(invocation.paths, os.path.abspath(config) if config else None)
    return invocation.call("daemon.status", autostart=False)


def stop(invocation: Invocation, *, bots: bool, timeout: float) -> int:
    try:
        invocation.client(autostart=False)
    except BotdError as error:
        if error.kind != "unavailable":
            raise
        alone = _alone(invocation.paths)
        if not (bots and alone):
            if not invocation.quiet and invocation.for_people:
                running = f"; {plural(alone, 'bot')} left running" if alone else ""
                invocation.out.line(f"= botd is not running{running}")
            elif invocation.output == "json":
                document(invocation.out, {"stopped": False, "bots_left": alone})
            return Exit.OK
    if bots:
        invocation.confirm("Stop every bot and botd?", dry_run=False)
        # Bots may run without botd, and only botd knows how each of them wants to be stopped.
        invocation.client()
    params = {"bots": bots, "timeout_s": timeout}
    process = _process(invocation.paths)
    result = invocation.call("daemon.shutdown", params, timeout=timeout + GRACE_S, autostart=False)
    if process is not None:
        _await_end(process)
    left = result.get("bots_left")
    if not printed(invocation, {**result, "stopped": True}, key="pid") and not invocation.quiet:
        out = invocation.out
        running = f"; {plural(left, 'bot')} left running" if isinstance(left, int) and left else ""
        out.line(f"{out.paint(out.pick('✔', '+'), GREEN)} botd stopped{running}")
    return Exit.OK


def _alone(paths: Paths) -> int:
    """How many bots run while there is no botd."""
    from botctl.keeper import ask

    answer = ask(paths).answer
    live = None if answer is None else answer.get("live")
    return live if isinstance(live, int) else 0


def _process(paths: Paths) -> int | None:
    """A pidfd of botd, by what it wrote into its lock, or None where that cannot be told."""
    try:
        with open(paths.daemon_lock, encoding="ascii") as file:
            return os.pidfd_open(int(file.readline()))
    except (OSError, ValueError):
        return None


def _await_end(process: int) -> None:
    """botd answers before it ends. Its database is only whole, and only free to be copied, when it is gone."""
    import select

    try:
        if not select.select([process], [], [], END_S)[0]:
            text = f"botd said that it would end and has not within {END_S:g} s"
            raise BotdError("timeout", text, hint="botctl daemon logs")
    finally:
        os.close(process)


def status(invocation: Invocation) -> int:
    try:
        result = invocation.call("daemon.status", autostart=False)
    except BotdError as error:
        if "not running" not in error.message:
            raise
        from botctl.absence import absent

        raise absent(invocation.paths) from None
    if not printed(invocation, result, key="pid"):
        _show(invocation.out, result)
    return Exit.OK


def _show(out: Terminal, daemon: dict[str, Any]) -> None:
    keeper, bots = part(daemon, "keeper"), part(daemon, "bots")
    head = f"{out.paint(symbol(out, 'running'), GREEN)} {out.paint('botd', BOLD)}"
    out.line(f"{head} - running for {duration(daemon.get('uptime_s'))}")
    connected = "" if keeper.get("connected", True) else ", NOT CONNECTED"
    version = f"{daemon.get('version')} (protocol {daemon.get('protocol')})"
    facts: list[tuple[str, Cell]] = [
        ("PID", _text(daemon.get("pid"))),
        ("Version", version if daemon.get("version") else ""),
        ("User", _user(daemon.get("user"))),
        ("Home", _text(daemon.get("home"))),
        ("Socket", _text(daemon.get("socket"))),
        ("Config", _source(daemon.get("config"))),
        ("Keeper", f"pid {keeper['pid']}{connected}" if keeper.get("pid") else ""),
        ("Containment", _text(keeper.get("containment"))),
        ("Limits", in_words(daemon)),
        ("Bots", f"{number(bots.get('running'))} of {number(bots.get('total'))} running" if bots else ""),
        ("Upgrade", _last_upgrade(part(daemon, "upgrade"))),
        ("Open files", _text(part(daemon, "limits").get("nofile"))),
    ]
    pairs(out, facts, indent=2)
    warnings(out, daemon.get("warnings"))


def _last_upgrade(upgrade: dict[str, Any]) -> str:
    if not upgrade:
        return ""
    words = f"{upgrade.get('from')} to {upgrade.get('to')}, {upgrade.get('at')}: {upgrade.get('state')}"
    return clean(f"{words}: {upgrade['reason']}" if upgrade.get("reason") else words)


def _user(user: object) -> str:
    return f"uid {user.get('uid')}" if isinstance(user, dict) else _text(user)


def _source(config: object) -> str:
    return _text(config.get("source") if isinstance(config, dict) else config)


def _text(value: object) -> str:
    return "" if value is None else clean(str(value))


def logs(invocation: Invocation, *, lines: int, follow: bool) -> int:
    """The daemon's own log, read from its file: also of a daemon that does not answer."""
    path = invocation.paths.daemon_log
    try:
        # Follows beyond this call; _follow may put another file in its place.
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise BotdError("not_found", f"there is no log at {path}", hint="botctl daemon start") from None
    except OSError as error:
        raise BotdError("denied", f"cannot read {path}: {error.strerror}", hint="run it as the owner") from None
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_MAX))
        tail = file.read().splitlines(keepends=True)
        _write(invocation.out, b"".join(tail[-lines:] if lines else []))
        if follow:
            _follow(invocation.out, file, path)
    return Exit.OK


def _write(out: Terminal, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if out.is_tty:
        text = "".join(clean(line) + "\n" for line in text.splitlines())
    out.write(text)
    out.flush()


def _follow(out: Terminal, file: Any, path: str) -> None:
    """Print what is added, and go on with the new file after a rotation."""
    while True:
        data = file.readline()
        if data:
            _write(out, data)
            continue
        try:
            now = os.stat(path)
        except OSError:
            now = None
        if now is not None and now.st_ino != os.fstat(file.fileno()).st_ino:
            file.close()
            file = open(path, "rb")  # noqa: SIM115
        elif now is not None and now.st_size < file.tell():
            file.seek(0)
        else:
            time.sleep(_POLL_S)


COMMANDS = (
    Command(
        "daemon start",
        start,
        "Start botd in the background and wait until it answers.",
        Option("--config", metavar="FILE", help="The configuration file."),
        examples=(("botctl daemon start --config bot_config.json", "with a configuration of its own"),),
        changes=True,
    ),
    Command(
        "daemon stop",
        stop,
        "Stop botd. Bots run on, and the next botd takes them over.",
        Option("--bots", kind="flag", help="Stop every bot too. Asks first."),
        TIMEOUT,
        examples=(("botctl daemon stop --bots --yes", "nothing runs afterwards"),),
        changes=True,
    ),
    Command("daemon status", status, "Show botd: its process, its paths, what it warns about."),
    Command(
        "daemon logs",
        logs,
        "Show botd's own log.",
        Option("-n", "--lines", kind="whole", default=100, low=0, high=100_000, metavar="N", help="The last N lines."),
        Option("-f", "--follow", kind="flag", help="Keep showing new lines until interrupted."),
    ),
)
