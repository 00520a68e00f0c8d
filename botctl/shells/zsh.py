"""The completion script for zsh."""

from __future__ import annotations

from botctl.shells import grammar
from botctl.tree import NOUNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.options import Option

_SCRIPT = """\
#compdef botctl
# zsh completion for botctl. To use it:  source <(botctl completion zsh)
# for good:  botctl completion zsh > "${{fpath[1]}}/_botctl"

_botctl() {{
    local word verb= noun= skip= previous=$words[CURRENT-1] current=$words[CURRENT]
    local -a plain found
    for word in ${{words[2,CURRENT-1]}}; do
        # The value of an option in front of the verb is no verb.
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
            (-o|--output) skip=1 ;;
            (-*) ;;
            (*) plain+=($word) ;;
        esac
    done
    case $plain[1] in
        ({nouns}) noun=$plain[1]; [[ -n $plain[2] ]] && verb="$noun $plain[2]" ;;
        (*) verb=$plain[1] ;;
    esac
    case $previous in
        ({template_flag}) found=(${{(f)"$({templates})"}}); compadd -a found; return ;;
{values}
    esac
    if [[ -z $verb ]]; then
        case $noun in
{sub_verbs}
            (*) found=(
{verbs}
                )
                _describe verb found; [[ $current == -* ]] && compadd -- {global_options} ;;
        esac
        return
    fi
    if [[ $current == -* ]]; then
        case $verb in
{options}
        esac
        return
    fi
    case $verb in
{words}
    esac
    case $verb in
        ({with_ids})
            found=(${{(f)"$({ids})"}}); compadd -a found ;;
        ({with_templates})
            found=(${{(f)"$({templates})"}}); compadd -a found ;|
        ({with_files}) _files ;;
    esac
}}

if [[ $funcstack[1] == _botctl ]]; then
    _botctl "$@"
else
    (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
    compdef _botctl botctl
fi
"""


def script() -> str:
    commands = grammar.commands()
    return _SCRIPT.format(
        ids=grammar.IDS,
        templates=grammar.TEMPLATES,
        template_flag=grammar.TEMPLATE_FLAG,
        nouns="|".join(NOUNS),
        values="\n".join(
            f"        ({flag}) {_values(option)}; return ;;" for flag, option in grammar.valued_options().items()
        ),
        sub_verbs="\n".join(
            f"            ({noun}) found=({_described(noun)}); _describe verb found ;;" for noun in NOUNS
        ),
        verbs="\n".join(f"                {word}" for word in _top()),
        global_options=" ".join(grammar.global_flags()),
        options="\n".join(
            f'            ("{verb}") compadd -- {" ".join(grammar.long_flags(command))} ;;'
            for verb, command in commands.items()
        ),
        words="\n".join(
            f'        ("{verb}") (( $#plain < 2 )) && {{ compadd -- {" ".join(argument.choices)}; return; }} ;;'
            for verb, command in commands.items()
            if (argument := grammar.chosen(command)) is not None
        ),
        with_ids="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_ids(command)),
        with_templates="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_templates(command)),
        with_files="|".join(f'"{verb}"' for verb, command in commands.items() if grammar.takes_files(command)),
    )


def _top() -> list[str]:
    helps = {verb: command.help for verb, command in grammar.commands().items()} | NOUNS
    return [_pair(word, helps[word]) for word in grammar.top_words()]


def _described(noun: str) -> str:
    return " ".join(
        _pair(verb.partition(" ")[2], c.help) for verb, c in grammar.commands().items() if verb.startswith(noun)
    )


def _pair(word: str, help: str) -> str:
    text = f"{word}:{help.removesuffix('.')}"
    return "'" + text.replace("'", "'\\''") + "'"


def _values(option: Option) -> str:
    if option.choices:
        return f"compadd -- {' '.join(option.choices)}"
    return "_files" if option.metavar == "FILE" else "_files -/"
