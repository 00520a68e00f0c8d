"""Limits at the door: admit, or refuse with the limit, its value and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from botd.core.settings import Limits


@dataclass(frozen=True, slots=True)
class Refusal:
    limit: str
    value: float
    used: float
    reason: str
    remedy: str
    kind: Literal["limit", "quota"] = "limit"


def admit_bots(
    limits: Limits, user: str, of_user: int, in_all: int, adding: int = 1, adding_in_all: int | None = None
) -> Refusal | None:
    """May `user`, who has `of_user` of `in_all` bots, get `adding` more, of `adding_in_all` asked for at once?"""
    together = adding if adding_in_all is None else adding_in_all
    if of_user + adding > limits.max_bots_per_user:
        return Refusal(
            "maxBotsPerUser",
            limits.max_bots_per_user,
            of_user,
            f"{user} has {of_user} bots, {_more(adding)} would pass the limit of {limits.max_bots_per_user} "
            "a user (resourceManagement.maxBotsPerUser)",
            "delete a bot that is no longer needed, or raise the limit and run: botctl config reload",
        )
    if limits.max_total_bots is not None and in_all + together > limits.max_total_bots:
        return Refusal(
            "maxTotalBots",
            limits.max_total_bots,
            in_all,
            f"there are {in_all} bots in all, {_more(together)} would pass the limit of {limits.max_total_bots} "
            "(resourceManagement.maxTotalBots)",
            "delete bots that are no longer needed, or raise the limit and run: botctl config reload",
        )
    return None


def admit_start(limits: Limits, memory_percent: float) -> Refusal | None:
    """May one more life begin while `memory_percent` of the machine's memory is in use?"""
    if memory_percent < limits.memory_threshold_percent:
        return None
    return Refusal(
        "memoryThreshold",
        limits.memory_threshold_percent,
        memory_percent,
        f"{memory_percent:.0f} % of the machine's memory is in use, starts are refused from "
        f"{limits.memory_threshold_percent:g} % (resourceManagement.memoryThreshold)",
        "stop a bot (botctl list shows their memory), or raise the threshold and run: botctl config reload",
    )


def _more(adding: int) -> str:
    return "one more" if adding == 1 else f"{adding} more"
