"""What a completion script has to know about the commands, whatever its language."""

from __future__ import annotations

from botctl.options import GLOBAL
from botctl.tree import VERBS, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.options import Argument, Command, Option

IDS = "botctl --no-autostart list -o name 2>/dev/null"
TEMPLATES = "botctl --no-autostart template list -o name 2>/dev/null"


def commands() -> dict[str, Command]:
    """Every verb but the aliases, by its full name ("list", "daemon start")."""
    found = ((verb, find(verb)) for verb in VERBS)
    return {verb: command for verb, command in found if command is not None and verb == command.name}


def top_words() -> list[str]:
    """What may stand first: verbs and nouns."""
    return sorted({verb.partition(" ")[0] for verb in commands()})


def sub_verbs(noun: str) -> list[str]:
    return [verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{noun} ")]


def flags(option: Option) -> list[str]:
    return [*option.flags, *([option.off] if option.off else [])]


def long_flags(command: Command) -> list[str]:
    return [flag for option in command.all_options for flag in flags(option) if flag.startswith("--")]


def global_flags() -> list[str]:
    return [flag for option in GLOBAL for flag in option.flags if flag.startswith("--")]


def takes_ids(command: Command) -> bool:
    """A bot that is made has no id yet that could be completed."""
    named = {argument.name for argument in command.arguments}
    return "selectors" in named or ("id" in named and command.name != "create")


def takes_templates(command: Command) -> bool:
    """A template that is added has no name yet that could be completed."""
    of_one = any(argument.name == "name" for argument in command.arguments)
    return of_one and command.name.startswith("template ") and command.name != "template add"


def takes_files(command: Command) -> bool:
    return any(argument.name in ("file", "path") for argument in command.arguments)


TEMPLATE_FLAG = "--template"
"""The option whose value is the name of a template."""


def chosen(command: Command) -> Argument | None:
    """The argument that is one of a few words."""
    return next((argument for argument in command.arguments if argument.choices), None)


def valued_options() -> dict[str, Option]:
    """flag -> option, for the flags whose value can be completed and that mean the same in every verb.

    -f names a file for some verbs and follows for others, so of the short ones only -o is here.
    """
    return {
        flag: option
        for command in commands().values()
        for option in command.all_options
        if option.choices or option.metavar in ("FILE", "DIR")
        for flag in option.flags
        if flag.startswith("--") or flag == "-o"
    }
