"""The verbs that change bots: each bot gets a verdict of its own, and a list of verdicts gets a summary."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from botd.contract.errors import BotdError
from botd.contract.views import listing
from botd.core.admission import Refusal
from botd.core.events import DeleteRequested, Event, RestartRequested, StartRequested, StopRequested
from botd.core.fleet import Bot
from botd.core.goals import Goal, Outcome
from botd.core.quota import is_stopped_for_it
from botd.server.call import Call, nothing_matches
from botd.system.clock import rfc3339

Verb = Literal["start", "stop", "restart", "delete", "recover"]


@dataclass(frozen=True, slots=True)
class Action:
    """How a verb asks, what it waits for and how it speaks. `satisfied`: there is nothing to do."""

    event: Event
    goal: Goal
    done: str
    would: str
    satisfied_in: tuple[str, ...] = ()
    satisfied: str = ""
    begins_life: bool = False


ACTIONS: dict[Verb, Action] = {
    "start": Action(
        StartRequested(), "up", "started", "would start", ("running",), "already running", begins_life=True
    ),
    "stop": Action(StopRequested(), "stopped", "stopped", "would stop", ("stopped",), "already stopped"),
    "restart": Action(RestartRequested(), "up", "restarted", "would restart", begins_life=True),
    "delete": Action(DeleteRequested(), "gone", "deleted", "would delete"),
    "recover": Action(
        StartRequested(recover=True),
        "up",
        "recovered",
        "would recover",
        ("running", "starting", "stopping", "stopped"),
        "nothing to recover",
        begins_life=True,
    ),
}


def verdict(bot_id: str, bot: Bot | None, *, ok: bool, changed: bool, result: str, reason: str = "") -> dict[str, Any]:
    return {
        "id": bot_id,
        "ok": ok,
        "changed": changed,
        "result": result,
        "phase": None if bot is None else bot.state.phase,
        "pid": None if bot is None else bot.state.pid,
        "reason": reason,
        "error": None,
    }


def refused(bot_id: str, bot: Bot | None, error: BotdError) -> dict[str, Any]:
    out = verdict(bot_id, bot, ok=False, changed=False, result=error.kind.replace("_", " "), reason=error.message)
    out["error"] = {"kind": error.kind, "message": error.message, "hint": error.hint, "exit": error.exit}
    return out


def refuse_missing(call: Call) -> list[dict[str, Any]]:
    """Verdicts for named bots that do not exist, beside those that do: a typo must not pass unseen."""
    in_all = len(call.services.fleet)
    return [refused(bot_id, None, nothing_matches(bot_id, in_all)) for bot_id in call.missing()]


def settled(call: Call, bot_id: str, outcome: Outcome, done: str) -> dict[str, Any]:
    bot = call.services.fleet.get(bot_id)
    if outcome.ok:
        result = done if outcome.word in ("running", "stopped", "deleted", "healthy") else outcome.word
        return verdict(bot_id, bot, ok=True, changed=True, result=result, reason=outcome.reason)
    out = verdict(bot_id, bot, ok=False, changed=True, result=outcome.word, reason=outcome.reason)
    hint = f"botctl explain {bot_id}" if bot is not None else "botctl list"
    out["error"] = {"kind": outcome.kind, "message": outcome.reason, "hint": hint, "exit": outcome.exit}
    return out


def _deleted(call: Call, item: dict[str, Any]) -> dict[str, Any]:
    """With the way back, where there is one."""
    found = call.services.trash.find(item["id"])
    if call.params.get("purge") or not found:
        return item | {"result": "deleted for good", "trash": None}
    kept, until = found[0], rfc3339(found[0].until_wall)
    name = kept.key if len(found) > 1 else kept.id
    item["reason"] = f"kept until {until[:10]} {until[11:16]} UTC, to bring it back: botctl undelete {name}"
    return item | {"trash": {"key": kept.key, "kept_until": until}}


async def admissions(call: Call, users: Collection[str]) -> dict[str, Refusal | None]:
    """Why none of these users' bots may start now. Whoever made room a moment ago is not refused for old figures."""
    services = call.services
    found = {user: services.engine.admission(user) for user in users}
    over = [user for user, refusal in found.items() if refusal is not None and refusal.kind == "quota"]
    if over:
        await services.usage.refresh(id for user in over for id in services.fleet.of_user.get(user, ()))
        found |= {user: services.engine.admission(user) for user in over}
    return found


async def act(call: Call, verb: Verb, bots: Sequence[Bot], *, wait: bool, timeout_s: float) -> list[dict[str, Any]]:
    """Do `verb` to these bots, all at once, and wait for each outcome. Verdicts in the bots' order."""
    action = ACTIONS[verb]
    engine = call.services.engine
    out: dict[str, dict[str, Any]] = {}
    asked: list[Bot] = []
    refusals = await admissions(call, {bot.spec.user for bot in bots}) if action.begins_life else {}
    for bot in bots:
        refusal = refusals.get(bot.spec.user)
        if bot.state.phase == "stopping" and bot.state.then == "delete" and verb != "delete":
            error = BotdError("conflict", f"{bot.id} is being deleted", hint="wait for it, then create it again")
            out[bot.id] = refused(bot.id, bot, error)
        elif bot.state.phase in action.satisfied_in and not (verb == "recover" and is_stopped_for_it(bot.state)):
            word = action.satisfied if verb != "recover" else f"{action.satisfied}: {bot.state.phase}"
            out[bot.id] = verdict(bot.id, bot, ok=True, changed=False, result=word)
        elif refusal is not None and bot.state.pid is None:
            error = BotdError(refusal.kind, refusal.reason, hint=refusal.remedy, details={"limit": refusal.limit})
            out[bot.id] = refused(bot.id, bot, error)
        elif call.params.get("dry_run"):
            out[bot.id] = verdict(bot.id, bot, ok=True, changed=False, result=action.would)
        else:
            asked.append(bot)
    if asked:
        since = {bot.id: bot.state.generation for bot in asked}
        count = len(out)

        def tell(bot_id: str, outcome: Outcome) -> None:
            nonlocal count
            count += 1
            item = settled(call, bot_id, outcome, action.done)
            out[bot_id] = _deleted(call, item) if verb == "delete" and item["ok"] else item
            call.progress(count, len(bots), out[bot_id])

        watch = engine.watch(action.goal, since, tell)
        # A satisfied wish is recorded all the same: a bot that is wanted stays wanted.
        event = DeleteRequested(purge=True) if verb == "delete" and call.params.get("purge") else action.event
        engine.request([(bot.id, event) for bot in asked])
        if wait:
            await watch.wait(timeout_s)
        else:
            watch.cancel()
            for bot in asked:
                if bot.id not in out:
                    out[bot.id] = verdict(bot.id, bot, ok=True, changed=True, result=f"{verb} requested")
    return [out[bot.id] for bot in bots]


def report(call: Call, items: Sequence[dict[str, Any]], began: float, **more: Any) -> dict[str, Any]:
    """Verdicts as the contract lists them."""
    good = sum(1 for item in items if item["ok"])
    unchanged = sum(1 for item in items if item["ok"] and not item["changed"])
    summary = {"ok": good, "failed": len(items) - good, "unchanged": unchanged}
    elapsed = round(call.services.clock.boottime() - began, 4)
    return listing(items, summary=summary, elapsed_s=elapsed, **more)
