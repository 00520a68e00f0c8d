"""What a life may use, as botd asks for it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.wire import Message

_BYTES_MOST = 2**53
_PIDS_MOST = 2**22
_CPU_LEAST, _CPU_MOST = 0.01, 65536.0
"""The kernel takes a quota of 1 ms in a period of 100 ms at the least."""


class Limits:
    """`memory` and `swap` (beyond memory) in bytes, `pids` a count of processes and threads, `cpu` in cores; None: no
    limit."""

    __slots__ = ("cpu", "memory", "pids", "swap")

    def __init__(
        self, memory: int | None = None, swap: int | None = None, pids: int | None = None, cpu: float | None = None
    ) -> None:
        self.memory, self.swap, self.pids, self.cpu = memory, swap, pids, cpu

    def wants(self, controller: str) -> bool:
        """Whether there is a limit that this controller ("memory", "pids" or "cpu") keeps."""
        return getattr(self, controller) is not None

    def message(self) -> Message:
        """As it travels."""
        return {"memory": self.memory, "swap": self.swap, "pids": self.pids, "cpu": self.cpu}


NONE = Limits()


def parse(value: object) -> Limits:
    """The `limits` of a message; ValueError with words. Fields that are not known are left alone: botd may be newer."""
    if value is None:
        return NONE
    if not isinstance(value, dict):
        raise ValueError("limits: an object is needed")
    cpu = value.get("cpu")
    # Written this way round so that NaN is refused.
    if cpu is not None and (type(cpu) not in (int, float) or not _CPU_LEAST <= cpu <= _CPU_MOST):
        raise ValueError(f"limits.cpu: cores from {_CPU_LEAST} to {_CPU_MOST:.0f} are needed")
    return Limits(
        _count(value, "memory", 1, _BYTES_MOST),
        _count(value, "swap", 0, _BYTES_MOST),
        _count(value, "pids", 1, _PIDS_MOST),
        None if cpu is None else float(cpu),
    )


def _count(value: Message, name: str, low: int, high: int) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if type(number) is not int or not low <= number <= high:
        raise ValueError(f"limits.{name}: a whole number from {low} to {high} is needed")
    return number
