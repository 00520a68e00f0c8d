"""How a command is declared, once, and the small parser for its usual forms.

Two readers use the same declaration: `parse` below, which needs no library and serves every ordinary
call, and `botctl.app`, which builds the Typer command with its help, its suggestions and its errors.
What `parse` does not understand it leaves to Typer, so it never has to explain anything.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    Kind = Literal["text", "whole", "number", "flag"]

OUTPUTS = ("table", "wide", "json", "jsonl", "name")


class Option:
    """One option. `flags` are its spellings, the long one last; `off` is the spelling that denies a flag.

    `many` collects every occurrence in a list. `low` and `high` bound a number, both included. `name` is
    the keyword that the command receives it under, by default the long spelling: `--dry-run` -> `dry_run`.
    """

    __slots__ = ("choices", "default", "flags", "help", "high", "kind", "low", "many", "metavar", "name", "off")

    def __init__(
        self,
        *flags: str,
        help: str,
        kind: Kind = "text",
        default: object = None,
        choices: tuple[str, ...] = (),
        metavar: str | None = None,
        off: str | None = None,
        many: bool = False,
        low: float | None = None,
        high: float | None = None,
        name: str | None = None,
    ) -> None:
        self.flags = flags
        self.help = help
        self.kind: Kind = kind
        self.default = False if kind == "flag" and default is None else default
        self.choices = choices
        self.metavar = metavar
        self.off = off
        self.many = many
        self.low = low
        self.high = high
        self.name = name or flags[-1].lstrip("-").replace("-", "_")

    def convert(self, text: str) -> Any:
        """The value that `text` means. Raises ValueError."""
        if self.choices and text not in self.choices:
            raise ValueError(text)
        if self.kind == "text":
            return text
        value = int(text) if self.kind == "whole" else float(text)
        # Written so that NaN, which compares false with everything, is refused.
        if not (value >= (self.low if self.low is not None else float("-inf"))):
            raise ValueError(text)
        if self.high is not None and value > self.high:
            raise ValueError(text)
        return value


class Argument:
    """A positional argument; `many` takes all that are left and stands last."""

    __slots__ = ("choices", "help", "many", "metavar", "name", "required")

    def __init__(
        self,
        name: str,
        *,
        help: str,
        metavar: str | None = None,
        many: bool = False,
        required: bool = True,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.metavar = metavar or name.upper()
        self.many = many
        self.required = required
        self.choices = choices


class Command:
    """A verb: what it is called, what it takes, what it runs.

    `run(invocation, **values)` gets one keyword for each parameter and returns the exit status.
    `name` has a space for a verb of a noun ("system status"). `changes` adds `--yes`.
    """

    __slots__ = ("aliases", "arguments", "changes", "examples", "help", "name", "options", "run")

    def __init__(
        self,
        name: str,
        run: Callable[..., int],
        help: str,
        *params: Option | Argument,
        examples: tuple[tuple[str, str], ...] = (),
        changes: bool = False,
        aliases: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.run = run
        self.help = help
        self.arguments = tuple(param for param in params if isinstance(param, Argument))
        self.options = tuple(param for param in params if isinstance(param, Option))
        self.examples = examples
        self.changes = changes
        self.aliases = aliases

    @property
    def all_options(self) -> tuple[Option, ...]:
        """Its own options and those that every such command has."""
        return self.options + ((YES, *GLOBAL) if self.changes else GLOBAL)


GLOBAL = (
    Option("-o", "--output", choices=OUTPUTS, metavar="FORMAT", help="table, wide, json, jsonl or name."),
    Option("-q", "--quiet", kind="flag", help="Say nothing on success."),
    Option("--debug", kind="flag", help="Show the traceback of an error."),
    Option("--no-autostart", kind="flag", help="Do not start botd when it does not answer."),
)
YES = Option("-y", "--yes", kind="flag", help="Answer yes to every question.")
GLOBAL_NAMES = frozenset(option.name for option in (YES, *GLOBAL))


def parse(command: Command, argv: Sequence[str]) -> dict[str, Any] | None:
    """The values of `argv`, or None when it is anything but a complete, ordinary call.

    Ordinary: `--option value`, `--option=value`, `-o value`, single flags, positionals, `--`.
    """
    options = command.all_options
    values: dict[str, Any] = {o.name: [] if o.many else o.default for o in options}
    by_flag = {flag: option for option in options for flag in option.flags}
    off = {option.off: option for option in options if option.off}
    positional: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            positional.extend(words)
        elif word == "-" or not word.startswith("-"):
            positional.append(word)
        elif word in off:
            values[off[word].name] = False
        elif not _take(word, words, by_flag, values):
            return None
    return values if _place(command.arguments, positional, values) else None


def _take(word: str, words: Any, by_flag: dict[str, Option], values: dict[str, Any]) -> bool:
    flag, equals, attached = word.partition("=")
    option = by_flag.get(flag)
    if option is None or (equals and not flag.startswith("--")):
        return False
    if option.kind == "flag":
        values[option.name] = True
        return not equals
    text = attached if equals else next(words, None)
    # A value that looks like an option is more likely a forgotten value: Typer says so.
    if text is None or (not equals and text.startswith("-") and text != "-"):
        return False
    try:
        value = option.convert(text)
    except ValueError:
        return False
    if option.many:
        values[option.name].append(value)
    else:
        values[option.name] = value
    return True


def _place(arguments: Sequence[Argument], words: list[str], values: dict[str, Any]) -> bool:
    rest = words
    for argument in arguments:
        taken = rest if argument.many else rest[:1]
        rest = [] if argument.many else rest[1:]
        if argument.required and not taken:
            return False
        if argument.choices and not all(word in argument.choices for word in taken):
            return False
        values[argument.name] = list(taken) if argument.many else taken[0] if taken else None
    return not rest
