"""One call of botctl: its global options, its streams, its connection."""

from __future__ import annotations

import os
import sys
import time

from botctl.client import READ_PATIENCE_S, connect
from botctl.render.terminal import Terminal
from botd.contract.errors import BotdError
from botd.contract.paths import resolve
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from botctl.client import Client, Notify
    from botd.contract.paths import Paths


class Invocation:
    """What every command is given. `output` is None unless -o was used.

    `never_start` is set by commands that only look at the daemon and must not bring it to life.
    """

    __slots__ = ("_client", "_paths", "autostart", "err", "out", "output", "quiet", "yes")

    def __init__(
        self, *, output: str | None = None, quiet: bool = False, yes: bool = False, autostart: bool = True
    ) -> None:
        self.output = output
        self.quiet = quiet
        self.yes = yes
        self.autostart = autostart and os.environ.get("BOTCTL_AUTOSTART") != "0"
        self.out = Terminal(sys.stdout, os.environ)
        self.err = Terminal(sys.stderr, os.environ)
        self._client: Client | None = None
        self._paths: Paths | None = None

    @property
    def paths(self) -> Paths:
        if self._paths is None:
            self._paths = resolve(os.environ, os.geteuid())
        return self._paths

    @property
    def for_people(self) -> bool:
        """Whether the output is a table."""
        return self.output in (None, "table", "wide")

    def client(self, *, autostart: bool = True) -> Client:
        """The connection, made at the first need. Raises BotdError."""
        if self._client is None:
            self._client = connect(self.paths, autostart=self.autostart and autostart)
        return self._client

    def reconnect(self, patience: float, pause: float = 0.05) -> Client:
        """A new connection to a daemon that went away and comes back within so many seconds; it is not started here.

        Raises BotdError(unavailable) when the time is over, and at once for what waiting does not mend.
        """
        self.close()
        self._client = None
        deadline = time.monotonic() + patience
        while True:
            try:
                self._client = connect(self.paths, autostart=False)
                return self._client
            except BotdError as error:
                if error.kind != "unavailable" or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout: float = READ_PATIENCE_S,
        autostart: bool = True,
        on_notification: Notify | None = None,
        on_silence: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """The result of one call, which in this API always is an object. Raises BotdError."""
        result = self.client(autostart=autostart).call(
            method, params or {}, timeout=timeout, on_notification=on_notification, on_silence=on_silence
        )
        if not isinstance(result, dict):
            raise BotdError(
                "internal",
                f"botd answered {method} with something that is no object",
                hint="botctl and botd may be of different versions: botctl version",
            )
        return result

    def note(self, text: str) -> None:
        """A remark for whoever watches: on stderr, and only when that is a terminal."""
        if self.err.is_tty and not self.quiet and self.for_people:
            self.out.flush()
            self.err.line(text)

    def warn(self, text: str) -> None:
        """A line on stderr, also in a cron job's mail."""
        self.out.flush()
        self.err.line(text)

    def confirm(self, question: str, *, stdin_used: bool = False, dry_run: bool = True) -> None:
        """Return when the answer is yes. Raises BotdError: no (exit 1), or nobody to ask (exit 2).

        `dry_run`: whether the command has that option, to name it where nobody can be asked.
        """
        if self.yes:
            return
        if stdin_used or sys.stdin is None or not sys.stdin.isatty() or not self.err.is_tty:
            raise BotdError(
                "invalid",
                f"{question} There is no terminal to ask on",
                hint="say --yes to go ahead" + (", or --dry-run to see what would happen" if dry_run else ""),
                exit=Exit.USAGE,
            )
        self.out.flush()
        self.err.write(f"{question} [y/N] ")
        self.err.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise BotdError("conflict", "nothing was changed", exit=Exit.FAILED)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
