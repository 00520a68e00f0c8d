"""The steps of an operator's day: limits, looking around, cleaning up."""

from __future__ import annotations

import os
import socket

from botctl.demo.show import Show

_LIMIT = 50


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
    running = sum(" running " in line for line in listed.text.splitlines())
    stage.claim(f"all {len(bots)} are in the list, and running", running == len(bots))
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
    stage = show.stage
    lock, sock, data = _litter(show.world.home)
    stage.say("As after an accident: lock and data of a bot that is not known, a dead socket.")
    show.run("cleanup", "--dry-run")
    stage.claim("a dry run only looks", all(map(os.path.lexists, (lock, sock, data))))
    show.run("cleanup", "--yes")
    stage.claim("what nobody needs is gone", not os.path.lexists(lock) and not os.path.lexists(sock))
    stage.claim("data that is younger than a day (maxFileAge) is still there", os.path.isfile(data))


def _litter(home: str) -> tuple[str, str, str]:
    """A lock, a socket on which nobody listens, and a file of a bot that botd has never heard of."""
    lock, path = f"{home}/locks/bob+forgotten.lock", f"{home}/run/old.sock"
    folder = f"{home}/bots/bob/forgotten/data"
    os.makedirs(folder, 0o700)
    for name, content in ((lock, ""), (f"{folder}/state.json", "{}\n")):
        with open(name, "x", encoding="utf-8") as file:
            file.write(content)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    return lock, path, f"{folder}/state.json"
