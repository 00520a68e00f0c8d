"""One life: one generation of one bot, from the fork to the acknowledged end."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botd.keeper.cage import Cage
    from botd.keeper.source import Source
    from botd.keeper.wire import Message

STALE, NOTHING, STARTED, RUNNING, FINAL = range(-1, 4)
"""How much botd was told about a life; STALE: this botd is new and needs the whole state."""


class Life:
    """What the keeper knows of a life.

    `facts` travel in `started` and `state`: pid, start_ticks, pidfd_inode, at, cgroup, folders (of controllers, where
    there are any), limits, lock, log, out, err (pipe inodes). `final` is the exited or failed message once it
    ended; until `ack` it is kept and told again.
    """

    __slots__ = (
        "cage", "child", "complained", "error_fd", "facts", "final", "gen", "id", "kill_at", "killed", "pid", "pidfd",
        "report", "running", "sources", "status", "stop_signal", "told", "unrecorded",
    )  # fmt: skip

    def __init__(self, life_id: str, gen: int) -> None:
        self.id, self.gen = life_id, gen
        self.facts: dict[str, Any] = {}
        self.pid = self.pidfd = self.error_fd = -1
        self.child = True
        self.running = False
        self.report = b""
        self.cage: Cage | None = None
        self.sources: list[Source] = []
        self.stop_signal: int | None = None
        self.kill_at: float | None = None
        self.killed = 0
        self.status: int | None = None
        self.final: Message | None = None
        self.unrecorded = self.complained = False
        self.told = NOTHING

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.gen

    @property
    def live(self) -> bool:
        return self.final is None

    def marks(self) -> list[int]:
        """Inodes of the pipes that this life writes to."""
        return [self.facts[name] for name in ("out", "err") if name in self.facts]

    def next_message(self) -> tuple[Message, list[int], int] | None:
        """What botd was not told yet: (message, descriptors, how much it knows then); None when it knows all."""
        name = {"id": self.id, "gen": self.gen}
        if self.told == STALE:
            if self.final is not None:
                return {"op": "state", **name, "live": False, "final": self.final}, [], FINAL
            message = {"op": "state", **name, "live": True, "running": self.running, **self.facts}
            message["fds"] = self.fd_names()
            return message, self.fds(), RUNNING if self.running else STARTED
        if self.told == STARTED and self.running:
            return {"op": "running", **name}, [], RUNNING
        if self.final is not None:
            return (self.final, [], FINAL) if self.told < FINAL else None
        if self.told < STARTED:
            return {"op": "started", **name, **self.facts, "fds": self.fd_names()}, self.fds(), STARTED
        return None

    def fds(self) -> list[int]:
        return [self.pidfd, *(source.fd for source in self.sources)]

    def fd_names(self) -> list[str]:
        """What the descriptors are, in their order; a pipe that a restart could not find again is missing."""
        return ["pidfd", *(source.sink.name for source in self.sources)]

    def close(self) -> None:
        for fd in (self.pidfd, self.error_fd):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.error_fd = -1


def status_words(status: int | None) -> Message:
    """code, signal, core, exact of a raw wait status; all unknown for None."""
    if status is None:
        return {"code": None, "signal": None, "core": False, "exact": False}
    if os.WIFSIGNALED(status):
        return {"code": None, "signal": os.WTERMSIG(status), "core": os.WCOREDUMP(status), "exact": True}
    return {"code": os.WEXITSTATUS(status), "signal": None, "core": False, "exact": True}


def exit_words(facts: Message | None) -> str:
    """What `status_words` made of a status, for people."""
    if not facts or not facts["exact"]:
        return "how it ended is not known"
    return f"exit status {facts['code']}" if facts["signal"] is None else f"killed by signal {facts['signal']}"
