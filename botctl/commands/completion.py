"""completion: a script for the shell that completes verbs, options and the ids of bots.

The scripts are static, so a Tab costs nothing but one `botctl list -o name` where an id is wanted,
and that one never starts a daemon.
"""

from __future__ import annotations

from botctl.options import GLOBAL, Argument, Command, Option
from botctl.tree import NOUNS, VERBS, find
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from botctl.invocation import Invocation

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
# bash completion for botctl. To use it:  source <(botctl completion bash)
# for good:  botctl completion bash > ~/.local/share/bash-completion/completions/botctl

_botctl_ids() {{
    botctl --no-autostart list -o name 2>/dev/null
}}

_botctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb= noun= word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            -*) ;;
            {nouns}) [[ -z $verb$noun ]] && noun=$word ;;
            *) [[ -z $verb ]] && verb=$word ;;
        esac
    done
    [[ -n $noun && -n $verb ]] && verb="$noun $verb"
    COMPREPLY=()
    case "$previous" in
{values}
    esac
    if [[ -z $verb ]]; then
        case "$noun" in
{sub_verbs}
            *) COMPREPLY=($(compgen -W "{verbs} {global_options}" -- "$current")) ;;
        esac
        return
    fi
    if [[ $current == -* ]]; then
        case "$verb" in
{options}
        esac
        return
    fi
    case "$verb" in
{words}
        {with_ids})
            COMPREPLY=($(compgen -W "$(_botctl_ids)" -- "$current")) ;;
        {with_files})
            COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
}}

complete -F _botctl botctl
"""

_ZSH = """\
#compdef botctl
# zsh completion for botctl. To use it:  source <(botctl completion zsh)
# for good:  botctl completion zsh > "${{fpath[1]}}/_botctl"

(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
autoload -Uz bashcompinit && bashcompinit

"""

_FISH_HEAD = """\
# fish completion for botctl. To use it:  botctl completion fish | source
# for good:  botctl completion fish > ~/.config/fish/completions/botctl.fish

function __botctl_ids
    botctl --no-autostart list -o name 2>/dev/null
end

function __botctl_verb
    set -l words (commandline -opc)[2..-1]
    set -l plain
    for word in $words
        string match -q -- '-*' $word; or set -a plain $word
    end
    if contains -- "$plain[1]" {nouns}
        echo "$plain[1] $plain[2]" | string trim
    else
        echo "$plain[1]"
    end
end

complete -c botctl -f
"""


def completion(invocation: Invocation, *, shell: str) -> int:
    script = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()
    invocation.out.write(script)
    return Exit.OK


def _commands() -> Iterator[tuple[str, Command]]:
    for verb in VERBS:
        command = find(verb)
        if command is not None and verb == command.name:
            yield verb, command


def _flags(option: Option) -> list[str]:
    return [*option.flags, *([option.off] if option.off else [])]


def _takes_ids(command: Command) -> bool:
    return any(a.name == "selectors" or (a.name == "id" and command.name != "create") for a in command.arguments)


def _takes_files(command: Command) -> bool:
    return any(argument.name == "file" for argument in command.arguments)


def _choices(command: Command) -> Argument | None:
    return next((argument for argument in command.arguments if argument.choices), None)


def _bash() -> str:
    commands = dict(_commands())
    valued: dict[str, str] = {}
    for command in commands.values():
        for option in command.all_options:
            if option.choices:
                reply = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current")); return'
            elif option.metavar in ("FILE", "DIR"):
                reply = f'COMPREPLY=($(compgen -{"f" if option.metavar == "FILE" else "d"} -- "$current")); return'
            else:
                continue
            # -f names a file in some verbs and follows in others: only what means one thing is here.
            for flag in option.flags:
                if flag.startswith("--") or flag == "-o":
                    valued[flag] = reply
    top = sorted({verb.partition(" ")[0] for verb in commands})
    return _BASH.format(
        nouns="|".join(NOUNS),
        values="\n".join(f"        {flag}) {reply} ;;" for flag, reply in valued.items()),
        sub_verbs="\n".join(
            f'            {noun}) COMPREPLY=($(compgen -W "{" ".join(_sub_verbs(noun))}" -- "$current")) ;;'
            for noun in NOUNS
        ),
        verbs=" ".join(top),
        global_options=" ".join(flag for option in GLOBAL for flag in option.flags if flag.startswith("--")),
        options="\n".join(
            f'            "{verb}") COMPREPLY=($(compgen -W "{_long_flags(command)}" -- "$current")) ;;'
            for verb, command in commands.items()
        ),
        words="\n".join(
            f'        "{verb}") [[ " ${{COMP_WORDS[*]}} " == *" {verb} "[a-z]*" "* ]] || '
            f'{{ COMPREPLY=($(compgen -W "{" ".join(argument.choices)}" -- "$current")); return; }} ;;&'
            for verb, command in commands.items()
            if (argument := _choices(command)) is not None
        ),
        with_ids="|".join(f'"{verb}"' for verb, command in commands.items() if _takes_ids(command)),
        with_files="|".join(f'"{verb}"' for verb, command in commands.items() if _takes_files(command)),
    )


def _sub_verbs(noun: str) -> list[str]:
    return [verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{noun} ")]


def _long_flags(command: Command) -> str:
    return " ".join(flag for o in command.all_options for flag in _flags(o) if flag.startswith("--"))


def _zsh() -> str:
    # zsh reads a completion function of bash; one script to keep right instead of two.
    return _ZSH.format() + _bash().split("\n\n", 1)[1]


def _fish() -> str:
    lines = [_FISH_HEAD.format(nouns=" ".join(NOUNS))]
    commands = dict(_commands())
    seen: set[str] = set()
    for verb, command in commands.items():
        noun, _, sub = verb.rpartition(" ")
        if noun and noun not in seen:
            seen.add(noun)
            lines.append(_fish_word("test -z (__botctl_verb)", noun, NOUNS[noun]))
        where = f'test (__botctl_verb) = "{noun}"' if noun else "test -z (__botctl_verb)"
        lines.append(_fish_word(where, sub, command.help))
    for verb, command in commands.items():
        inside = f'test (__botctl_verb) = "{verb}"'
        lines += [_fish_option(inside, option) for option in command.all_options]
        if _takes_ids(command):
            lines.append(f"complete -c botctl -n {_fq(inside)} -a '(__botctl_ids)'")
        if _takes_files(command):
            lines.append(f"complete -c botctl -n {_fq(inside)} -F")
        argument = _choices(command)
        if argument is not None:
            lines.append(f"complete -c botctl -n {_fq(inside)} -a {_fq(' '.join(argument.choices))}")
    return "\n".join(lines) + "\n"


def _fish_word(condition: str, word: str, help: str) -> str:
    return f"complete -c botctl -n {_fq(condition)} -a {word} -d {_fq(help)}"


def _fish_option(condition: str, option: Option) -> str:
    flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in _flags(option))
    value = "" if option.kind == "flag" else " -r"
    if option.choices:
        value = f" -x -a {_fq(' '.join(option.choices))}"
    elif option.metavar in ("FILE", "DIR"):
        value = " -r -F"
    return f"complete -c botctl -n {_fq(condition)} {flags}{value} -d {_fq(option.help)}"


def _fq(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


COMMANDS = (
    Command(
        "completion",
        completion,
        "Print a script that teaches the shell to complete verbs, options and ids.",
        Argument("shell", choices=SHELLS, help="bash, zsh or fish."),
        examples=(("source <(botctl completion bash)", "for this shell"),),
    ),
)
