"""bot_config.json <-> Settings, on the daemon's side: where the file is, what is in force, what changed.

The daemon never imports pydantic (10 MB, 120 ms): the file is checked by a short-lived child that runs
`config_cli.py` and answers with one JSON document. `config_model.py` holds the rules that it checks.

A *document* is a dictionary in the file's own form, complete: every block, every key, the file's units.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from botd.contract.errors import BotdError
from botd.contract.paths import Paths, config_candidates
from botd.contract.vocabulary import Exit
from botd.core.settings import MIB, Settings

CHECK_TIMEOUT_S = 20.0

Unit = Literal["", "ms", "MiB", "%", "cores"]


class Key(NamedTuple):
    """Where one key of the file stands in Settings. Two fields: the file has a pair."""

    block: str
    name: str
    group: str
    fields: tuple[str, ...]
    unit: Unit = ""

    @property
    def path(self) -> str:
        return f"{self.block}.{self.name}"

    def to_setting(self, value: Any) -> Any:
        if value is None:  # no limit
            return None
        match self.unit:
            case "ms":
                return value / 1000
            case "MiB":
                return value * MIB
            case "%" | "cores":
                return float(value)
        return value

    def to_file(self, value: Any) -> Any:
        if value is None:  # no limit
            return None
        match self.unit:
            case "ms":
                return round(value * 1000)
            case "MiB":
                return value // MIB
            case "%" | "cores":
                return int(value) if value == int(value) else value
        return value


_RESOURCES, _STORAGE, _RECOVERY = "resourceManagement", "storageOptimization", "botRecovery"
_MONITORING, _SECURITY, _OUTPUT = "monitoring", "security", "output"

KEYS: tuple[Key, ...] = (
    Key(_RESOURCES, "maxBotsPerUser", "limits", ("max_bots_per_user",)),
    Key(_RESOURCES, "maxTotalBots", "limits", ("max_total_bots",)),
    Key(_RESOURCES, "maxMemoryPerBot", "limits", ("max_memory_per_bot_bytes",), "MiB"),
    Key(_RESOURCES, "maxSwapPerBot", "limits", ("max_swap_per_bot_bytes",), "MiB"),
    Key(_RESOURCES, "maxProcessesPerBot", "limits", ("max_processes_per_bot",)),
    Key(_RESOURCES, "maxCpuPerBot", "limits", ("max_cpu_per_bot",), "cores"),
    Key(_RESOURCES, "memoryThreshold", "limits", ("memory_threshold_percent",), "%"),
    Key(_RESOURCES, "maxStoragePerUser", "limits", ("max_storage_per_user_bytes",), "MiB"),
    Key(_RESOURCES, "cleanupInterval", "cleaning", ("cleanup_interval_s",), "ms"),
    Key(_RESOURCES, "healthCheckInterval", "monitoring", ("health_check_interval_s",), "ms"),
    Key(_RESOURCES, "autoRestartMaxAttempts", "restart", ("max_attempts",)),
    Key(_RESOURCES, "portRange", "limits", ("port_first", "port_last")),
    Key(_STORAGE, "useSymbolicLinks", "cleaning", ("use_symbolic_links",)),
    Key(_STORAGE, "enableGarbageCollection", "cleaning", ("garbage_collection",)),
    Key(_STORAGE, "cleanupInterval", "cleaning", ("storage_interval_s",), "ms"),
    Key(_STORAGE, "maxFileAge", "cleaning", ("max_file_age_s",), "ms"),
    Key(_STORAGE, "deleteGrace", "cleaning", ("delete_grace_s",), "ms"),
    Key(_RECOVERY, "autoRestart", "restart", ("enabled",)),
    Key(_RECOVERY, "restartDelay", "restart", ("delay_s",), "ms"),
    Key(_RECOVERY, "exponentialBackoff", "restart", ("exponential",)),
    Key(_RECOVERY, "maxBackoffDelay", "restart", ("max_delay_s",), "ms"),
    Key(_RECOVERY, "backoffResetAfter", "restart", ("reset_after_s",), "ms"),
    Key(_RECOVERY, "healthCheckEnabled", "monitoring", ("health_checks",)),
    Key(_RECOVERY, "settleTime", "restart", ("settle_s",), "ms"),
    Key(_MONITORING, "enableResourceMonitoring", "monitoring", ("resource_monitoring",)),
    Key(_MONITORING, "enablePerformanceTracking", "monitoring", ("performance_tracking",)),
    Key(_MONITORING, "metricsCollection", "monitoring", ("metrics_collection",)),
    Key(_MONITORING, "sampleInterval", "monitoring", ("sample_interval_s",), "ms"),
    Key(_MONITORING, "logLevel", "monitoring", ("log_level",)),
    Key(_SECURITY, "socketAccess", "security", ("socket_access",)),
    Key(_SECURITY, "isolation", "security", ("isolation",)),
    Key(_SECURITY, "rateLimitEnabled", "security", ("rate_limit_enabled",)),
    Key(_SECURITY, "maxRequestsPerMinute", "security", ("max_requests_per_minute",)),
    Key(_SECURITY, "sessionTimeout", "security", ("session_timeout_s",), "ms"),
    Key(_SECURITY, "enableAuditLog", "security", ("audit_log",)),
    Key(_OUTPUT, "maxLogSize", "output", ("max_bytes",), "MiB"),
    Key(_OUTPUT, "keepLogs", "output", ("keep",)),
    Key(_OUTPUT, "compress", "output", ("compress",)),
    Key(_OUTPUT, "rotateAfter", "output", ("rotate_after_s",), "ms"),
    Key(_OUTPUT, "maxAge", "output", ("max_age_s",), "ms"),
    Key(_OUTPUT, "maxPerBot", "output", ("max_bytes_per_bot",), "MiB"),
    Key(_OUTPUT, "maxPerUser", "output", ("max_bytes_per_user",), "MiB"),
)


class Source(NamedTuple):
    """The file that configures a fleet. `required`: somebody named it, so that its absence is an error."""

    path: str
    required: bool

    @property
    def found(self) -> bool:
        """Whether something stands there; a dangling link does, and is an error when it is read."""
        return os.path.lexists(self.path)


class Change(NamedTuple):
    """One key whose value differs, in the file's form and units."""

    key: str
    before: Any
    after: Any


