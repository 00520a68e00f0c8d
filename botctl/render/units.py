"""Sizes, durations and times as people read them. Anything that is no number is shown as a dash."""

from __future__ import annotations

import time

NONE = "-"


def amount(value: object) -> float | None:
    """`value` when it is a number (a truth value and NaN are none), else None."""
    if isinstance(value, (int, float)) and value is not True and value is not False and value == value:
        return value
    return None


def size(count: object) -> str:
    """Bytes with a binary unit: 512B, 12.3K, 256M, 1.5G."""
    left = amount(count)
    if left is None:
        return NONE
    for unit in "BKMGTP":
        if abs(left) < 1023.95 or unit == "P":
            break
        left /= 1024
    whole = unit == "B" or abs(left) >= 99.95 or left == int(left)
    return f"{left:.0f}{unit}" if whole else f"{left:.1f}{unit}"


def duration(value: object) -> str:
    """Seconds in at most two units: 340ms, 4.2s, 45s, 3m12s, 5h03m, 12d4h."""
    seconds = amount(value)
    if seconds is None:
        return NONE
    if seconds < 0:
        return "0s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.0095 or seconds == 0 else f"{seconds * 1000:.1f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds) if seconds < 60 else int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, second = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{second:02}s"
    hours, minute = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minute:02}m"
    days, hour = divmod(hours, 24)
    return f"{days}d{hour}h"


def percent(value: object) -> str:
    share = amount(value)
    if share is None:
        return NONE
    return f"{share:.0f}%" if share >= 99.95 or share == int(share) else f"{share:.1f}%"


def number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else NONE


def epoch(moment: object) -> float | None:
    """Seconds since the epoch of an RFC 3339 time in UTC, or None when it is none.

    By hand: `datetime` costs 3 ms and `time.strptime` imports `re`, too much for a quick command.
    """
    if not isinstance(moment, str) or len(moment) < 20 or moment[-1] != "Z":
        return None
    try:
        year, month, day = int(moment[:4]), int(moment[5:7]), int(moment[8:10])
        hour, minute, second = int(moment[11:13]), int(moment[14:16]), float(moment[17:-1])
    except ValueError:
        return None
    # Days since 1970 of a date in the Gregorian calendar, the year beginning in March.
    shifted, months = (year, month - 3) if month > 2 else (year - 1, month + 9)
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
    days += (153 * months + 2) // 5 + day - 719469
    return days * 86400.0 + hour * 3600 + minute * 60 + second


def local(moment: object) -> str:
    """A time of the wire in the reader's own zone: 2026-11-22 17:09:17."""
    seconds = epoch(moment)
    if seconds is None:
        return NONE
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def ago(moment: object, now: float) -> str:
    """How long ago a time of the wire was: '3m12s ago'. A time ahead is 'in 4.2s'."""
    seconds = epoch(moment)
    if seconds is None:
        return NONE
    away = now - seconds
    return f"{duration(away)} ago" if away >= 0 else f"in {duration(-away)}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def bar(share: float, cells: int, *, unicode: bool, mark: float | None = None) -> str:
    """A bar of `cells` columns, filled to `share` (0 to 1, more is full); where it is empty it shows a `mark`."""
    filled = round(min(max(share, 0.0), 1.0) * cells)
    full, empty, line = ("█", "░", "┊") if unicode else ("#", ".", "|")
    at = -1 if mark is None else round(mark * cells)
    return full * filled + "".join(line if cell == at else empty for cell in range(filled, cells))
