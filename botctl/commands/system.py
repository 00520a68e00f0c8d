"""system status: the machine, the fleet by phase, the daemon."""

from __future__ import annotations

from botctl.commands.explain import recovery_in_words
from botctl.options import Command
from botctl.render.documents import printed
from botctl.render.mechanisms import in_words
from botctl.render.panel import gauge, panel, part, warnings
from botctl.render.phases import health_style, phases_in_words
from botctl.render.terminal import clean
from botctl.render.units import amount, duration, local, number, percent, size
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.table import Cell
    from botctl.render.terminal import Terminal


def status(invocation: Invocation) -> int:
    result = invocation.call("system.status")
    if not printed(invocation, result, key="hostname"):
        out = invocation.out
        panel(out, "Machine", _machine(out, part(result, "machine")))
        panel(out, "Fleet", _fleet(out, part(result, "fleet"), part(result, "recovery")))
        facts = daemon_facts(part(result, "daemon"), part(result, "keeper"), part(result, "config"))
        panel(out, "Daemon", [*facts, ("Limits", in_words(result))])
        warnings(out, result.get("warnings"))
    return Exit.OK


def _machine(out: Terminal, machine: dict[str, Any]) -> list[tuple[str, Cell]]:
    load = machine.get("load")
    total, free = machine.get("disk_total_bytes"), machine.get("disk_free_bytes")
    limit = machine.get("memory_threshold_percent")
    bounded = f"; no starts over {percent(limit)}" if limit is not None else ""
    memory = f"{size(machine.get('memory_used_bytes'))} of {size(machine.get('memory_total_bytes'))}"
    used, most = amount(machine.get("memory_percent")), amount(limit)
    share = None if used is None else used / 100
    warn = 0.75 if most is None else most / 100
    room, space = amount(free), amount(total)
    disk = f"{gauge(out, 1 - room / space)} {size(free)} free of {size(total)}" if room is not None and space else ""
    return [
        ("CPUs", number(machine.get("cpu_count"))),
        ("Load", " ".join(f"{value:.2f}" for value in load) if isinstance(load, list) else ""),
        ("Memory", f"{gauge(out, share, warn=warn, full=max(warn, 0.9))} {memory}{bounded}".strip() if machine else ""),
        ("Disk", disk),
        ("Up", duration(machine.get("uptime_s"))),
    ]


def _fleet(out: Terminal, fleet: dict[str, Any], recovery: dict[str, Any]) -> list[tuple[str, Cell]]:
    total, limit = number(fleet.get("total")), fleet.get("limit")
    health = part(fleet, "by_health")
    counts = {key: value for key, value in part(fleet, "by_phase").items() if isinstance(value, int)}
    return [
        ("Bots", total if limit is None else f"{total} of at most {number(limit)}"),
        ("Phases", phases_in_words(out, counts)),
        (
            "Health",
            ", ".join(out.paint(f"{n} {clean(word)}", health_style(word)) for word, n in health.items() if n),
        ),
        ("Well", percent(fleet.get("percent_healthy"))),
        ("Users", number(fleet.get("users"))),
        ("Recovery", recovery_in_words(recovery) if recovery.get("attempts") else ""),
    ]


def daemon_facts(daemon: dict[str, Any], keeper: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, Cell]]:
    """What `system status` says about botd and its keeper."""
    loaded = config.get("loaded_at")
    source = clean(str(config.get("source") or ""))
    return [
        ("botd", _process(daemon)),
        ("Keeper", _process(keeper)),
        ("Containment", clean(str(keeper.get("containment") or ""))),
        ("Config", f"{source} (loaded {local(loaded)})" if source and loaded else source),
    ]


def _process(process: dict[str, Any]) -> str:
    facts = [f"pid {process['pid']}"] if process.get("pid") is not None else []
    if process.get("version"):
        facts.append(f"version {process['version']}")
    if process.get("uptime_s") is not None:
        facts.append(f"up {duration(process['uptime_s'])}")
    if process.get("memory_bytes") is not None:
        facts.append(size(process["memory_bytes"]))
    if process.get("cpu_s") is not None:
        facts.append(f"{duration(process['cpu_s'])} of CPU")
    return clean(", ".join(facts))


COMMANDS = (
    Command(
        "system status",
        status,
        "Show the machine, the fleet by phase and the daemon.",
        examples=(("botctl system status -o json | jq .fleet.by_phase", "for programs"),),
    ),
)
