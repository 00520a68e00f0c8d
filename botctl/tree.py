"""Which module declares which verb, in the order and under the headings of the help.

Only the module of the verb that is called gets imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botctl.options import Command

DAILY, FLEET, INSIGHT, DAEMON = "Daily", "Fleet", "Insight", "Daemon and tools"

# verb -> (heading, module under botctl.commands)
VERBS: dict[str, tuple[str, str]] = {
    "create": (DAILY, "create"),
    "start": (DAILY, "actions"),
    "stop": (DAILY, "actions"),
    "restart": (DAILY, "actions"),
    "delete": (DAILY, "actions"),
    "undelete": (DAILY, "trash"),
    "list": (DAILY, "bots"),
    "ps": (DAILY, "bots"),
    "ls": (DAILY, "bots"),
    "status": (DAILY, "bots"),
    "logs": (DAILY, "logs"),
    "apply": (FLEET, "fleet"),
    "diff": (FLEET, "fleet"),
    "export": (FLEET, "fleet"),
    "bulk": (FLEET, "actions"),
    "recover": (FLEET, "actions"),
    "wait": (FLEET, "wait"),
    "is-active": (FLEET, "bots"),
    "cleanup": (FLEET, "cleanup"),
    "trash list": (FLEET, "trash"),
    "trash ls": (FLEET, "trash"),
    "trash show": (FLEET, "trash"),
    "trash empty": (FLEET, "trash"),
    "template add": (FLEET, "template"),
    "template update": (FLEET, "template"),
    "template list": (FLEET, "template"),
    "template show": (FLEET, "template"),
    "template roll": (FLEET, "rolls"),
    "template rollback": (FLEET, "rolls"),
    "template abort": (FLEET, "rolls"),
    "template rolls": (FLEET, "rolls"),
    "template remove": (FLEET, "template"),
    "health": (INSIGHT, "health"),
    "explain": (INSIGHT, "explain"),
    "events": (INSIGHT, "events"),
    "resources": (INSIGHT, "users"),
    "system status": (INSIGHT, "system"),
    "system performance": (INSIGHT, "performance"),
    "system storage": (INSIGHT, "storage"),
    "daemon start": (DAEMON, "daemon"),
    "daemon stop": (DAEMON, "daemon"),
    "daemon status": (DAEMON, "daemon"),
    "daemon logs": (DAEMON, "daemon"),
    "daemon repair": (DAEMON, "repair"),
    "daemon upgrade": (DAEMON, "upgrade"),
    "daemon install": (DAEMON, "install"),
    "config show": (DAEMON, "config"),
    "config check": (DAEMON, "config"),
    "config schema": (DAEMON, "config"),
    "config reload": (DAEMON, "config"),
    "doctor": (DAEMON, "doctor"),
    "demo": (DAEMON, "demo"),
    "completion": (DAEMON, "completion"),
    "version": (DAEMON, "version"),
}

NOUNS = {
    "trash": "Deleted bots, for as long as they are kept",
    "template": "Code that many bots share, and its releases",
    "system": "The machine and the work of the daemon",
    "daemon": "Start, stop, repair and install botd, the process behind all of this",
    "config": "The configuration that is in force, and checking a new one",
}


def find(verb: str) -> Command | None:
    """The command of this full name ("list", "system status") or alias, or None."""
    place = VERBS.get(verb)
    if place is None:
        return None
    # importlib.import_module would import importlib first; this is what it does.
    module = __import__(f"botctl.commands.{place[1]}", fromlist=["COMMANDS"])
    commands: tuple[Command, ...] = module.COMMANDS
    return next(command for command in commands if verb == command.name or verb in command.aliases)
