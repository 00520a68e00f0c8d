"""The completion script for fish."""

from __future__ import annotations

from botctl.shells import grammar
from botctl.tree import NOUNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.options import Option

_HEAD = """\
# fish completion for botctl. To use it:  botctl completion fish | source
# for good:  botctl completion fish > ~/.config/fish/completions/botctl.fish

function __botctl_ids
    {ids}
end

function __botctl_templates
    {templates}
end

function __botctl_verb
    set -l words (commandline -opc)[2..-1]
    set -l plain
    set -l skip
    for word in $words
        # The value of an option in front of the verb is no verb.
        if test -n "$skip"
            set skip
        else if contains -- $word -o --output
            set skip 1
        else if not string match -q -- '-*' $word
            set -a plain $word
        end
    end
    if contains -- "$plain[1]" {nouns}
        echo "$plain[1] $plain[2]" | string trim
    else
        echo "$plain[1]"
    end
end

complete -c botctl -f
"""


def script() -> str:
    lines = [_HEAD.format(ids=grammar.IDS, templates=grammar.TEMPLATES, nouns=" ".join(NOUNS))]
    commands = grammar.commands()
    seen: set[str] = set()
    for verb, command in commands.items():
        noun, _, sub = verb.rpartition(" ")
        if noun and noun not in seen:
            seen.add(noun)
            lines.append(_word("test -z (__botctl_verb)", noun, NOUNS[noun]))
        where = f'test (__botctl_verb) = "{noun}"' if noun else "test -z (__botctl_verb)"
        lines.append(_word(where, sub, command.help))
    for verb, command in commands.items():
        inside = f'test (__botctl_verb) = "{verb}"'
        lines += [_option(inside, option) for option in command.all_options]
        if grammar.takes_ids(command):
            lines.append(f"complete -c botctl -n {_quoted(inside)} -a '(__botctl_ids)'")
        if grammar.takes_templates(command):
            lines.append(f"complete -c botctl -n {_quoted(inside)} -a '(__botctl_templates)'")
        if grammar.takes_files(command):
            lines.append(f"complete -c botctl -n {_quoted(inside)} -F")
        argument = grammar.chosen(command)
        if argument is not None:
            lines.append(f"complete -c botctl -n {_quoted(inside)} -a {_quoted(' '.join(argument.choices))}")
    return "\n".join(lines) + "\n"


def _word(condition: str, word: str, help: str) -> str:
    return f"complete -c botctl -n {_quoted(condition)} -a {word} -d {_quoted(help)}"


def _option(condition: str, option: Option) -> str:
    flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in grammar.flags(option))
    value = "" if option.kind == "flag" else " -r"
    if grammar.TEMPLATE_FLAG in option.flags:
        value = " -x -a '(__botctl_templates)'"
    elif option.choices:
        value = f" -x -a {_quoted(' '.join(option.choices))}"
    elif option.metavar in ("FILE", "DIR"):
        value = " -r -F"
    return f"complete -c botctl -n {_quoted(condition)} {flags}{value} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
