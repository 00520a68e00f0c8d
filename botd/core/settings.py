"""The configuration as the core wants it: seconds, bytes, plain words. `config.py` makes it from bot_config.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """resourceManagement, as far as it admits, refuses or relieves."""

    max_bots_per_user: int = 50
    max_total_bots: int | None = 200
    max_memory_per_bot_bytes: int = 512 * MIB
    max_swap_per_bot_bytes: int | None = 0
    max_processes_per_bot: int | None = 512
    max_cpu_per_bot: float | None = None
    memory_threshold_percent: float = 80.0
    max_storage_per_user_bytes: int = 1024 * MIB
    port_first: int = 21000
    port_last: int = 29999


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """botRecovery plus autoRestartMaxAttempts. Durations in seconds."""

    enabled: bool = True
    delay_s: float = 0.25
    exponential: bool = True
    max_delay_s: float = 30.0
    reset_after_s: float = 60.0
    max_attempts: int = 10
    settle_s: float = 1.0
    """A life without a probe that has run this long is believed healthy."""


@dataclass(frozen=True, slots=True)
class Output:
    """How much of a bot's output is kept: `keep` rotated files of `max_bytes` beside the current one.

    None: no such bound. `rotate_after_s`: age of its first byte at which the current file is rotated; `max_age_s`: age
    of its last byte at which a rotated one is removed; the budgets count all files on disk.
    """

    max_bytes: int = 10 * MIB
    keep: int = 5
    compress: bool = True
    rotate_after_s: float | None = None
    max_age_s: float | None = None
    max_bytes_per_bot: int | None = None
    max_bytes_per_user: int | None = None


@dataclass(frozen=True, slots=True)
class Cleaning:
    """storageOptimization and the cleanup of resourceManagement. Seconds; 0 = never by itself."""

    use_symbolic_links: bool = True
    garbage_collection: bool = True
    cleanup_interval_s: float = 300.0
    storage_interval_s: float = 600.0
    max_file_age_s: float = 86400.0
    delete_grace_s: float = 604800.0
    """For how long a deleted bot can be brought back."""


@dataclass(frozen=True, slots=True)
class Monitoring:
    resource_monitoring: bool = True
    performance_tracking: bool = True
    metrics_collection: bool = True
    sample_interval_s: float = 5.0
    health_checks: bool = True
    health_check_interval_s: float = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Security:
    socket_access: str = "owner"  # owner | group:NAME | everyone
    isolation: Literal["none", "uid", "sandbox"] = "none"
    rate_limit_enabled: bool = True
    max_requests_per_minute: int = 100
    session_timeout_s: float = 2_592_000.0
    audit_log: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    limits: Limits = field(default_factory=Limits)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    output: Output = field(default_factory=Output)
    cleaning: Cleaning = field(default_factory=Cleaning)
    monitoring: Monitoring = field(default_factory=Monitoring)
    security: Security = field(default_factory=Security)
