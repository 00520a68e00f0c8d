"""A release is made in a child of the lowest priority: botd answers others meanwhile, and its memory stays small.

The child dies with botd, and is ended when whoever asked hangs up; what it has not finished is not there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.contract.vocabulary import KINDS, Kind
from botd.crash import crash_point
from botd.succession import PACKAGES

log = logging.getLogger("botd.server")

_LINE_MAX = 16 << 20
"""Bytes of one line of the child: its answer names what it left out."""


async def add(
    paths: Paths,
    template: str,
    source: str,
    manifest: str | None,
    progress: Callable[[dict[str, Any]], None],
    *,
    dry: bool = False,
) -> dict[str, Any]:
    """Make a release of what is at `source`: the fields of `storage.releases.Added`. Raises BotdError.

    `progress` gets {files, bytes, total_files, total_bytes} now and then. With `dry` nothing is kept.
    """
    words = [f"--parent={os.getpid()}", f"--home={paths.home}", f"--template={template}", f"--source={source}"]
    words += [f"--manifest={manifest}"] if manifest is not None else []
    words += ["--dry-run"] if dry else []
    # The packages of this botd, whatever else is installed: -m looks in the working folder first.
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "botd.storage.releases", "add", *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=_LINE_MAX,
        cwd=PACKAGES,
        start_new_session=True,
    )
    crash_point("botd-template-asked")
    try:
        return await _answer(child, progress)
    finally:
        if child.returncode is None:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it has started: pip, a compiler
            except ProcessLookupError:
                pass  # ended by itself this moment
        await child.wait()


async def _answer(child: asyncio.subprocess.Process, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    assert child.stdout is not None
    try:
        while line := await child.stdout.readline():
            told = json.loads(line)
            if "result" in told:
                result: dict[str, Any] = told["result"]
                return result
            if "error" in told:
                raise _error(told["error"])
            progress(told)
    except ValueError as error:  # no JSON, or a line without an end
        log.error("a release cannot be made: its child says %s", error)
    status = await child.wait()
    raise BotdError(
        "internal",
        f"the release was not made: its process ended with {status}",
        hint="was it killed, is the disk or the memory full? Then try again: nothing of it is left",
    )


def _error(told: dict[str, Any]) -> BotdError:
    kind: Kind = told["kind"] if told.get("kind") in KINDS else "internal"
    return BotdError(kind, str(told.get("message")), hint=str(told.get("hint") or ""), exit=told.get("exit"))
