"""Another program's output set in from the left, with long lines broken between words: also while it draws bars."""

from __future__ import annotations

import re
from collections.abc import Callable

from botctl.render.terminal import width_of

_TOKENS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\n|\r| +|[^ \n\r\x1b]+|\x1b")


class Indented:
    """Feed it what arrives, in pieces of any size; `write` gets what belongs on the terminal.

    `width` is where lines are broken, None never. Escape sequences pass untouched, so colours and cursor
    movements work: a carriage return puts the indentation first again.
    """

    def __init__(self, write: Callable[[str], None], width: int | None, margin: str = "  ", hang: str = "    ") -> None:
        self._write = write
        self._width = width
        self._margin, self._hang = margin, margin + hang
        self._at_start = True
        self._column = 0
        self._gap = ""
        """Spaces that are only written when something follows them on the same line."""

    def feed(self, text: str) -> None:
        out: list[str] = []
        for token in _TOKENS.findall(text):
            if token in ("\n", "\r"):
                # Before a carriage return, spaces blot something out; at the end of a line they are nothing.
                out.append(token if token == "\n" else self._gap + token)
                self._at_start, self._column, self._gap = True, 0, ""
            elif token[0] == "\x1b":
                out.append(token)
            elif token[0] == " ":
                self._gap += token
            else:
                self._word(token, out)
        self._write("".join(out))

    def _word(self, word: str, out: list[str]) -> None:
        columns = len(self._gap) + width_of(word)
        if self._at_start:
            self._begin(self._margin, out)
        elif self._width is not None and self._column + columns > self._width and self._column > len(self._hang):
            out.append("\n")
            self._begin(self._hang, out)
            columns, self._gap = width_of(word), ""
        out.append(self._gap + word)
        self._column += columns
        self._gap = ""

    def _begin(self, margin: str, out: list[str]) -> None:
        out.append(margin)
        self._at_start, self._column = False, len(margin)

    def end(self) -> None:
        """Begin a new line where the program has not done so."""
        if not self._at_start:
            self._write("\n")
            self._at_start, self._column = True, 0
