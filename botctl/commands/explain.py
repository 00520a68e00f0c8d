"""explain: why a bot is in its phase."""

from __future__ import annotations

from botctl.options import Argument, Command
from botctl.render.documents import printed
from botctl.render.events import event_style
from botctl.render.phases import phase_style, symbol
from botctl.render.terminal import BOLD, DIM, clean
from botctl.render.units import amount, duration, epoch, local
from botd.contract import selector
from botd.contract.errors import invalid
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.terminal import Terminal


def explain(invocation: Invocation, *, id: str) -> int:
    clause = selector.parse_clause(id)
    if set(clause) != {"id"} or selector.is_glob(id):
        raise invalid("", f"explain tells about one bot, not about {id!r}", hint="botctl list shows the ids")
    result = invocation.call("bots.explain", {"id": id})
    if not printed(invocation, result):
        _show(invocation.out, result)
    return Exit.OK


def _show(out: Terminal, story: dict[str, Any]) -> None:
    phase = story.get("phase")
    style = phase_style(phase)
    # The verdict is a sentence that begins with the bot's id.
    verdict = clean(str(story.get("verdict") or f"{story.get('id')} is {phase}"))
    out.line(f"{out.paint(symbol(out, phase), style)} {out.paint(verdict, BOLD)}")
    bot = story.get("bot")
    if isinstance(bot, dict) and bot.get("template"):
        text = f"template {bot['template']}, release {str(bot.get('release') or '-')[:12]}"
        out.line(out.paint(clean(text), DIM))
    events = [event for event in story.get("events") or () if isinstance(event, dict)]
    if events:
        out.line()
        _timeline(out, events)
    recovery = story.get("recovery")
    if isinstance(recovery, dict) and recovery.get("attempts"):
        out.line()
        out.line(f"Recovery: {recovery_in_words(recovery)}")
    advice = story.get("advice")
    if isinstance(advice, list) and advice:
        out.line()
        for text in advice:
            out.line(f"{out.paint(out.pick('→', '->'), BOLD)} {clean(str(text))}")


def _timeline(out: Terminal, events: list[dict[str, Any]]) -> None:
    """Each event with the time since the one before, which is what tells the story."""
    width = max(len(clean(str(event.get("kind")))) for event in events)
    before: float | None = None
    for event in events:
        at = epoch(event.get("at"))
        passed = "" if before is None or at is None else f"+{duration(at - before)}"
        before = at if at is not None else before
        kind = clean(str(event.get("kind"))).ljust(width)
        style = event_style(event.get("kind"))
        when = out.paint(f"{local(event.get('at'))} {passed:>9}", DIM)
        text = clean(str(event.get("text", "")))
        out.line(f"  {when}  {out.paint(kind, style) if style else kind}  {text}".rstrip())


def recovery_in_words(recovery: dict[str, Any]) -> str:
    """'7 attempts, 6 successful (86%), back after 310ms on average, 1.2s at worst'."""
    attempts = recovery.get("attempts")
    parts = [f"{attempts} {'attempt' if attempts == 1 else 'attempts'}"]
    rate = amount(recovery.get("success_rate"))
    if recovery.get("successes") is not None:
        share = "" if rate is None else f" ({rate * 100:.0f}%)"
        parts.append(f"{recovery['successes']} successful{share}")
    mean, worst = recovery.get("mean_time_to_recovery_s"), recovery.get("worst_time_to_recovery_s")
    if mean is not None:
        parts.append(f"back after {duration(mean)} on average")
    if worst is not None:
        parts.append(f"{duration(worst)} at worst")
    return clean(", ".join(parts))


COMMANDS = (
    Command(
        "explain",
        explain,
        "Tell why a bot is in its phase: what happened, in order, and what helps.",
        Argument("id", help="The bot, as in alice/shop."),
        examples=(("botctl explain alice/shop", "the whole story"),),
    ),
)