def locate(environ: Mapping[str, str], paths: Paths, option: str | None = None) -> Source:
    """The file to read: `option` (--config), else BOTD_CONFIG, else the fleet's own, else /etc/botd's."""
    return Source(*config_candidates(environ, paths, option))


def effective(settings: Settings) -> dict[str, Any]:
    """The complete document that these settings are: what `config show` prints."""
    document: dict[str, Any] = {}
    for key in KEYS:
        group = getattr(settings, key.group)
        values = [key.to_file(getattr(group, name)) for name in key.fields]
        document.setdefault(key.block, {})[key.name] = values if len(values) > 1 else values[0]
    return document


def settings_from_json(document: Any) -> Settings:
    """The settings that a complete, already checked document means. Raises BotdError(internal) on any other."""
    groups: dict[str, dict[str, Any]] = {field.name: {} for field in fields(Settings)}
    try:
        for key in KEYS:
            value = document[key.block][key.name]
            values = value if len(key.fields) > 1 else [value]
            for name, one in zip(key.fields, values, strict=True):
                groups[key.group][name] = key.to_setting(one)
    except (KeyError, TypeError, ValueError) as error:
        raise BotdError("internal", f"the checked configuration is incomplete: {error!r}") from error
    defaults = Settings()
    return Settings(**{name: type(getattr(defaults, name))(**values) for name, values in groups.items()})


def changes(before: Settings, after: Settings) -> list[Change]:
    """The keys that differ, in the order of the file: what a reload reports."""
    old, new = effective(before), effective(after)
    return [
        Change(key.path, old[key.block][key.name], new[key.block][key.name])
        for key in KEYS
        if old[key.block][key.name] != new[key.block][key.name]
    ]


async def load_in_child(path: str, *, required: bool = True, timeout_s: float = CHECK_TIMEOUT_S) -> Settings:
    """The settings of the file at `path`, checked by a child of its own; the defaults where nothing stands
    and it is not `required`.

    Raises BotdError: invalid (exit 9, every problem in `details["problems"]`) when the file is bad,
    timeout or internal when the child could not say. Never leaves a child behind.
    """
    if not required and not Source(path, required).found:
        return Settings()
    child = await asyncio.create_subprocess_exec(
        *_command(path),
        cwd=_PACKAGES,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, complaints = await child.communicate()
    except TimeoutError:
        raise BotdError(
            "timeout",
            f"{path}: checking it took longer than {timeout_s:g} s",
            hint=f"the machine may be out of memory or its disk stalled; try: botctl config check {path}",
        ) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return _read_answer(output, complaints, child.returncode, path)


# The working folder of the child: `-m` puts it first on the module path, and nobody's stray json.py may stand there.
_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _command(path: str) -> list[str]:
    return [sys.executable, "-m", "botd.config_cli", "check", os.path.abspath(path), "--print"]


def _read_answer(output: bytes, complaints: bytes, status: int | None, path: str) -> Settings:
    try:
        answer = json.loads(output)
        if "error" in answer:
            raise BotdError.from_rpc(answer["error"])
        document = answer["settings"]
    except (ValueError, TypeError, KeyError):
        said = complaints.decode("utf-8", "replace").strip().rpartition("\n")[2][-300:] or "nothing"
        raise BotdError(
            "internal",
            f"{path}: the check ended with status {status} and said: {said}",
            hint=f"try: botctl config check {path}",
            exit=Exit.FAILED,
        ) from None
    return settings_from_json(document)
