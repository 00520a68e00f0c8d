"""JSON, sockets and signals without their Python halves.

The keeper is small and back in a few milliseconds after a crash, so it does not import `json`, `socket` and
`signal`: they bring `re` and `enum` along (12 ms, 1.3 MB of private memory). This module reaches for the C halves below
them (and wire.py for `_socket`); the rest of the package imports the names from here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]  # the C half has no stubs
import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Socket = _socket.socket

SIGKILL, SIGSTOP, SIGCONT, SIGCHLD = 9, 19, 18, 17
"""Linux numbers these the same on every architecture that CPython runs on, except MIPS, SPARC and Alpha."""

_MAX_NUMBER_DIGITS = 20


def send_signal(pidfd: int, number: int) -> bool:
    """Deliver a signal through a pidfd. False when the process is gone; other errors are raised."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def default_signals() -> None:
    """Give every ignored signal its default action back (nohup and Python itself ignore some)."""
    for number in range(1, _signal.NSIG):
        if number not in (SIGKILL, SIGSTOP) and _signal.getsignal(number) is _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)


def on_child_signal(wakeup_fd: int) -> None:
    """Write a byte to `wakeup_fd` (non-blocking) whenever a child ends."""
    _signal.signal(SIGCHLD, lambda _number, _frame: None)
    _signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)


def ignore(number: int) -> None:
    _signal.signal(number, _signal.SIG_IGN)


def exec_signals() -> None:
    """The signal state a program expects at its start; called between fork and exec."""
    # exec itself resets handlers; what stays ignored is what Python ignores at its start.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _refuse(obj: object) -> object:
    raise TypeError(f"{type(obj).__name__} does not travel as JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_NUMBER_DIGITS:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def _constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


class _Grammar:
    """What the C scanner asks its caller for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = staticmethod(_integer)
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012  # read by older scanners only


def _codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import _json

    encoder = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, False)
    scanner = _json.make_scanner(_Grammar)  # type: ignore[arg-type]  # duck-typed, as the stub itself notes

    def dumps(obj: Any) -> str:
        return "".join(encoder(obj, 0))

    def loads(text: str) -> Any:
        try:
            value, end = scanner(text, 0)
        except StopIteration:
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError("something follows the JSON value")
        return value

    return dumps, loads


def _fallback() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import json

    def dumps(obj: Any) -> str:
        return json.dumps(obj, separators=(",", ":"), allow_nan=False)

    def loads(text: str) -> Any:
        return json.loads(text, parse_int=_integer, parse_constant=_constant)

    return dumps, loads


try:
    dumps, loads = _codec()
    loads(dumps({"probe": [1, 2.5, None, True, "é"]}))
except (ImportError, TypeError, AttributeError, ValueError):
    # A CPython whose accelerator has another shape (or none): slower and larger, never different.
    dumps, loads = _fallback()
