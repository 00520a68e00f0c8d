"""A bot: what its owner wants (`Spec`) and what is (`BotState`), both frozen.

All times here are seconds of CLOCK_BOOTTIME: they survive a restart of botd, do not jump when
somebody sets the clock, and are worthless after a reboot (see the event `Rebooted`). Only `at_wall`
fields are seconds since the epoch, for display.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from botd.contract.vocabulary import Phase, RestartMode

Then = Literal["stop", "restart", "retry", "delete"]
"""What follows when a stopping life has ended: nothing, a new life at once, a new life by the restart
policy, removal."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a bot whether it is well. Seconds."""

    kind: Literal["http", "tcp"]
    url: str | None = None
    port: int | None = None
    interval_s: float | None = None
    """None: as often as the configuration says (healthCheckInterval)."""
    timeout_s: float = 5.0
    failures: int = 3
    start_grace_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Spec:
    """What to run and how. Secrets are not here: only their names are, so that no listing can leak one."""

    id: str
    command: tuple[str, ...]
    directory: str
    env: Mapping[str, str] = field(default_factory=dict)
    secret_names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int | None = None
    processes: int | None = None
    """The most processes and threads of it."""
    cpu: float | None = None
    """Processors that it may keep busy."""
    restart: RestartMode = "always"
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    wants_port: bool = False
    probe: Probe | None = None
    template: str | None = None
    release: str | None = None
    """The hash of the template's release that everything here was resolved with (`core.templates`)."""
    own: Mapping[str, Any] | None = None
    """Of a bot with a template: what is set for itself, as the contract writes it. None without a template."""

    @property
    def user(self) -> str:
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Spec:
        """From a checked specification of the contract (`manifest.SPEC`), defaults applied."""
        memory, cpu = wire.get("memory_mb"), wire.get("cpu")
        return cls(
            id=wire["id"],
            command=tuple(wire["command"]),
            directory=wire["directory"],
            env=dict(sorted(wire.get("env", {}).items())),
            secret_names=tuple(sorted(wire.get("secrets", {}))),
            labels=dict(sorted(wire.get("labels", {}).items())),
            memory_bytes=None if memory is None else memory << 20,
            processes=wire.get("processes"),
            cpu=None if cpu is None else float(cpu),
            restart=wire.get("restart", "always"),
            stop_signal=wire.get("stop_signal", "SIGTERM"),
            stop_grace_s=wire.get("stop_grace_s", 10),
            wants_port=wire.get("port", False),
            probe=Probe(**wire["probe"]) if wire.get("probe") else None,
            template=wire.get("template"),
        )

    def to_wire(self) -> dict[str, Any]:
        """The same as the contract writes it, without secrets and without `enabled` (which is desire)."""
        wire: dict[str, Any] = {"id": self.id, "command": list(self.command), "directory": self.directory}
        if self.template:
            wire["template"] = self.template
        wire |= {"env": dict(self.env), "labels": dict(self.labels)}
        if self.memory_bytes is not None:
            wire["memory_mb"] = self.memory_bytes >> 20
        if self.processes is not None:
            wire["processes"] = self.processes
        if self.cpu is not None:
            wire["cpu"] = self.cpu
        wire |= {
            "restart": self.restart,
            "stop_signal": self.stop_signal,
            "stop_grace_s": self.stop_grace_s,
            "port": self.wants_port,
        }
        if self.probe is not None:
            probe = {key: getattr(self.probe, key) for key in Probe.__slots__}
            wire["probe"] = {key: value for key, value in probe.items() if value is not None}
        return wire


@dataclass(frozen=True, slots=True)
class Exit:
    """How a life ended. code and signal are both None when the status is unknown: it is never guessed.

    `cause` is one word when botd itself ended the life (memory, processes, relief, unhealthy, request, quota),
    "memory" also when the kernel did for that reason, "reboot" when the machine did; empty when the bot ended by
    itself.
    """

    code: int | None
    signal: int | None
    at_wall: float
    ran_s: float = 0.0
    cause: str = ""
    note: str = ""
    """What is known beyond the status, in words that say all."""
    forks_refused: int = 0
    """How often the kernel refused it one more process or thread (its limit of them)."""

    @property
    def known(self) -> bool:
        return self.code is not None or self.signal is not None

    @property
    def clean(self) -> bool:
        # A main process may report success while the kernel ended the rest of the life for its memory.
        return self.code == 0 and self.cause != "memory"

    def words(self) -> str:
        """As in "exited with code 3" or "killed by SIGSEGV"."""
        if self.cause == "reboot":
            return "lost at a reboot of the machine"
        if self.note:
            return self.note
        if self.code is not None:
            return f"exited with code {self.code}"
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return "ended with an unknown status"


class Deadline(NamedTuple):
    """The next thing that time alone brings about for one bot."""

    kind: Literal["retry", "settle", "reset", "kill"]
    at: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Counts of automatic and asked-for recoveries; durations in seconds from the end to running again."""

    attempts: int = 0
    successes: int = 0
    failures: int = 0
    total_s: float = 0.0
    worst_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BotState:
    """Everything that is true of one bot now. `lifecycle.step` is the only place that changes one."""

    phase: Phase = "stopped"
    wanted: bool = False
    generation: int = 0
    """The number of the current or last life; the first is 1."""
    pid: int | None = None
    since: float = 0.0
    """When this phase began."""
    started_at: float | None = None
    """When the current life began to run its program."""
    settled: bool = False
    """The current life has run long enough to be believed (or its probe said so)."""
    health: Literal["unknown", "healthy", "unhealthy"] = "unknown"
    health_note: str = ""
    attempts: int = 0
    """Automatic restarts in a row since it last ran well."""
    restarts: int = 0
    """Automatic restarts since it was created."""
    recovering: bool = False
    """The current life was started to end an outage."""
    then: Then = "stop"
    """Meaningful while stopping."""
    cause: str = ""
    """While stopping: why, as one word for the exit to come."""
    purge: bool = False
    """While it is being deleted: its data goes at once, too."""
    deadline: Deadline | None = None
    reason: str = ""
    last_exit: Exit | None = None
    outage_at: float | None = None
    """Since when a wanted bot has been down."""
    recovery: Recovery = Recovery()


@dataclass(frozen=True, slots=True)
class NewBot:
    """What `create` needs of a bot; secrets with their values."""

    spec: Spec
    secrets: Mapping[str, str]
    port: int | None
    source: str | None


@dataclass(frozen=True, slots=True)
class ChangedBot:
    """What `change` needs; `secrets` None keeps those on record, `text` is the line of history."""

    spec: Spec
    secrets: Mapping[str, str] | None
    port: int | None
    source: str | None
    text: str


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
