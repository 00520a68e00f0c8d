"""One output stream and what it can show: colours, Unicode, width; and what must never reach it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = "31", "32", "33", "34", "35", "36"
BOLD, DIM = "1", "2"
RESET = "\x1b[0m"

# Everything that moves a cursor, rings, changes a title or reorders text. A tab is one space: a cell
# or a log line with one would break every alignment after it.
_HOSTILE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_HOSTILE |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)}
_HOSTILE |= {ord("\t"): " ", ord("\n"): "\\n", ord("\r"): "\\r"}


def clean(text: str) -> str:
    """`text` on one line, with every control character made visible instead of obeyed."""
    return text if text.isprintable() else text.translate(_HOSTILE)


def clean_colored(text: str, *, color: bool) -> str:
    """Like `clean`, for a bot's output: its colours stay where `color` is set and go where it is not."""
    if "\x1b[" not in text:
        return clean(text)
    head, *parts = text.split("\x1b[")
    out = [clean(head)]
    for part in parts:
        numbers = part[: len(part) - len(part.lstrip("0123456789;"))]
        if part[len(numbers) : len(numbers) + 1] == "m":
            out.append(f"\x1b[{numbers}m" if color else "")
            out.append(clean(part[len(numbers) + 1 :]))
        else:
            out.append(clean("\x1b[" + part))
    return "".join(out) + (RESET if color else "")


def width_of(text: str) -> int:
    """Terminal columns of a clean `text`."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, width: int, mark: str) -> str:
    """`text` in at most `width` columns; `mark` stands where something is missing."""
    if width_of(text) <= width:
        return text
    room = width - len(mark)
    if text.isascii():
        return text[: max(room, 0)] + mark[:width]
    kept, used = [], 0
    for char in text:
        used += width_of(char)
        if used > room:
            break
        kept.append(char)
    return "".join(kept) + mark[:width]


class Terminal:
    """A stream with its abilities. `width` is None where nothing may be cut, since it is no terminal."""

    __slots__ = ("color", "is_tty", "stream", "unicode", "width")

    def __init__(self, stream: TextIO | None, environ: Mapping[str, str]) -> None:
        # The stream is None when the caller has closed the descriptor (`>&-`).
        self.stream = stream
        self.is_tty = stream is not None and stream.isatty()
        self.color = _wants_color(environ, self.is_tty)
        self.unicode = _speaks_unicode(stream, environ)
        self.width = _columns(stream, environ) if stream is not None and self.is_tty else None

    def write(self, text: str) -> None:
        """Exactly `text`, no newline added."""
        if self.stream is not None:
            self.stream.write(text)

    def write_bytes(self, data: bytes) -> None:
        """Exactly these bytes, whatever the encoding: only for what is no terminal."""
        if self.stream is None:
            return
        buffer = getattr(self.stream, "buffer", None)
        if buffer is None:
            self.stream.write(data.decode("utf-8", "replace"))
            return
        self.stream.flush()
        buffer.write(data)

    def line(self, text: str = "") -> None:
        self.write(text + "\n")

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush()

    def paint(self, text: str, *styles: str) -> str:
        """`text` in these styles where colours are shown. The text must be clean already."""
        return f"\x1b[{';'.join(styles)}m{text}{RESET}" if self.color and styles and text else text

    def pick(self, symbol: str, ascii: str) -> str:
        """The symbol where Unicode is shown, else its substitute."""
        return symbol if self.unicode else ascii


def _wants_color(environ: Mapping[str, str], is_tty: bool) -> bool:
    # The order of precedence is the one of Python itself and of the conventions' authors.
    if environ.get("NO_COLOR"):
        return False
    forced = environ.get("FORCE_COLOR")
    if forced:
        return forced != "0"
    return is_tty and environ.get("TERM") != "dumb"


def _speaks_unicode(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("_", "-")
    # Python reads the C locale as UTF-8; whoever asks for C by name wants ASCII all the same.
    locale = environ.get("LC_ALL") or environ.get("LANG")
    return encoding in ("utf-8", "utf8") and locale not in ("C", "POSIX")


def _columns(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
