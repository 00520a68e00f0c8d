"""daemon install: botd as a service of systemd."""

from __future__ import annotations

import os
import sys

from botctl.options import Command, Option
from botctl.render.terminal import GREEN
from botd.contract.errors import BotdError, invalid
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.invocation import Invocation

_PATHS = ("BOTD_SOCKET", "BOTD_CONFIG")
_SYSTEM = "/etc/systemd/system/botd.service"

# KillMode=process: stopping or upgrading botd must not take the bots along; they belong to the keeper.
# StartLimitIntervalSec=0: a botd that cannot start is tried again for ever, where it knows how (systemd 254) at growing
# distances; the bots run meanwhile. OOMPolicy=continue: a bot that the kernel ends is the keeper's business.
# Delegate=yes: the cgroups beneath the service are ours, so that a bot ends with its whole tree at once.
_UNIT = """\
[Unit]
Description=botd, the fleet manager for chat bots
Documentation=man:systemd.kill(5)
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} -P -m botd run
{environment}
KillMode=process
Restart=always
RestartSec=500ms
RestartSteps=6
RestartMaxDelaySec=30
Delegate=yes
OOMPolicy=continue
{protection}LimitNOFILE=65536

[Install]
WantedBy={target}
"""


def install(invocation: Invocation, *, user: bool, only_print: bool) -> int:
    unit = _unit(invocation.paths.home, user=user)
    if only_print:
        invocation.out.write(unit)
        return Exit.OK
    if not user and os.geteuid() != 0:
        raise BotdError(
            "denied",
            f"only root may write {_SYSTEM}",
            hint="sudo botctl daemon install, or for yourself: botctl daemon install --user",
        )
    path = _user_path() if user else _SYSTEM
    written = _write(invocation, path, unit)
    control = "systemctl --user" if user else "systemctl"
    out = invocation.out
    if not invocation.quiet:
        mark = out.paint(out.pick("✔", "+"), GREEN) if written else "="
        out.line(f"{mark} {path} {'written' if written else 'is as it should be'}")
        out.line("next:")
        out.line(f"  {control} daemon-reload")
        out.line(f"  {control} enable --now botd")
        if user:
            out.line("  loginctl enable-linger    # bots run on after you log out")
    return Exit.OK


def _unit(home: str, *, user: bool) -> str:
    # What the caller has set for the fleet has to hold for the service as well.
    settings = {"BOTD_HOME": home}
    settings |= {key: os.path.abspath(os.environ[key]) for key in _PATHS if os.environ.get(key)}
    for text in (*settings.values(), sys.executable):
        if any(ord(char) < 0x20 for char in text):
            raise invalid("", f"a path with control characters cannot stand in a unit: {text!r}")
    return _UNIT.format(
        python=_quoted(sys.executable),
        environment="\n".join(f"Environment={_quoted(f'{key}={value}')}" for key, value in settings.items()),
        # A service manager of a user may not lower it, and would refuse to start the service.
        protection="" if user else "OOMScoreAdjust=-500\n",
        target="default.target" if user else "multi-user.target",
    )


def _quoted(word: str) -> str:
    """A word of a unit file: % is a specifier there, $ a variable, a blank ends it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word


def _user_path() -> str:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "systemd/user/botd.service")


def _write(invocation: Invocation, path: str, unit: str) -> bool:
    """Write the unit, all of it or nothing; says whether there was anything to write."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            present = file.read()
    except FileNotFoundError:
        present = None
    except OSError as error:
        raise BotdError("denied", f"cannot read {path}: {error.strerror}") from None
    if present == unit:
        return False
    if present is not None:
        invocation.confirm(f"{path} exists and differs; overwrite it?", dry_run=False)
    new = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(new, "w", encoding="utf-8") as file:
            file.write(unit)
        os.replace(new, path)
    except OSError as error:
        raise BotdError("denied", f"cannot write {path}: {error.strerror}", hint="--print shows the unit") from None
    return True


COMMANDS = (
    Command(
        "daemon install",
        install,
        "Write a systemd unit that keeps botd running. Stopping the service leaves the bots running.",
        Option("--user", kind="flag", help="A service of your own, in ~/.config/systemd/user."),
        Option("--print", name="only_print", kind="flag", help="Print the unit and write nothing."),
        examples=(("sudo botctl daemon install", "for the machine"), ("botctl daemon install --user", "for yourself")),
        changes=True,
    ),
)
