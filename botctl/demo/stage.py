"""What the demo looks like: headlines, commands with their output, claims, tables, the last word."""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table

from botctl.demo.indent import Indented
from botctl.render.table import Column, draw
from botctl.render.terminal import Terminal

_WIDEST = 110


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Stage:
    """Everything that is printed goes through here, and nothing any more once it was `silence`d.

    `claims` collects what was asserted and whether it was true.
    """

    def __init__(self, terminal: Terminal, *, pause_s: float) -> None:
        self._terminal = terminal
        self._pause_s = pause_s
        self._console = _Console(
            file=terminal.stream,
            no_color=not terminal.color,
            highlight=False,
            emoji=False,
            legacy_windows=False,
        )
        self._console.width = min(self._console.width, _WIDEST)
        self._began = time.monotonic()
        self.claims: list[tuple[str, bool]] = []

    @property
    def columns(self) -> int | None:
        """The width of the terminal that a command gets; None where there is none."""
        return self._console.width - 2 if self._terminal.is_tty else None

    @property
    def color(self) -> bool:
        return self._terminal.color

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def silence(self) -> None:
        """Nobody listens any more; the work goes on without a word."""
        self._console.quiet = True
        self._terminal = Terminal(None, {})

    # --- words ----------------------------------------------------------------------------------------

    def title(self, text: str, below: str) -> None:
        self._console.print(Panel(f"[bold]{escape(text)}[/]\n{escape(below)}", box=self._box(), border_style="cyan"))

    def headline(self, number: int, of: int, title: str, why: str) -> None:
        dash = self._terminal.pick("─", "-")
        self._console.print()
        self._console.print(
            Rule(f"[bold cyan]{number}/{of}[/]  [bold]{escape(title)}[/]", align="left", style="cyan", characters=dash)
        )
        self._line(escape(why), style="dim")
        self._console.print()

    def say(self, text: str = "", style: str = "") -> None:
        """A line of prose."""
        self._line(escape(text), style=style)

    def fact(self, name: str, value: str) -> None:
        """What was prepared: a name and what it is."""
        mark = self._terminal.pick("✔", "+")
        self._line(f"[green]{mark}[/] {escape(name):<11} {escape(value)}")

    def claim(self, text: str, true: bool) -> bool:
        """Say that something is so, having looked. Returns whether it was."""
        self.claims.append((text, true))
        if true:
            self._line(f"[bold green]{self._terminal.pick('✔', '+')}[/] {escape(text)}")
        else:
            self._line(f"[bold red]{self._terminal.pick('✖', 'x')} NOT TRUE:[/] {escape(text)}")
        return true

    def command(self, line: str, note: str = "") -> None:
        """A command line, as one would type it."""
        remark = f"   [dim]# {escape(note)}[/]" if note else ""
        self._line(f"[bold green]$[/] [bold]{escape(line)}[/]{remark}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
        """`right` names the columns of numbers."""
        drawn = io.StringIO()
        page = Terminal(drawn, {})
        page.color, page.unicode, page.width = self._terminal.color, self._terminal.unicode, self.columns
        draw(page, [Column(title, right=title in right, flexible=title not in right) for title in columns], rows)
        self.say()
        self.output().feed(drawn.getvalue())
        self.say()

    def summary(self, title: str, rows: Sequence[tuple[str, str]], *, good: bool) -> None:
        inner = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        inner.add_column(style="bold", no_wrap=True)
        inner.add_column()
        for name, value in rows:
            inner.add_row(escape(name), escape(value))
        style = "green" if good else "red"
        self._console.print()
        self._console.print(
            Panel(
                inner,
                title=f"[bold]{escape(title)}[/]",
                title_align="left",
                border_style=style,
                box=self._box(),
                expand=False,
            )
        )

    def last(self, text: str, *, good: bool) -> None:
        mark = self._terminal.pick("✔", "+") if good else self._terminal.pick("✖", "x")
        self._line(f"{mark} {escape(text)}", style="bold green" if good else "bold red")

    def _line(self, markup: str, style: str = "") -> None:
        """One line, broken between words where a person reads it and left whole where a program does."""
        self._console.print(markup, style=style, soft_wrap=not self._terminal.is_tty)

    def _box(self) -> box.Box:
        return box.ROUNDED if self._terminal.unicode else box.ASCII

    # --- time and output ------------------------------------------------------------------------------

    def pause(self) -> None:
        """A moment to read, where somebody reads."""
        if self._terminal.is_tty and self._pause_s:
            self.flush()
            time.sleep(self._pause_s)

    def output(self) -> Indented:
        """Where the output of a command goes."""
        return Indented(self._raw, self._console.width if self._terminal.is_tty else None)

    def _raw(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()

    def restore(self) -> None:
        """A command that was cut short may have left the cursor hidden, a colour on, a line half drawn."""
        if self._terminal.is_tty:
            self._raw("\r\x1b[2K\x1b[0m\x1b[?25h")

    def flush(self) -> None:
        self._terminal.flush()


def shown(words: Sequence[str]) -> str:
    """A botctl command as one types it in a shell."""
    return f"botctl {shlex.join(words)}"
