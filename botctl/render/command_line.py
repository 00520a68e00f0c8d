"""A bot's command as somebody could type it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-")


def command_line(words: Iterable[object]) -> str:
    """The words joined, each as a shell needs it; like shlex.join, which imports `re`."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"
