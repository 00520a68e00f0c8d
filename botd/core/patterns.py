"""Patterns over the paths of a tree, as people know them from .gitignore.

`*` and `?` stay within one component, `**` spans any number of them, `[...]` is a set. A pattern with a slash at its
beginning or in its middle is anchored at the root; one without matches at any depth; a slash at the end means folders
only. In a list of lines the last one that matches wins, `!` takes back, `#` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line; `matches(path)` is about the path itself, not about what lies below a folder that matches."""

    text: str
    folders_only: bool
    negated: bool
    _match: Callable[[str], object]

    def matches(self, path: str, folder: bool) -> bool:
        return (folder or not self.folders_only) and bool(self._match(path))


def compile_pattern(text: str) -> Pattern:
    """A pattern for `matches`. `text` is any string: what is no valid set means itself."""
    negated = text.startswith("!")
    body = text[1:] if negated else text
    folders_only = body.endswith("/")
    body = body.rstrip("/")
    anchored = "/" in body
    body = body.lstrip("/")
    regex = _translate(body)
    if not anchored:
        regex = f"(?:.*/)?{regex}"
    return Pattern(text, folders_only, negated, re.compile(regex, re.DOTALL).fullmatch)


def compile_lines(lines: Iterable[str]) -> list[Pattern]:
    """The patterns of an ignore file; blank lines and comments mean nothing."""
    out = []
    for raw in lines:
        line = raw.rstrip("\r\n").rstrip(" ")
        if line.strip("/!") and not line.startswith("#"):
            out.append(compile_pattern(line))
    return out


def first(patterns: Iterable[Pattern], path: str, folder: bool) -> Pattern | None:
    """The first of them that matches."""
    return next((pattern for pattern in patterns if pattern.matches(path, folder)), None)


def last(patterns: list[Pattern], path: str, folder: bool) -> Pattern | None:
    """The last of them that matches, None when that one takes back what others said."""
    found = first(reversed(patterns), path, folder)
    return None if found is None or found.negated else found


def is_literal(text: str) -> bool:
    """Whether a pattern names one path."""
    return MAGIC.isdisjoint(text)


def _translate(body: str) -> str:
    out = []
    i = 0
    while i < len(body):
        if body.startswith("**/", i) and (i == 0 or body[i - 1] == "/"):
            out.append("(?:.*/)?")
            i += 3
        elif body[i:] == "**" and (i == 0 or body[i - 1] == "/"):
            out.append(".*")
            i += 2
        elif body[i] == "*":
            out.append("[^/]*")
            while i < len(body) and body[i] == "*":  # a run of them means one: nothing to go wild over
                i += 1
        elif body[i] == "?":
            out.append("[^/]")
            i += 1
        elif body[i] == "[":
            made, i = _set(body, i)
            out.append(made)
        else:
            out.append(re.escape(body[i]))
            i += 1
    return "".join(out)


def _set(body: str, at: int) -> tuple[str, int]:
    end = body.find("]", at + 2 if body[at + 1 : at + 2] not in ("!", "^") else at + 3)
    if end < 0:
        return re.escape("["), at + 1
    inner = body[at + 1 : end]
    negated = inner[:1] in ("!", "^")
    inner = inner[1:] if negated else inner
    escaped = inner.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
    escaped = escaped.replace("&&", "&\\&").replace("||", "|\\|").replace("~~", "~\\~").replace("--", "-\\-")
    made = f"(?!/)[{'^' if negated else ''}{escaped}]"
    try:
        re.compile(made)
    except re.error:
        return re.escape(body[at : end + 1]), end + 1
    return made, end + 1
