"""A JSON file that a person wrote: read and taken apart with suspicion. No rules of any key here.

Everything wrong is collected as a `Problem` with its path; what is wrong with the file as a whole
(missing, no permission, not UTF-8, not JSON) is raised at once.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

SIZE_MAX = 1 << 20
DEPTH_MAX = 64
SHOWN_MAX = 20
"""How many problems a message spells out; a file of garbage has thousands."""


class Problem(NamedTuple):
    """One thing that is wrong: where (`botRecovery.restartDelay`), why, and what would help."""

    path: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.reason}" + (f" ({self.hint})" if self.hint else "")


def refused(name: str, problems: Sequence[Problem]) -> BotdError:
    """The error that tells all of them. `details`: {file, problems: [{path, reason, hint}], count}."""
    shown = problems[:SHOWN_MAX]
    if len(problems) == 1:
        message = f"{name}: {problems[0]}"
    else:
        more = [f"and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        message = "\n  ".join([f"{name}: {len(problems)} problems", *map(str, shown), *more])
    return BotdError(
        "invalid",
        message,
        hint=f"correct it, then run: botctl config check {name}",
        exit=Exit.INVALID,
        details={"file": name, "count": len(problems), "problems": [problem._asdict() for problem in shown]},
    )


def read(path: str) -> bytes:
    """The bytes of the file at `path`. Raises BotdError(invalid, exit 9): it cannot be read, or is no small file."""
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refused(path, [Problem("", "is no regular file")])
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise refused(path, [Problem("", _why(error))]) from None
    except ValueError:
        raise refused(path, [Problem("", "a path cannot contain NUL")]) from None
    if len(data) > SIZE_MAX:
        raise refused(path, [Problem("", f"is larger than {SIZE_MAX} bytes: hardly a configuration")])
    return data


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK a named pipe would keep us waiting for ever.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _why(error: OSError) -> str:
    words = {
        errno.ENOENT: "does not exist",
        errno.EACCES: f"uid {os.geteuid()} may not read it",
        errno.EISDIR: "is a directory",
        errno.ELOOP: "is a loop of symbolic links",
    }
    return words.get(error.errno or 0) or f"cannot be read: {error.strerror}"


class _Wrong:
    """Stands in the parsed value for a number that JSON does not have."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Object(dict[str, Any]):
    """An object that remembers which of its keys stood there more than once."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    out = _Object(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice: dict[str, None] = {}
        for key, _ in pairs:
            if key in seen:
                twice[key] = None
            seen.add(key)
        out.repeated = tuple(twice)
    return out


def _constant(text: str) -> _Wrong:
    return _Wrong(f"{text} is not JSON")


def _integer(text: str) -> int | _Wrong:
    return int(text) if len(text) <= 20 else _Wrong(f"{text[:24]}... is too large a number")


def _number(text: str) -> float | _Wrong:
    value = float(text)
    return value if math.isfinite(value) else _Wrong(f"{text[:24]} is too large a number")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
).decode


def parse(data: bytes, name: str) -> tuple[dict[str, Any], list[Problem]]:
    """The object in these bytes without its wrong members, and what was wrong with those.

    Raises BotdError(invalid, exit 9) when there is no object to speak of.
    """
    value = _load(data, name)
    if not isinstance(value, dict):
        raise refused(name, [Problem("", "must be a JSON object, as in {}")])
    problems: list[Problem] = []
    return _clean(value, (), problems), problems


def _load(data: bytes, name: str) -> Any:
    if data.startswith(b"\xef\xbb\xbf"):
        raise refused(name, [Problem("", "begins with a byte order mark", "save it as UTF-8 without one")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refused(name, [Problem("", f"line {line} is not UTF-8 (byte {error.start} of the file)")]) from None
    if not text.strip():
        raise refused(name, [Problem("", "is empty; the shortest configuration is {}")])
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise refused(name, [Problem("", f"not JSON: {_lower(error.msg)} at {where}", _common(text, error))]) from None
    except RecursionError:
        raise refused(name, [Problem("", f"nested deeper than {DEPTH_MAX}")]) from None


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _common(text: str, error: json.JSONDecodeError) -> str:
    """The mistakes that people make by hand."""
    before, rest = text[: error.pos].rstrip(), text[error.pos : error.pos + 2]
    if rest in ("//", "/*") or rest[:1] == "#":
        return "JSON has no comments"
    if rest[:1] == "'":
        return "JSON has double quotes only"
    if before.endswith(",") or rest[:1] == ",":
        return "a comma too many"
    return ""


def _clean(value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> Any:
    if len(path) > DEPTH_MAX:
        problems.append(Problem(place(path[:8]), f"nested deeper than {DEPTH_MAX}"))
        return None
    if isinstance(value, _Object):
        problems += [Problem(place((*path, key)), "stands there more than once") for key in value.repeated]
        members: Iterable[tuple[str | int, Any]] = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        return value
    kept: list[tuple[Any, Any]] = []
    for key, inner in members:
        wrong = _wrong(key, inner)
        if wrong:
            problems.append(Problem(place((*path, key)), wrong))
        else:
            kept.append((key, _clean(inner, (*path, key), problems)))
    return dict(kept) if isinstance(value, dict) else [inner for _, inner in kept]


def _wrong(key: str | int, value: Any) -> str:
    if isinstance(value, _Wrong):
        return value.reason
    if any(isinstance(text, str) and _lone(text) for text in (key, value)):
        return "a lone surrogate is no text"
    return ""


def _lone(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def place(path: Iterable[str | int]) -> str:
    """A path as people read it, `portRange[0]`; keys that could fool a terminal are quoted."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
            continue
        shown = part if len(part) <= 60 else part[:57] + "..."
        shown = shown if shown.isascii() and shown.isprintable() else ascii(shown)
        out += f".{shown}" if out else shown
    return out
