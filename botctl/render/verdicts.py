"""The outcome of a verb that changes something: a verdict for each bot, one exit status for all."""

from __future__ import annotations

from botctl.render.documents import items_of, printed
from botctl.render.terminal import DIM, GREEN, RED, clean
from botctl.render.units import duration, plural
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from botctl.invocation import Invocation

    Verdict = dict[str, Any]


def settle(invocation: Invocation, result: dict[str, Any]) -> int:
    """Print the verdicts as -o asks, failures also on stderr, and return the exit status."""
    verdicts = items_of(result)
    if invocation.output == "name":
        # Feeds another verb: only the bots for which this one did what it was asked.
        printed(invocation, {"items": [verdict for verdict in verdicts if verdict.get("ok")]})
    elif not printed(invocation, result) and not invocation.quiet:
        _say_ok(invocation, verdicts, result.get("elapsed_s"))
    _say_failed(invocation, verdicts)
    if len(verdicts) > 1:
        invocation.note(_summary(verdicts, result.get("elapsed_s")))
    return exit_of(verdicts)


def exit_of(verdicts: Sequence[Verdict]) -> int:
    """0 when all is well; the failures' own status when all share it, else 1; 8 when only some failed."""
    failed = [verdict for verdict in verdicts if _has_failed(verdict)]
    if not failed:
        return Exit.OK if all(verdict.get("ok") for verdict in verdicts) else Exit.PARTIAL
    if len(failed) < len(verdicts):
        return Exit.PARTIAL
    statuses = {_status_of(verdict) for verdict in failed}
    return statuses.pop() if len(statuses) == 1 else Exit.FAILED


def _has_failed(verdict: Verdict) -> bool:
    """A bot that was skipped is not done, but it has not failed either."""
    return not verdict.get("ok") and verdict.get("result") != "skipped"


def _status_of(verdict: Verdict) -> int:
    error = verdict.get("error")
    status = error.get("exit") if isinstance(error, dict) else None
    return status if isinstance(status, int) and status != 0 else Exit.FAILED


def _say_ok(invocation: Invocation, verdicts: Sequence[Verdict], elapsed: object) -> None:
    out = invocation.out
    # One bot: how long it took belongs to it; several: to the summary.
    alone = f" in {duration(elapsed)}" if len(verdicts) == 1 and isinstance(elapsed, (int, float)) else ""
    width = _id_width(verdicts)
    for verdict in verdicts:
        if not verdict.get("ok"):
            continue
        changed = verdict.get("changed", True)
        mark = out.paint(out.pick("✔", "+"), GREEN) if changed else out.paint("=", DIM)
        pid = verdict.get("pid")
        shown = f" (pid {pid})" if pid is not None and verdict.get("phase") == "running" else ""
        reason = verdict.get("reason")
        why = out.paint(f"  {clean(str(reason))}", DIM) if reason else ""
        id = clean(str(verdict.get("id"))).ljust(width)
        text = f"{clean(str(verdict.get('result', 'done')))}{shown}{alone if changed else ''}"
        out.line(f"{mark} {id}  {text if changed else out.paint(text, DIM)}{why}")


def _id_width(verdicts: Sequence[Verdict]) -> int:
    return max((len(str(verdict.get("id"))) for verdict in verdicts), default=0)


def _say_failed(invocation: Invocation, verdicts: Sequence[Verdict]) -> None:
    err = invocation.err
    width = _id_width(verdicts) if invocation.for_people and not invocation.quiet else 0
    for verdict in verdicts:
        if verdict.get("ok"):
            continue
        error = verdict.get("error")
        told = error if isinstance(error, dict) else {}
        message = clean(str(told.get("message") or verdict.get("reason") or verdict.get("result") or "failed"))
        skipped = not _has_failed(verdict)
        mark = err.paint("-", DIM) if skipped else err.paint(err.pick("✖", "x"), RED)
        invocation.warn(f"{mark} {clean(str(verdict.get('id'))).ljust(width)}  {message}")
        if told.get("hint"):
            invocation.warn(f"    {err.paint('try:', DIM)} {clean(str(told['hint']))}")


def _summary(verdicts: Sequence[Verdict], elapsed: object) -> str:
    counts: dict[str, int] = {}
    for verdict in verdicts:
        word = "failed" if _has_failed(verdict) else str(verdict.get("result", "done"))
        counts[word] = counts.get(word, 0) + 1
    # What went wrong stands last, where the eye ends.
    words = sorted(counts, key=lambda word: (word == "failed", -counts[word]))
    told = ", ".join(f"{counts[word]:,} {clean(word.replace(', ', ' and '))}" for word in words)
    took = f" in {duration(elapsed)}" if isinstance(elapsed, (int, float)) else ""
    return f"{plural(len(verdicts), 'bot')}: {told}{took}"
