"""Bots as the contract shows them. Environment values and secrets never leave here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from botd.contract.errors import BotdError, nearest
from botd.core import caps, mechanisms, quota, restart
from botd.core.bot import Exit, signal_name
from botd.core.fleet import Bot
from botd.core.ledger import Figure
from botd.server.services import Services
from botd.state.store import StoredEvent
from botd.storage import folders
from botd.system.clock import rfc3339

Field = Callable[["Views", Bot], Any]


class Views:
    """Makes views at one instant, so that every age in a listing belongs to the same now."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.now = services.clock.boottime()
        self.wall = services.clock.wall()
        self._sharing: Counter[tuple[str | None, str | None]] | None = None

    def bots(self, bots: Iterable[Bot], fields: Sequence[str] | None = None) -> list[dict[str, Any]]:
        chosen = [(name, FIELDS[name]) for name in (fields or FIELDS)]
        return [{name: field(self, bot) for name, field in chosen} for bot in bots]

    def bot(self, bot: Bot) -> dict[str, Any]:
        return self.bots((bot,))[0]

    def at(self, boottime: float | None) -> str | None:
        """An instant of CLOCK_BOOTTIME on today's wall clock."""
        return None if boottime is None else rfc3339(self.wall - self.now + boottime)

    def sample(self, bot: Bot) -> Any:
        return self._services.monitor.sample_of(bot.id)

    def caps(self, bot: Bot) -> caps.Caps:
        return caps.caps_of(bot.spec, self._services.settings.limits)

    def limits_by(self, bot: Bot) -> dict[str, str]:
        """How each of its limits holds."""
        services = self._services
        folders = services.monitor.folders_of(bot) if bot.state.pid is not None else None
        sampling = services.settings.monitoring.resource_monitoring
        return {
            limit: mechanisms.mode(limit, services.hello(), folders, sampling=sampling) for limit in mechanisms.LIMITS
        }

    def figure(self, bot: Bot) -> Figure | None:
        """What it took on disk when it was measured last."""
        return self._services.usage.of_bot(bot.id)

    def shared(self, bot: Bot) -> int:
        """Its fair share of the release that it and others link to."""
        release = self._services.shared(bot)
        if release is None:
            return 0
        key = (bot.spec.template, bot.spec.release)
        if self._sharing is None:
            self._sharing = Counter((each.spec.template, each.spec.release) for each in self._services.fleet)
        return quota.fair_share(release, self._sharing[key])

    def log_bytes(self, bot: Bot) -> int:
        return folders.usage(self._services.paths.bot_logs(bot.id))


def exit_view(exit: Exit | None) -> dict[str, Any] | None:
    if exit is None:
        return None
    return {
        "code": exit.code,
        "signal": None if exit.signal is None else signal_name(exit.signal),
        "reason": exit.cause or exit.words(),
        "words": restart.words_of(exit),
        "at": rfc3339(exit.at_wall),
        "ran_s": round(exit.ran_s, 3),
    }


def _uptime(views: Views, bot: Bot) -> float | None:
    started = bot.state.started_at
    return None if started is None else round(max(0.0, views.now - started), 3)


def _retry_at(views: Views, bot: Bot) -> str | None:
    deadline = bot.state.deadline
    return views.at(deadline.at) if deadline is not None and bot.state.phase == "backoff" else None


def _sampled(key: str) -> Field:
    def field(views: Views, bot: Bot) -> Any:
        sample = views.sample(bot)
        return None if sample is None else getattr(sample, key)

    return field


FIELDS: dict[str, Field] = {
    "id": lambda v, b: b.spec.id,
    "user": lambda v, b: b.spec.user,
    "name": lambda v, b: b.spec.name,
    "phase": lambda v, b: b.state.phase,
    "health": lambda v, b: b.health,
    "desired": lambda v, b: "running" if b.state.wanted else "stopped",
    "pid": lambda v, b: b.state.pid,
    "started_at": lambda v, b: v.at(b.state.started_at),
    "uptime_s": _uptime,
    "restarts": lambda v, b: b.state.restarts,
    "attempts": lambda v, b: b.state.attempts,
    "generation": lambda v, b: b.state.generation,
    "template": lambda v, b: b.spec.template,
    "release": lambda v, b: b.spec.release,
    "memory_bytes": _sampled("memory_bytes"),
    "memory_limit_bytes": lambda v, b: v.caps(b).memory_bytes,
    "cpu_percent": _sampled("cpu_percent"),
    "cpu_limit": lambda v, b: v.caps(b).cpu,
    "processes": _sampled("threads"),
    "processes_limit": lambda v, b: v.caps(b).processes,
    "limits_by": lambda v, b: v.limits_by(b),
    "last_exit": lambda v, b: exit_view(b.state.last_exit),
    "next_retry_at": _retry_at,
    "reason": lambda v, b: b.state.reason or ("" if b.state.health == "healthy" else b.state.health_note),
    "labels": lambda v, b: b.spec.labels,
    "port": lambda v, b: b.port,
    "restart": lambda v, b: b.spec.restart,
    "command": lambda v, b: b.spec.command,
    "directory": lambda v, b: b.spec.directory,
    "env": lambda v, b: dict.fromkeys((*b.spec.env, *b.spec.secret_names), "***"),
    "created_at": lambda v, b: rfc3339(b.created_at_wall),
    "log_bytes": lambda v, b: v.log_bytes(b),
    "storage_bytes": lambda v, b: None if (figure := v.figure(b)) is None else figure.usage.total,
}


def check_fields(fields: Sequence[str] | None) -> None:
    for name in fields or ():
        if name not in FIELDS:
            near = nearest(name, FIELDS)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(FIELDS)}"
            raise BotdError("invalid", f"fields: no field {name!r}", hint=hint, code=-32602)


def event_view(event: StoredEvent) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": rfc3339(event.at_wall),
        "id": event.id,
        "kind": event.kind,
        "text": event.text,
        "generation": event.generation,
    }
