"""Recovery statistics: attempts, successes, success rate, time to recovery."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from botd.core.bot import Recovery


def attempted(stats: Recovery) -> Recovery:
    return replace(stats, attempts=stats.attempts + 1)


def succeeded(stats: Recovery, took_s: float) -> Recovery:
    return replace(
        stats,
        successes=stats.successes + 1,
        total_s=stats.total_s + took_s,
        worst_s=max(stats.worst_s, took_s),
    )


def failed(stats: Recovery) -> Recovery:
    return replace(stats, failures=stats.failures + 1)


def total(all_stats: Iterable[Recovery]) -> Recovery:
    attempts = successes = failures = 0
    total_s = worst_s = 0.0
    for one in all_stats:
        attempts += one.attempts
        successes += one.successes
        failures += one.failures
        total_s += one.total_s
        worst_s = max(worst_s, one.worst_s)
    return Recovery(attempts, successes, failures, total_s, worst_s)


def view(stats: Recovery) -> dict[str, float | int | None]:
    """As the contract shows it. The rate counts attempts with an outcome; None before the first."""
    done = stats.successes + stats.failures
    return {
        "attempts": stats.attempts,
        "successes": stats.successes,
        "failures": stats.failures,
        "success_rate": round(stats.successes / done, 4) if done else None,
        "mean_time_to_recovery_s": round(stats.total_s / stats.successes, 4) if stats.successes else None,
        "worst_time_to_recovery_s": round(stats.worst_s, 4) if stats.successes else None,
    }
