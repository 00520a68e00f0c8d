"""From the words on the command line to the typed selection that botd gets."""

from __future__ import annotations

import sys

from botctl.options import Argument, Option
from botd.contract import selector
from botd.contract.errors import BotdError, not_found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from botd.contract.selector import Selection

_HELP = "Ids, patterns such as 'alice/*', conditions such as user:alice,phase:failed, or - for standard input."
SELECTORS = Argument("selectors", metavar="SELECTOR...", many=True, required=False, help=_HELP)
ALL = Option("--all", kind="flag", help="Every bot.")

# One id is at most 96 bytes; MAX_CLAUSES of them fit many times.
_STDIN_MAX = 4 << 20


def choose(selectors: Sequence[str], *, every: bool = False) -> Selection:
    """The selection of a verb that changes something: nothing named is an error, never "all".

    Raises BotdError: invalid (exit 2), or not_found (exit 4) when `-` brought no id.
    """
    if "-" not in selectors or every:
        return selector.parse(selectors, every=every)
    named = [word for word in selectors if word != "-"]
    clauses = selector.parse(named)["any"] if named else []
    clauses += selector.from_ids(_stdin_ids())["any"]
    if not clauses:
        raise not_found("no bot matches: standard input holds no id", hint="botctl list shows every bot")
    return {"any": clauses}


def look_at(selectors: Sequence[str]) -> Selection:
    """The selection of a verb that only reads: nothing named is every bot."""
    return choose(selectors) if selectors else dict(selector.ALL)


def reads_stdin(selectors: Sequence[str]) -> bool:
    return "-" in selectors


def nothing_matches(selection: Selection) -> BotdError:
    """The error of a reading verb whose selection is empty."""
    return not_found(f"no bot matches {selector.describe(selection)}", hint="botctl list shows every bot")


def _stdin_ids() -> list[str]:
    if sys.stdin is None:
        return []
    try:
        text = sys.stdin.read(_STDIN_MAX + 1)
    except UnicodeDecodeError:
        raise BotdError("invalid", "standard input is not UTF-8 text", hint="botctl list -o name") from None
    if len(text) > _STDIN_MAX:
        raise BotdError("invalid", "standard input is too long to be a list of ids", hint="use a pattern")
    return list(dict.fromkeys(text.split()))
