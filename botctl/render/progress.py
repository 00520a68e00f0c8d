"""A progress bar for calls over many bots or of some length; nothing at all for the rest.

rich is imported when the bar first shows, so that a short call never pays for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation

MANY = 5


class Watch:
    """Gives a call its `on_notification` and `on_silence`; a context manager that takes the bar away.

    `wanted` says whether there is anybody to show it to. `of_bytes`: what is counted is bytes.
    """

    __slots__ = ("_bar", "_err", "_of_bytes", "_task", "_title", "wanted")

    def __init__(self, invocation: Invocation, title: str, *, of_bytes: bool = False) -> None:
        self.wanted = invocation.err.is_tty and not invocation.quiet
        self._err = invocation.err
        self._title = title
        self._of_bytes = of_bytes
        self._bar: Any = None
        self._task: Any = None

    def on_notification(self, method: str, params: dict[str, Any]) -> None:
        if method != "progress" or not self.wanted:
            return
        done, total = params.get("done"), params.get("total")
        if not isinstance(done, int) or not isinstance(total, int):
            return
        if self._bar is None and total > MANY:
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None)

    def retitle(self, title: str) -> None:
        """What is being done now."""
        self._title = title
        if self._bar is not None:
            self._bar.update(self._task, description=title)

    def on_silence(self) -> None:
        if self.wanted and self._bar is None:
            self._show()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        console = Console(file=self._err.stream, no_color=not self._err.color, safe_box=not self._err.unicode)
        spinner = SpinnerColumn("dots" if self._err.unicode else "line")
        count = DownloadColumn(binary_units=True) if self._of_bytes else MofNCompleteColumn()
        columns = (spinner, TextColumn("{task.description}"), BarColumn(), count, Elapsed())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(self._title, total=None)
        self._bar.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
