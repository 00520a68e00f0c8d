"""The Typer application: help, suggestions and the explanation of mistakes.

Built from the declarations in `botctl.commands`; it adds no option and no verb of its own.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, Literal

import typer
from typer.exceptions import TyperException

from botctl import options, tree
from botd import __version__
from botd.contract.errors import BotdError, invalid, nearest

_TYPES: dict[str, Any] = {"text": str, "whole": int, "number": float, "flag": bool}
_COMMON = "Common options"

_HELP = (
    "Run a fleet of chat bots: start them, keep them running, see why they are not.\n\n"
    "A bot is named [bold]user/name[/bold]; most verbs take several, or patterns ([cyan]'alice/*'[/cyan]), or "
    "conditions ([cyan]user:alice,phase:failed[/cyan]), or [cyan]--all[/cyan], or [cyan]-[/cyan] to read ids from "
    "standard input."
)

_EXAMPLES = (
    ("botctl create shop --start -- python3 bot.py", "a first bot, running"),
    ("botctl list", "all bots and how they are"),
    ("botctl logs -f alice/shop", "what one says"),
    ("botctl explain alice/shop", "why it is in its phase"),
    ("botctl apply -f fleet.toml", "make the fleet as the file says"),
)


def understand(words: list[str]) -> tuple[options.Command, dict[str, Any]] | None:
    """The command and values of a call; None when it was answered already (help, version).

    Raises BotdError(invalid) for anything that is no call. Typer only parses: the command runs outside
    of it, so that both ways end with the same statuses.
    """
    application = _build()
    try:
        return application(args=words or ["--help"], prog_name="botctl", standalone_mode=False) or None
    except TyperException as error:
        raise _usage_error(error, words) from None


def _usage_error(error: TyperException, words: list[str]) -> BotdError:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "botctl")
    message = error.format_message()
    if "No such command" in message:
        return _unknown_verb(words)
    return invalid("", message[:1].lower() + message[1:].rstrip("."), hint=f"{path} --help")


def _unknown_verb(words: list[str]) -> BotdError:
    plain = [word for word in words if not word.startswith("-")]
    noun = next((word for word in plain if word in tree.NOUNS), None)
    if noun is not None:
        known = [verb.partition(" ")[2] for verb in tree.VERBS if verb.startswith(f"{noun} ")]
        typed = next((word for word in plain[plain.index(noun) + 1 :]), "")
        near = nearest(typed, known)
        hint = f"botctl {noun} {near or '|'.join(known)}"
        return invalid("", f"{noun} has no verb {typed!r}{_guess(near)}", hint=hint)
    known = sorted({verb.partition(" ")[0] for verb in tree.VERBS})
    typed = next((word for word in plain if word not in options.OUTPUTS and word not in known), "")
    near = nearest(typed, known)
    hint = f"botctl {near}" if near else "botctl --help lists every verb"
    return invalid("", f"there is no verb {typed!r}{_guess(near)}", hint=hint)


def _guess(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""


def _build() -> typer.Typer:
    application = _typer(_HELP, _epilog(_EXAMPLES))
    application.callback(invoke_without_command=True)(_root)
    groups: dict[str, typer.Typer] = {}
    for verb, (panel, _) in tree.VERBS.items():
        command = tree.find(verb)
        assert command is not None
        noun, _, sub = verb.rpartition(" ")
        into = application
        if noun:
            if noun not in groups:
                groups[noun] = _typer(tree.NOUNS[noun])
                application.add_typer(groups[noun], name=noun, rich_help_panel=panel, no_args_is_help=False)
                groups[noun].callback(invoke_without_command=True)(_noun)
            into = groups[noun]
        into.command(
            sub,
            help=command.help,
            short_help=_short(command.help),
            epilog=_epilog(command.examples),
            rich_help_panel=None if noun else panel,
            hidden=verb in command.aliases,
        )(_callback(command))
    return application


def _typer(help: str, epilog: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=help,
        epilog=epilog,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _epilog(examples: tuple[tuple[str, str], ...]) -> str | None:
    """Examples as the help prints them: each on its own line, the remark beside it."""
    if not examples:
        return None
    width = min(max(len(call) for call, _ in examples), 50)
    lines = [f"[cyan]{_escape(call.ljust(width))}[/cyan]   [dim]{_escape(text)}[/dim]" for call, text in examples]
    return "\n".join(["[bold]Examples[/bold]", *lines])


def _short(help: str) -> str:
    """The first clause, for the list of verbs."""
    return help.removesuffix(".").partition(". ")[0].partition("; ")[0]


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version of botctl.", is_eager=True),
    **values: Any,
) -> None:
    if version:
        sys.stdout.write(f"botctl {__version__}\n")
        raise typer.Exit()
    context.obj = values
    if context.invoked_subcommand is None:
        raise invalid("", "no verb is given", hint="botctl --help lists every verb")


def _noun(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help())
        raise typer.Exit()


def _callback(command: options.Command) -> Any:
    """The function that Typer calls for `command`, with the signature that it reads the options from."""

    def call(context: typer.Context, **values: Any) -> tuple[options.Command, dict[str, Any]]:
        for option in command.options:
            # Typer's range lets NaN through, which compares false with everything.
            if option.kind == "number" and values[option.name] != values[option.name]:
                raise invalid("", f"{option.flags[-1]} is no number", hint=f"botctl {command.name} --help")
        before: dict[str, Any] = context.obj or {}
        given = {
            option.name: before[option.name]
            for option in command.all_options
            if before.get(option.name) not in (None, False) and values[option.name] in (None, False)
        }
        return command, {**values, **given}

    parameters = [_parameter(option) for option in command.all_options]
    parameters[:0] = [_positional(argument) for argument in command.arguments]
    return _signed(call, parameters)


def _signed(function: Any, parameters: list[inspect.Parameter]) -> Any:
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    kept = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name != "context"
    ]
    every = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in kept), *parameters]
    function.__signature__ = inspect.Signature(every)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return function


def _parameter(option: options.Option) -> inspect.Parameter:
    base: Any = Literal[option.choices] if option.choices else _TYPES[option.kind]
    wanted: Any = list[base] if option.many else base if option.default is not None else base | None
    flags = [*option.flags]
    if option.off:
        flags[-1] = f"{flags[-1]}/{option.off}"
    info = typer.Option(
        [] if option.many else option.default,
        *flags,
        help=_escape(option.help),
        metavar=option.metavar,
        min=option.low,
        max=option.high,
        show_default=_default(option),
        rich_help_panel=_COMMON if option.name in options.GLOBAL_NAMES else None,
    )
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=wanted)


def _default(option: options.Option) -> str | bool:
    if option.default in (None, False) or option.off or option.many:
        return False
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _positional(argument: options.Argument) -> inspect.Parameter:
    base: Any = Literal[argument.choices] if argument.choices else str
    wanted: Any = list[base] if argument.many else base if argument.required else base | None
    default: Any = ... if argument.required else [] if argument.many else None
    info = typer.Argument(default, help=_escape(argument.help), metavar=argument.metavar, show_default=False)
    return inspect.Parameter(argument.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=wanted)


_signed(_root, [_parameter(option) for option in (*options.GLOBAL, options.YES)])
