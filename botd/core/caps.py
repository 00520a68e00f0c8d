"""What one bot may use, from its own specification or the defaults of all, and how that is said. Pure."""

from __future__ import annotations

from typing import NamedTuple

from botd.core.bot import Spec
from botd.core.settings import MIB, Limits


class Caps(NamedTuple):
    """Bytes, a count, processors. None: no limit."""

    memory_bytes: int
    swap_bytes: int | None
    processes: int | None
    cpu: float | None

    def to_keeper(self) -> dict[str, float | None]:
        """As the keeper's `start` and `limits` take it."""
        return {"memory": self.memory_bytes, "swap": self.swap_bytes, "pids": self.processes, "cpu": self.cpu}


def caps_of(spec: Spec, limits: Limits) -> Caps:
    """A bot's own limits may be above or below the defaults of all."""
    return Caps(
        spec.memory_bytes if spec.memory_bytes is not None else limits.max_memory_per_bot_bytes,
        limits.max_swap_per_bot_bytes,
        spec.processes if spec.processes is not None else limits.max_processes_per_bot,
        spec.cpu if spec.cpu is not None else limits.max_cpu_per_bot,
    )


def memory_key(spec: Spec) -> str:
    """The key that a person would change."""
    return "memory_mb" if spec.memory_bytes is not None else "maxMemoryPerBot"


def processes_key(spec: Spec) -> str:
    return "processes" if spec.processes is not None else "maxProcessesPerBot"


def killed_for_memory(spec: Spec | None, peak_bytes: int | None, limit_bytes: int | None) -> str:
    """Words for a life that the kernel ended for its memory. `spec` None: a bot that is on no record."""
    said = "killed by the kernel for memory"
    if peak_bytes is not None and limit_bytes is not None and peak_bytes < limit_bytes * _NEAR:
        # It was within its own limit: the kernel had to take somebody.
        said += " because the machine had none left"
    figures = []
    if peak_bytes is not None:
        figures.append(f"peak {_mib(peak_bytes)}")
    if limit_bytes is not None:
        figures.append(f"limit {_mib(limit_bytes)}" + (f" ({memory_key(spec)})" if spec is not None else ""))
    return f"{said}: {', '.join(figures)}" if figures else said


# The peak that the kernel notes may stay some pages below the limit that was hit.
_NEAR = 0.9


def forks_refused(spec: Spec, times: int, limit: int | None) -> str:
    """Words for a bot that the kernel refused more processes."""
    often = "once" if times == 1 else f"{times:,} times"
    most = f" its limit of {limit:,}" if limit is not None else " its limit"
    return f"it was refused one more process or thread {often}:{most} ({processes_key(spec)}) is reached"


def _mib(count: int) -> str:
    return f"{count // MIB:,} MiB" if count >= MIB else f"{count >> 10} KiB"
