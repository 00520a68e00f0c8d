"""The steps of an operator's day: limits, looking around, cleaning up."""

from __future__ import annotations

import os
import socket
import time

from botctl.demo.show import Show

_LIMIT = 50
_OLD_S = 3 * 86_400


def limits(show: Show) -> None:
    stage, fleet, world = show.stage, show.fleet, show.world
    missing = _LIMIT - len(fleet.bots("user:alice"))
    spares = [{"id": f"alice/spare-{i:02}", "command": ["python3", "bot.py"]} for i in range(1, missing + 1)]
    world.manifest("spares.toml", {"schema": 1, "defaults": {"enabled": False}, "bot": spares})
    stage.say(f"spares.toml gives alice {missing} more bots, switched off:")
    show.run("apply", "-q", "-f", "spares.toml")
    show.run("resources", "--user", "alice")
    stage.claim(f"alice has {_LIMIT} bots, which is all that she may have", len(fleet.bots("user:alice")) == _LIMIT)
    refused = show.run("create", "alice/one-more", "--", "python3", "bot.py", expect=6)
    stage.claim(
        f"one more is refused: which limit, that it is {_LIMIT}, and what to do",
        refused.says("limit of 50", "resourceManagement.maxBotsPerUser", "try:"),
    )
    stage.claim("and nothing was changed", "alice/one-more" not in fleet.bots())
    show.run("delete", "alice/spare-*", "--yes", "-q")
    stage.claim("bots that are no longer needed make room again", len(fleet.bots("user:alice")) == _LIMIT - missing)
    show.figures.append(("51st bot", f"refused, exit status {refused.status}"))


def looking(show: Show) -> None:
    stage, fleet = show.stage, show.fleet
    bots = fleet.bots()
    listed = show.run("list")
    stage.claim(f"all {len(bots)} are in the list, none is missing", listed.says(*bots))
    show.run("health")
    summary = fleet.call("bots.health")["summary"]
    stage.claim("all of them are well", summary["healthy"] == summary["total"] == len(bots))
    show.run("resources")
    show.run("system", "status")
    recovery = fleet.call("system.performance")["recovery"]
    attempts, successes = recovery["attempts"], recovery["successes"]
    stage.claim(
        f"what was broken in this demo was counted right: {attempts} restarts, {successes} recoveries",
        (attempts, successes) == (show.attempts, show.recoveries),
    )
    show.run("logs", "alice/shop", "-n", "5", "--no-prefix")
    stage.claim("none of the secrets stands in anything that was printed, nor in botd's log", not _leaks(show))
    show.figures.append(("recoveries", f"{successes}, {recovery['mean_time_to_recovery_s']:.1f} s on average"))


def _leaks(show: Show) -> list[str]:
    with open(f"{show.world.home}/run/botd.log", encoding="utf-8", errors="replace") as log:
        told = "\n".join([*show.printed, log.read()])
    return [path for path, secret in show.world.secrets.items() if secret in told]


def clean_up(show: Show) -> None:
    stage, world = show.stage, show.world
    old, young, sock = _litter(world.home)
    stage.say("Put there for this: a socket of nobody, data of a bot deleted three days ago, and of one")
    stage.say("that was deleted just now.")
    show.run("cleanup", "--dry-run")
    stage.claim("a dry run only looks", all(map(os.path.lexists, (old, young, sock))))
    show.run("cleanup", "--yes")
    stage.claim("what nobody needs is gone", not os.path.lexists(old) and not os.path.lexists(sock))
    stage.claim("what is younger than a day (maxFileAge) is still there", os.path.exists(young))


def _litter(home: str) -> tuple[str, str, str]:
    """Left-overs as accidents make them: the folder of a bot long gone, of one just gone, and a dead socket."""
    folders = [f"{home}/bots/bob/{name}" for name in ("long-gone", "just-gone")]
    for folder in folders:
        os.makedirs(f"{folder}/data", 0o700)
        with open(f"{folder}/data/state.json", "w", encoding="utf-8") as file:
            file.write("{}\n")
    then = time.time() - _OLD_S
    for path in (f"{folders[0]}/data/state.json", f"{folders[0]}/data", folders[0]):
        os.utime(path, (then, then))
    path = f"{home}/run/old.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    return folders[0], folders[1], path
