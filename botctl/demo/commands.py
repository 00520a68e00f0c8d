"""Running the real botctl as a person would: on a terminal of its own where the demo has one, else through a pipe."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from botd.contract.errors import BotdError

_CHUNK = 1 << 16
_STEP_MS = 100
_LAST_WORD_S = 2.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one command. `text` is what it printed, stdout and stderr together, without colours."""

    status: int
    text: str

    def says(self, *words: str) -> bool:
        """Whether all of these stand in what was printed, however the lines were broken."""
        told = " ".join(self.text.split())
        return all(" ".join(word.split()) in told for word in words)


def botctl(
    words: list[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    columns: int | None,
    show: Callable[[str], None],
    patience_s: float = 120.0,
) -> Ran:
    """Run `botctl words`, handing on to `show` what it prints, as it prints it.

    `columns` is the width of the terminal to give it; None gives it a pipe. The command never outlives this call.
    Raises BotdError(timeout).
    """
    reader, writer = os.pipe() if columns is None else _terminal(columns)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "botctl", *words],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=dict(env),
            cwd=cwd,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    printed = bytearray()
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    try:
        for data in _output(reader, child, time.monotonic() + patience_s):
            printed += data
            show(decode(data))
        status = child.wait()
    except TimeoutError:
        raise BotdError("timeout", f"botctl {words[0]} has not ended after {patience_s:g} s") from None
    finally:
        os.close(reader)
        _end(child)
    return Ran(status, _ESCAPES.sub("", printed.decode("utf-8", "replace")))


def _terminal(columns: int) -> tuple[int, int]:
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = termios.tcgetattr(writer)
    # The terminal that all of this ends on adds the carriage returns.
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(writer, termios.TCSANOW, settings)
    return reader, writer


def _output(reader: int, child: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """What the child prints, until it has ended and everything is read. Raises TimeoutError.

    The end of the file would not do: whatever the child has started may hold the other end for longer.
    """
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while True:
        ended = child.poll() is not None
        if poll.poll(0 if ended else _STEP_MS):
            data = _read(reader)
            if data:
                yield data
                continue
            if not ended:
                # Its output is closed; all that is left to wait for is its end.
                _await_end(child, deadline)
            return
        if ended:
            return
        if time.monotonic() > deadline:
            raise TimeoutError


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, _CHUNK)
    except OSError:
        return b""  # how a terminal says that nobody holds its other side


def _await_end(child: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_LAST_WORD_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
