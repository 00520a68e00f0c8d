"""Memory: which life is to end because it outgrew its limit, and in which words. Pure."""

from __future__ import annotations

from botd.core.bot import Spec
from botd.core.settings import Limits


def limit_of(spec: Spec, limits: Limits) -> int:
    """Bytes. A bot's own limit may be above or below the default of all."""
    return spec.memory_bytes if spec.memory_bytes is not None else limits.max_memory_per_bot_bytes


def over(spec: Spec, limits: Limits, used: int) -> str | None:
    """The reason to end a life that uses `used` bytes, or None."""
    limit = limit_of(spec, limits)
    if used <= limit:
        return None
    which = "memory_mb" if spec.memory_bytes is not None else "resourceManagement.maxMemoryPerBot"
    return f"memory {used >> 20} MiB over its limit of {limit >> 20} MiB ({which})"
