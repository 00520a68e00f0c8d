"""Times as people type them for --since and --until."""

from __future__ import annotations

from botd.contract.errors import invalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_HINT = "write 30s, 15m, 1h30m, 2d, 2026-11-22, '2026-11-22 17:00', 2026-11-22T17:00:00Z or @1795367957"


def moment(text: str, option: str, now: float) -> float:
    """Seconds since the epoch: an age ("1h30m"), a date and time (local without a zone), or @epoch.

    Raises BotdError(invalid) naming `option`.
    """
    value = text.strip()
    seconds = _age(value)
    if seconds is not None:
        return now - seconds
    if value.startswith("@"):
        try:
            number = float(value[1:])
        except ValueError:
            number = -1.0
        if 0 <= number < 1e11:
            return number
    else:
        from datetime import datetime

        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            pass  # said below, for every kind of time
    raise invalid(option, f"{text!r} is no time", hint=_HINT)


def _age(text: str) -> float | None:
    if not text or not text[0].isdecimal():
        return None
    seconds, number = 0.0, ""
    for char in text:
        if char.isascii() and (char.isdecimal() or char == "."):
            number += char
        elif char in _UNITS and number.count(".") <= 1 and number.strip("."):
            seconds += float(number) * _UNITS[char]
            number = ""
        else:
            return None
    return None if number else seconds
