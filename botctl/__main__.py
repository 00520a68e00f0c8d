"""The entry of botctl. Nothing heavy is imported before it is known to be needed.

An ordinary call is parsed by `options.parse` and runs at once. Help, mistakes and unusual spellings
go to the Typer application in `botctl.app`, which is built from the same declarations.
"""

from __future__ import annotations

import os
import sys

from botctl.options import GLOBAL, GLOBAL_NAMES, YES, parse
from botctl.tree import NOUNS, find
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from botctl.options import Command

# 128 + SIGPIPE: what a shell reports of any program whose reader went away.
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run botctl with these arguments (default: the process's own) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding cannot show is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _guarded(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():
            _say("")  # the prompt belongs below the terminal's ^C, not beside it
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        # /dev/full, a full disk behind a redirection: only writing to stdout can end up here.
        _abandon_stdout()
        _say(f"botctl: cannot write the output: {error.strerror or error}")
        return Exit.FAILED


def _guarded(words: list[str]) -> int:
    try:
        return _run(words)
    except BotdError as error:
        from botctl.render.failure import report

        return report(error, words)
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a person
        from botctl.render.failure import report_bug

        return report_bug(error, words)


def _run(words: list[str]) -> int:
    call = _quick(words)
    if call is None:
        from botctl.app import understand

        call = understand(words)
    return Exit.OK if call is None else _invoke(*call)


def _quick(words: list[str]) -> tuple[Command, dict[str, Any]] | None:
    """The command and values of an ordinary call; None leaves it to Typer."""
    before = _leading(words)
    if before is None or before == len(words):
        return None
    verb, rest = words[before], words[before + 1 :]
    if verb in NOUNS:
        if not rest:
            return None
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    command = find(verb)
    if command is None:
        return None
    values = parse(command, [*words[:before], *rest])
    return None if values is None else (command, values)


def _leading(words: list[str]) -> int | None:
    """How many words of global options stand before the verb."""
    valued = {flag: option.kind != "flag" for option in (YES, *GLOBAL) for flag in option.flags}
    i = 0
    while i < len(words) and words[i].startswith("-"):
        flag, equals, _ = words[i].partition("=")
        if flag not in valued:
            return None
        i += 2 if valued[flag] and not equals else 1
    return i if i <= len(words) else None


def _invoke(command: Command, values: dict[str, Any]) -> int:
    """Run a command with its values, the global options among them. Returns its exit status."""
    from botctl.invocation import Invocation

    own = {name: value for name, value in values.items() if name not in GLOBAL_NAMES}
    invocation = Invocation(
        output=values.get("output"),
        quiet=values.get("quiet", False),
        yes=values.get("yes", False),
        autostart=not values.get("no_autostart", False),
    )
    try:
        status = command.run(invocation, **own)
        invocation.out.flush()
        return status
    finally:
        invocation.close()


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr)
    except (OSError, ValueError):
        pass  # nobody is left to be told


def _abandon_stdout() -> None:
    """Let nothing be written any more, also not by the interpreter when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # stdout is closed already


if __name__ == "__main__":
    sys.exit(main())
