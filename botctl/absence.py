"""Why botd is not there, told by those who know: the keeper, and botd's own log."""

from __future__ import annotations

import os
import time

from botctl.keeper import ask
from botctl.render.units import ago, duration, local, plural
from botctl.stopped import is_stopped
from botd.contract.errors import BotdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.keeper import Keeper
    from botd.contract.paths import Paths

_LINES = 5
_TAIL_MAX = 16 * 1024
_TRIED = 3
"""So many starts in a row that came to nothing are a loop."""


def absent(paths: Paths) -> BotdError:
    """What `daemon status` says when botd does not answer; the facts are in its details. Exit status 7."""
    keeper = ask(paths)
    if keeper.pid is not None and keeper.answer is None:
        return _silent(paths, keeper)
    if keeper.answer is None:
        text = f"botd is not running; its home is {paths.home}"
        return _error(text, "botctl daemon start", {"state": "absent", "home": paths.home})
    botd, bots = keeper.answer["botd"], keeper.answer.get("live")
    facts = {"home": paths.home, "keeper": {"pid": keeper.pid}, "bots_running": bots, **botd}
    state, lines = botd.get("state"), []
    hint = "botctl daemon start (tries now and says the result); botctl daemon logs"
    if state == "connected":
        text = f"botd runs (pid {botd.get('pid')}), but nothing answers at {paths.socket}"
        hint = f"kill {botd.get('pid')}; then botctl daemon start: a new one makes its socket anew"
    elif state == "unasked":
        text = f"botd is not running; its home is {paths.home}"
        hint = "botctl daemon start"
        if botd.get("since"):
            lines.append(f"it ended {_when(botd)}, as it was asked to")
    else:
        text = f"botd is down since {_when(botd)}; {_next(keeper, botd)}"
        facts["loop"] = int(botd.get("attempt") or 0) > _TRIED
        if facts["loop"]:
            lines.append(f"it has been started {int(botd['attempt']) - 1} times in a row and never stayed for long")
        if botd.get("last_exit"):
            lines.append(f"its last end: {_exit(botd['last_exit'])}")
        if botd.get("said"):
            lines.append(f"it said: {str(botd['said']).removeprefix('botd: ')}")
        facts["log"] = _tail(paths.daemon_log)
        if not botd.get("said"):
            lines += [f"log: {line}" for line in facts["log"]]
    if isinstance(bots, int) and bots:
        lines.append(f"{plural(bots, 'bot')} {'runs' if bots == 1 else 'run'} on under the keeper (pid {keeper.pid})")
    return _error("\n".join([text, *lines]), hint, facts)


def in_trouble(error: BotdError) -> bool:
    """Whether an absence is a fault: somebody wants botd back, and it does not come."""
    return error.details.get("state") not in ("absent", "unasked")


def _error(text: str, hint: str, facts: dict[str, Any]) -> BotdError:
    return BotdError("unavailable", text, hint=hint, details=facts)


def _silent(paths: Paths, keeper: Keeper) -> BotdError:
    stopped = keeper.pid is not None and is_stopped(keeper.pid)
    how = "is stopped (SIGSTOP)" if stopped else "does not answer, or is of a former version"
    text = f"botd is not running, and its keeper (pid {keeper.pid}) {how}; its home is {paths.home}"
    hint = f"kill -CONT {keeper.pid}" if stopped else "botctl daemon start"
    return _error(text, hint, {"state": "silent", "home": paths.home, "keeper": {"pid": keeper.pid}})


def _when(botd: dict[str, Any]) -> str:
    since = botd.get("since")
    return f"{local(since)} ({ago(since, time.time())})" if since else "the keeper knows it"


def _next(keeper: Keeper, botd: dict[str, Any]) -> str:
    if botd.get("state") == "starting":
        return f"the keeper (pid {keeper.pid}) has started it (pid {botd.get('pid')}, attempt {botd.get('attempt')})"
    wait = duration(botd.get("next_s"))
    return f"the keeper (pid {keeper.pid}) tries again in {wait} (attempt {botd.get('attempt')})"


def _exit(last: dict[str, Any]) -> str:
    if not last.get("exact"):
        return "how is not known"
    if last.get("signal") is not None:
        return f"killed by signal {last['signal']}"
    return f"exit status {last.get('code')}"


def _tail(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_MAX))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-_LINES:]
