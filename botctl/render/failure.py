"""How a call that failed as a whole is told: to people on stderr, to programs as a document."""

from __future__ import annotations

import os
import sys

from botctl import wire
from botctl.render.terminal import BOLD, DIM, RED, Terminal, clean
from botd.contract import SCHEMA
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from botd.contract.errors import BotdError


def report(error: BotdError, words: Sequence[str]) -> int:
    """Tell it in the way that the call's arguments ask for; returns the exit status."""
    if "--debug" in _own(words):
        _traceback(error)
    if _wants_json(words) and sys.stdout is not None:
        told = {"kind": error.kind, "message": error.message, "hint": error.hint, "exit": error.exit}
        if error.retry_after_s is not None:
            told["retry_after_s"] = error.retry_after_s
        if error.details:
            told["details"] = error.details
        sys.stdout.write(wire.encode({"schema": SCHEMA, "error": told}) + "\n")
        sys.stdout.flush()
    tell(Terminal(sys.stderr, os.environ), error.message, error.hint)
    return error.exit


def tell(terminal: Terminal, message: str, hint: str) -> None:
    """`botctl: what and why`, and under it what to try."""
    lines = message.splitlines() or ["failed"]
    terminal.line(f"{terminal.paint('botctl:', RED, BOLD)} {clean(lines[0])}")
    for line in lines[1:]:
        terminal.line(f"  {clean(line)}")
    if hint:
        # "did you mean ...?" is a question already.
        asks = hint.startswith("did you mean")
        terminal.line(f"  {clean(hint)}" if asks else f"  {terminal.paint('try:', DIM)} {clean(hint)}")


def report_bug(error: Exception, words: Sequence[str]) -> int:
    """Something that should never happen: said in one line, with the traceback only where asked for."""
    if "--debug" in _own(words):
        _traceback(error)
    name = type(error).__name__
    tell(
        Terminal(sys.stderr, os.environ),
        f"an error in botctl itself: {name}: {error}" if str(error) else f"an error in botctl itself: {name}",
        "the same command with --debug shows where; please report it",
    )
    return Exit.FAILED


def _own(words: Sequence[str]) -> Sequence[str]:
    """The words before `--`: those after it belong to a bot."""
    return words[: words.index("--")] if "--" in words else words


def _wants_json(words: Sequence[str]) -> bool:
    own = _own(words)
    if {"-ojson", "--output=json"}.intersection(own):
        return True
    # itertools.pairwise would read the same and cost an import on the way to every error.
    return any(flag in ("-o", "--output") and own[i : i + 1] == ["json"] for i, flag in enumerate(own, 1))


def _traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)
