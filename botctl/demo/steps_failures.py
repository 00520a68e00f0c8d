"""The steps in which something breaks: bots are killed, botd is killed, a bot cannot start."""

from __future__ import annotations

import signal
import time
from typing import Any

from botctl.demo import processes
from botctl.demo.facebook import Reply, Waiting
from botctl.demo.fleet import until
from botctl.demo.show import Show, ms
from botd.contract.errors import BotdError

_PATIENCE_S = 30.0

# Different ones, so that a recorded end can only be the right one by being exact.
_ENDS = {"alice/weather": signal.SIGKILL, "bob/reminders": signal.SIGHUP, "carol/quiz": signal.SIGUSR2}
_BROKEN = "alice/flowers"

# restartDelay doubled each time, less the quarter that chance may take away, less a millisecond of rounding. There is
# no longest: a busy machine may be late.
_LEAST_WAITS_S = (0.1865, 0.374, 0.749)


def crash(show: Show) -> None:
    stage, fleet, facebook = show.stage, show.fleet, show.facebook
    before, seq = fleet.bots(), fleet.last_seq()
    victims = list(show.memories)
    stage.command(f"kill -9 {' '.join(str(before[bot_id]['pid']) for bot_id in victims)}", note=", ".join(victims))
    killed_at = {bot_id: _end(show, before[bot_id]["pid"], signal.SIGKILL) for bot_id in victims}
    asked = {
        bot_id: facebook.send(show.address(before[bot_id]), sender, "!recall")
        for bot_id, (sender, _) in show.memories.items()
    }
    replies = _await_all(asked)
    show.run("wait", *victims, "--for", "healthy")
    after = fleet.bots()
    rows = []
    for bot_id in victims:
        told = {event["kind"]: event["at_s"] for event in reversed(fleet.events(seq, bot_id))}
        times = (told["started"], told["recovered"], replies[bot_id].at)
        pids = (before[bot_id]["pid"], after[bot_id]["pid"])
        rows.append((bot_id, *map(str, pids), *(ms(at - killed_at[bot_id]) for at in times)))
    headings = ("OLD PID", "NEW PID", "RUNNING", "HEALTHY", "NEXT REPLY")
    stage.table(("BOT", *headings), rows, right=headings)
    stage.say("Since the kill; it waits 188 to 250 ms before a first restart (restartDelay).", style="dim")
    others = before.keys() - set(victims)
    stage.claim(
        "all three run again by themselves, as new processes",
        all(after[bot_id]["pid"] not in (None, before[bot_id]["pid"]) for bot_id in victims),
    )
    stage.claim(
        f"the other {len(others)} were not touched",
        all(after[bot_id]["pid"] == before[bot_id]["pid"] for bot_id in others),
    )
    stage.claim(
        "each still knows what it was told before it was killed",
        all(replies[bot_id].text == wish for bot_id, (_, wish) in show.memories.items()),
    )
    show.attempts += len(victims)
    show.recoveries += len(victims)
    worst = max(replies[bot_id].at - killed_at[bot_id] for bot_id in victims)
    show.figures.append(("bots killed", f"{len(victims)}, the last one answers again after {ms(worst)}"))


def _end(show: Show, pid: int, number: int) -> float:
    """Send the signal and wait for the end; returns when it was sent, in seconds since the epoch."""
    at = time.time()
    if not processes.kill(pid, show.world.home, number, wait=True):
        show.stage.claim(f"process {pid} was there to be ended", False)
    return at


def _await_all(asked: dict[str, Waiting]) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}

    def look() -> bool | None:
        for bot_id, waiting in asked.items():
            if bot_id not in replies and (reply := waiting.look()) is not None:
                replies[bot_id] = reply
        return True if len(replies) == len(asked) else None

    until(look, "replies from " + ", ".join(asked), _PATIENCE_S)
    return replies


