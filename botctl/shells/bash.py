"""The completion script for bash."""

from __future__ import annotations

from botctl.shells import grammar
from botctl.tree import NOUNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from botctl.options import Option

_SCRIPT = """\
# bash completion for botctl. To use it:  source <(botctl completion bash)
# for good:  botctl completion bash > ~/.local/share/bash-completion/completions/botctl

_botctl_ids() {{
    {ids}
}}

_botctl_templates() {{
    {templates}
}}

_botctl() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb= noun= skip= word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        # The value of an option in front of the verb is no verb.
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
            -o|--output) skip=1 ;;
            -*) ;;
            {nouns}) [[ -z $verb$noun ]] && noun=$word ;;
            *) [[ -z $verb ]] && verb=$word ;;
        esac
    done
    [[ -n $noun && -n $verb ]] && verb="$noun $verb"
    COMPREPLY=()
    case "$previous" in
        {template_flag}) COMPREPLY=($(compgen -W "$(_botctl_templates)" -- "$current")); return ;;
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
        {with_templates})
            COMPREPLY=($(compgen -W "$(_botctl_templates)" -- "$current")) ;;&
        {with_files})
            COMPREPLY+=($(compgen -f -- "$current")) ;;
    esac
}}

complete -F _botctl botctl
"""


def script() -> str:
    commands = grammar.commands()
    return _SCRIPT.format(
        ids=grammar.IDS,
        templates=grammar.TEMPLATES,
        template_flag=grammar.TEMPLATE_FLAG,
        nouns="|".join(NOUNS),
        values="\n".join(
            f"        {f}) {_values(option)}; return ;;" for f, option in grammar.valued_options().items()
        ),
        sub_verbs="\n".join(f"            {noun}) {_offer(grammar.sub_verbs(noun))} ;;" for noun in NOUNS),
        verbs=" ".join(grammar.top_words()),
        global_options=" ".join(grammar.global_flags()),
        options="\n".join(
            f'            "{verb}") {_offer(grammar.long_flags(command))} ;;' for verb, command in commands.items()
        ),
        words="\n".join(
            f'        "{verb}") [[ " ${{COMP_WORDS[*]}} " == *" {verb} "[a-z]*" "* ]] || '
            f"{{ {_offer(argument.choices)}; return; }} ;;&"
            for verb, command in commands.items()
            if (argument := grammar.chosen(command)) is not None
        ),
        with_ids="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_ids(command)),
        with_templates="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_templates(command)),
        with_files="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_files(command)),
    )


def _offer(words: Iterable[str]) -> str:
    return f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$current"))'


def _values(option: Option) -> str:
    if option.choices:
        return _offer(option.choices)
    return f'COMPREPLY=($(compgen -{"f" if option.metavar == "FILE" else "d"} -- "$current"))'
