"""What botd says about the private fleet, asked over its socket: what the demo's claims are checked against."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from botctl.client import connect
from botctl.demo import processes
from botctl.render.documents import items_of
from botctl.render.units import epoch
from botd.contract import selector
from botd.contract.errors import BotdError
from botd.contract.paths import Paths

_POLL_S = 0.005
_STOP_S = 10.0
_LEAVE_S = 3.0

T = TypeVar("T")


class Fleet:
    """A connection for each call, because botd is killed in between. Never starts botd."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._paths = Paths(home)

    def call(self, method: str, timeout: float = 30.0, **params: Any) -> dict[str, Any]:
        """The result of one call. Raises BotdError."""
        client = connect(self._paths, autostart=False)
        try:
            result = client.call(method, params, timeout=timeout)
        finally:
            client.close()
        return result if isinstance(result, dict) else {}

    def bots(self, *selectors: str) -> dict[str, dict[str, Any]]:
        """id -> everything that `bots.list` tells; all bots without a selector."""
        select = selector.parse(list(selectors)) if selectors else {"all": True}
        return {bot["id"]: bot for bot in items_of(self.call("bots.list", select=select, limit=2000))}

    def pids(self, *selectors: str) -> dict[str, int]:
        return {bot_id: bot["pid"] for bot_id, bot in self.bots(*selectors).items() if bot["pid"] is not None}

    def events(self, after: int = 0, *selectors: str) -> list[dict[str, Any]]:
        """Events with a `seq` above `after`, oldest first, each with `at_s`, its time in seconds since the epoch."""
        select = selector.parse(list(selectors)) if selectors else {"all": True}
        events = items_of(self.call("events.list", select=select, lines=10_000, after=after))
        return [event | {"at_s": epoch(event["at"]) or 0.0} for event in events]

    def last_seq(self) -> int:
        return max((event["seq"] for event in items_of(self.call("events.list", lines=1))), default=0)

    def daemon(self) -> dict[str, Any]:
        return self.call("daemon.status")

    def await_daemon(self, but: int, patience_s: float = 30.0) -> int:
        """The pid of a botd that answers and is not `but`."""

        def answers() -> int | None:
            try:
                pid = self.call("daemon.ping", timeout=1.0) and self.daemon()["pid"]
            except BotdError:
                return None
            return pid if isinstance(pid, int) and pid != but else None

        return until(answers, "botd to answer again", patience_s)

    def await_phase(self, bot_id: str, phase: str, patience_s: float = 30.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            bot = self.bots(bot_id)[bot_id]
            return bot if bot["phase"] == phase else None

        return until(reached, f"{bot_id} to be {phase}", patience_s, every_s=0.05)

    def stop(self) -> None:
        """Ask botd to end with all bots, if it is there to be asked, and give everything a moment to go."""
        try:
            self.call("daemon.shutdown", timeout=_STOP_S + 5, bots=True, timeout_s=_STOP_S)
        except BotdError:
            return  # away, or too busy: what it leaves is found and killed
        processes.wait_gone(self._home, _LEAVE_S)


def until(look: Callable[[], T | None], what: str, patience_s: float = 30.0, every_s: float = _POLL_S) -> T:
    """What `look` returns as soon as that is something. Raises BotdError(timeout)."""
    deadline = time.monotonic() + patience_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise BotdError("timeout", f"waited {patience_s:g} s for {what}")
        time.sleep(every_s)
    return found