def daemon_killed(show: Show) -> None:
    stage, fleet, facebook = show.stage, show.fleet, show.facebook
    before, seq = fleet.bots(), fleet.last_seq()
    old = fleet.daemon()
    stage.command(f"kill -9 {old['pid']}", note="botd")
    killed_at = _end(show, old["pid"], signal.SIGKILL)
    for bot_id, number in _ENDS.items():
        stage.command(f"kill -{number.name[3:]} {before[bot_id]['pid']}", note=f"{bot_id}, while nobody watches")
        _end(show, before[bot_id]["pid"], number)
    survivors = [bot_id for bot_id in before if bot_id not in _ENDS]
    answers, alone = [], 0
    for bot_id in survivors:
        answers.append(facebook.ask(show.address(before[bot_id]), facebook.person(), "!ping").text)
        alone += not _answers(show)
    pid = fleet.await_daemon(but=old["pid"])
    back_after = time.time() - killed_at
    stage.claim(f"while botd was dead, {alone} bots were asked and answered", alone > 0 and set(answers) == {"pong"})
    stage.claim(f"the keeper has started botd again (pid {pid}): it answers after {ms(back_after)}", pid != old["pid"])
    show.run("wait", "--all", "--for", "healthy", "-q")
    show.run("daemon", "status")
    after = fleet.bots()
    same = [id for id in survivors if _life(before[id]) == _life(after[id])]
    stage.claim(
        f"of {len(survivors)} bots, {len(same)} have the pid that they had: none was stopped, none runs twice",
        len(same) == len(survivors) and fleet.daemon()["keeper"]["pid"] == old["keeper"]["pid"],
    )
    _exact_ends(show, before, seq)
    show.attempts += len(_ENDS)
    show.recoveries += len(_ENDS)
    show.figures.append(("botd killed", f"back after {ms(back_after)}, {len(same)} of {len(survivors)} pids unchanged"))


def _answers(show: Show) -> bool:
    try:
        show.fleet.call("daemon.ping", timeout=1.0)
    except BotdError:
        return False
    return True


def _life(bot: dict[str, Any]) -> tuple[int, int, str]:
    return bot["pid"], bot["generation"], bot["started_at"]


def _exact_ends(show: Show, before: dict[str, dict[str, Any]], seq: int) -> None:
    rows, exact = [], 0
    for bot_id, number in _ENDS.items():
        ends = [event["text"] for event in show.fleet.events(seq, bot_id) if event["kind"] == "exited"]
        exact += len(ends) == 1 and ends[0].startswith(f"killed by {number.name} ")
        rows.append((bot_id, str(before[bot_id]["pid"]), number.name, "; ".join(ends)))
    show.stage.table(("BOT", "PID", "ENDED BY", "AS THE NEW BOTD KNOWS IT"), rows, right=("PID",))
    show.stage.claim("how each bot ended meanwhile is known exactly, and they run again", exact == len(_ENDS))


def crash_loop(show: Show) -> None:
    stage, fleet, world = show.stage, show.fleet, show.world
    secrets = dict(world.bots["alice/shop"]["secrets"])
    token = secrets.pop("PAGE_ACCESS_TOKEN")
    bot: dict[str, Any] = {
        "id": _BROKEN,
        "command": ["python3", "bot.py"],
        "directory": "messenger-python",
        "secrets": secrets,
    }
    world.manifest("flowers.toml", {"schema": 1, "defaults": world.defaults, "bot": [bot]})
    stage.say(f"{_BROKEN} is new. Somebody has forgotten one of its secrets.")
    show.run("apply", "-f", "flowers.toml", expect=1)
    stage.say("  ... and now it is tried again, by itself ...", style="dim")
    failed = fleet.await_phase(_BROKEN, "failed")
    told = show.run("explain", _BROKEN)
    show.run("logs", _BROKEN, "-n", "1")
    waits = backoffs(fleet.events(0, _BROKEN))
    stage.claim(
        f"three restarts, the wait doubles (less some chance): {', '.join(map(ms, waits))}",
        len(waits) == 3 and all(wait >= least for wait, least in zip(waits, _LEAST_WAITS_S, strict=True)),
    )
    stage.claim(
        "then it is failed, with the reason in words",
        "code 78" in failed["reason"] and told.says("gave up after 3 restarts in a row"),
    )
    secrets["PAGE_ACCESS_TOKEN"] = token
    world.manifest("flowers.toml", {"schema": 1, "defaults": world.defaults, "bot": [bot]})
    world.bots[_BROKEN] = bot
    stage.say()
    stage.say("The forgotten line is added to flowers.toml:")
    show.run("apply", "-f", "flowers.toml")
    show.run("recover", _BROKEN)
    reply = show.facebook.ask(show.address(fleet.bots(_BROKEN)[_BROKEN]), show.facebook.person(), "Are you there?")
    stage.claim(f"it is asked {'Are you there?'!r} and replies {reply.text!r}", reply.text == "Are you there?")
    # Three attempts that failed, and the one that a person asked for, which did not.
    show.attempts += 4
    show.recoveries += 1


def backoffs(events: list[dict[str, Any]]) -> list[float]:
    """How long each wait before a restart was, in seconds."""
    waits, since = [], None
    for event in events:
        if event["kind"] == "backoff":
            since = event["at_s"]
        elif event["kind"] == "started" and since is not None:
            waits.append(event["at_s"] - since)
            since = None
    return waits
