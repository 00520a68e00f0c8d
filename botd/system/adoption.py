"""What a running process tells of a bot whose record is lost: its command, its folder, its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from botd.core.bot import Spec
from botd.core.environment import ALLOWED

_GIVEN = frozenset((*ALLOWED, "HOME", "BOT_ID", "BOT_USER", "BOT_NAME", "BOT_DATA", "PORT"))
"""What botd puts into every environment; it does so again at the next start."""


class Adopted(NamedTuple):
    """`secrets`: its whole environment. Which of it is secret only the lost record knew, so all of it is."""

    spec: Spec
    secrets: Mapping[str, str]
    port: int | None


def adopt(bot_id: str, pid: int) -> Adopted | None:
    """The bot that process `pid` is a life of; None when the process does not tell."""
    try:
        command = _words(f"/proc/{pid}/cmdline")
        environ = dict(word.split("=", 1) for word in _words(f"/proc/{pid}/environ") if "=" in word)
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    # It may have written over both; its id is in the environment that it was started with.
    if not command or environ.get("BOT_ID") != bot_id or not directory.startswith("/"):
        return None
    port = environ.get("PORT", "")
    number = int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else None
    secrets = {name: value for name, value in environ.items() if name and name not in _GIVEN}
    spec = Spec(
        bot_id,
        tuple(command),
        directory.removesuffix(" (deleted)"),
        secret_names=tuple(sorted(secrets)),
        wants_port=number is not None,
    )
    return Adopted(spec, secrets, number)


def _words(path: str) -> list[str]:
    with open(path, "rb") as file:
        data = file.read()
    return [os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0")] if data else []
