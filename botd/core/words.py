"""Durations as people say them."""


def spoken(seconds: float) -> str:
    """Seconds as "250 ms", "3.2 s", "4 min 10 s", "3 h 12 min"."""
    if seconds < 1.0:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
