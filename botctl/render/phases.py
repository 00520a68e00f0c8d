"""How phases and health look: one symbol and one colour for each, everywhere the same."""

from __future__ import annotations

from botctl.render.terminal import CYAN, DIM, GREEN, RED, YELLOW, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from botctl.render.terminal import Terminal

# phase -> (symbol, where Unicode is not shown, colour)
_PHASES = {
    "running": ("●", "*", GREEN),
    "stopped": ("○", "-", DIM),
    "starting": ("◐", "+", CYAN),
    "stopping": ("◐", "+", CYAN),
    "backoff": ("↻", "~", YELLOW),
    "failed": ("✖", "x", RED),
}
_HEALTH = {"healthy": GREEN, "recovered": GREEN, "unhealthy": RED, "unknown": DIM, "stopped": DIM}
_ORDER = ("running", "starting", "stopping", "backoff", "failed", "stopped")


def phase_style(phase: object) -> str:
    return _PHASES.get(str(phase), ("", "", ""))[2]


def health_style(health: object) -> str:
    return _HEALTH.get(str(health), "")


def symbol(terminal: Terminal, phase: object) -> str:
    known = _PHASES.get(str(phase))
    return terminal.pick(known[0], known[1]) if known else "?"


def phase_cell(terminal: Terminal, phase: object) -> tuple[str, str]:
    """'● running' with its colour, for a table."""
    return f"{symbol(terminal, phase)} {phase}", phase_style(phase)


def health_cell(health: object) -> tuple[str, str]:
    return str(health) if health else "-", health_style(health)


def count_phases(items: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        phase = str(item.get("phase"))
        counts[phase] = counts.get(phase, 0) + 1
    return counts


def phases_in_words(terminal: Terminal, counts: Mapping[str, int]) -> str:
    """'10 running, 1 backoff, 1 failed', each in its colour, the usual ones first."""
    known = [*_ORDER, *sorted(set(counts) - set(_ORDER))]
    shown = [phase for phase in known if counts.get(phase)]
    return ", ".join(terminal.paint(f"{counts[p]:,} {clean(p)}", phase_style(p)) for p in shown)
