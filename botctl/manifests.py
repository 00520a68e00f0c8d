"""Reading a fleet.toml with the rights of whoever calls: TOML, defaults, secrets."""

from __future__ import annotations

import os
import tomllib

from botctl.secrets import read_secret
from botd.contract.errors import BotdError, invalid
from botd.contract.manifest import expand, templates
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MANIFEST_MAX = 16 << 20


def read(path: str) -> tuple[str, list[dict[str, Any]], list[dict[str, str]]]:
    """The manifest's absolute path, which names it to the daemon, its bots ready to be sent, and its templates.

    Raises BotdError(invalid, exit 9) with the file, and the line or the key that is wrong.
    """
    source = os.path.abspath(os.path.expanduser(path))
    document = _parse(source, _content(source))
    try:
        bots = expand(document, os.path.dirname(source))
        shared = templates(document, os.path.dirname(source))
    except BotdError as error:
        raise _located(source, error) from None
    for i, bot in enumerate(bots):
        secrets = bot.get("secrets", {})
        bot["secrets"] = {
            name: read_secret(value["file"], f"{source}: bot[{i}].secrets.{name}", exit=Exit.INVALID)
            for name, value in secrets.items()
        }
    return source, bots, shared


def _content(source: str) -> str:
    try:
        with open(source, "rb") as file:
            data = file.read(_MANIFEST_MAX + 1)
    except OSError as error:
        raise invalid(
            source,
            f"cannot be read: {error.strerror}",
            hint="name the manifest with -f, as in: -f fleet.toml",
            exit=Exit.INVALID,
        ) from None
    if len(data) > _MANIFEST_MAX:
        raise invalid(source, f"larger than {_MANIFEST_MAX >> 20} MiB", exit=Exit.INVALID)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise invalid(source, f"not UTF-8 text (line {line})", exit=Exit.INVALID) from None


def _parse(source: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also a number of thousands of digits
        # tomllib tells line and column in its message.
        raise invalid(
            source,
            f"not TOML: {error}",
            hint="look at that line; https://toml.io explains the format",
            exit=Exit.INVALID,
        ) from None
    except RecursionError:
        raise invalid(source, "nested too deeply", exit=Exit.INVALID) from None


def _located(source: str, error: BotdError) -> BotdError:
    return BotdError(
        error.kind,
        f"{source}: {error.message}",
        hint=error.hint,
        exit=error.exit,
        details={**error.details, "file": source},
    )
