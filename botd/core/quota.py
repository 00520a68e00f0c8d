"""What a user may keep on disk (maxStoragePerUser): who is near, who is over, which bot is stopped for it. Pure.

The limit itself is sharp: over it starts and creations are refused, at it or below they are not. What is told has some
slack, so that a user who comes and goes at a limit is not told of every turn.

Whoever is over keeps what runs, as long as it does not write on: the bot that grows fastest is stopped, then the next
one, until nothing grows any more. Nothing is ever deleted for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from botd.core.admission import Refusal
from botd.core.bot import BotState
from botd.core.settings import MIB, Limits

Level = Literal["within", "near", "over"]

SOFT = 0.8
"""From this share of the limit on a user is told to be near it."""
SLACK = 0.05
"""So far (a share of the limit) under a mark it counts as left."""
GROWS = MIB
"""A bot of a user who is over that has added so much goes on writing. A changed session file is less."""
WILD = 1.05
"""A bot that would fill so many times the limit within its grace gets none."""
STEP_MIN, STEP_MAX = MIB, 32 * MIB
_SHARE_OF_ROOM = 4
_SHOWN = 3


class Usage(NamedTuple):
    """What one bot takes on disk, bytes in whole blocks. `private`: its folder without what it only links to."""

    private: int = 0
    logs: int = 0

    @property
    def total(self) -> int:
        return self.private + self.logs


class Quota(NamedTuple):
    """Bytes of one user."""

    soft: int
    hard: int


class Big(NamedTuple):
    """A bot and its bytes."""

    id: str
    bytes: int


class Writer(NamedTuple):
    """A running bot of a user who is over. Bytes; `base`: its size when the growth began to count; `rate` a minute;
    `witnessed`: its processes have written about as much, or it has grown at two looks in a row.
    """

    id: str
    generation: int
    size: int
    base: int
    rate: float
    grace_s: float
    witnessed: bool = True

    @property
    def grows(self) -> bool:
        return self.size - self.base >= GROWS


class Sentence(NamedTuple):
    """This bot is stopped for `reason`; `at_once` without its grace."""

    writer: Writer
    reason: str
    at_once: bool


def quota_of(limits: Limits) -> Quota:
    hard = limits.max_storage_per_user_bytes
    return Quota(int(hard * SOFT), hard)


def level(before: Level, used: int, quota: Quota) -> Level:
    """Where a user stands who keeps `used` bytes and stood at `before` when it was looked at last."""
    slack = int(quota.hard * SLACK)
    if used > quota.hard or (before == "over" and used > quota.hard - slack):
        return "over"
    if used > quota.soft or (before != "within" and used > quota.soft - slack):
        return "near"
    return "within"


def told(user: str, before: Level, after: Level, used: int, quota: Quota, big: Sequence[Big], stopped: int) -> str:
    """The line of history for a change of level, "" for none. `stopped`: bots that are down for the quota."""
    has = f"{user} keeps {mib(used)} of {mib(quota.hard)} (maxStoragePerUser)"
    if before == after:
        return ""
    if after == "over":
        return f"quota passed: {has}; starts and new bots are refused, who writes on is stopped; {biggest(big)}"
    if before == "over":
        back = f"; stopped for it: {stopped}, they start again with: botctl recover 'user:{user}'" if stopped else ""
        return f"quota kept again: {has}; bots may start{back}"
    if after == "near":
        return f"quota near: {has}, {100 * used / max(quota.hard, 1):.0f} %; {biggest(big)}"
    return f"quota far again: {has}"


def refuse(user: str, used: int, quota: Quota, big: Sequence[Big], deleted: int = 0) -> Refusal | None:
    """May a user who keeps `used` bytes, `deleted` of them in the trash, get or start one more bot?"""
    if used <= quota.hard:
        return None
    remedies = ["raise the limit and run: botctl config reload"]
    if big:
        shows = f"botctl resources --user {user} shows which"
        remedies.insert(0, f"delete files of {big[0].id} or, with --purge, a bot that is no longer needed ({shows})")
    if deleted:
        remedies.insert(0, f"empty the trash of {mib(deleted)} (botctl trash empty --user {user})")
    return Refusal(
        "maxStoragePerUser",
        quota.hard,
        used,
        f"{user} keeps {mib(used)} on disk, over the quota of {mib(quota.hard)} a user "
        f"(resourceManagement.maxStoragePerUser); {biggest(big)}",
        ", or ".join(remedies),
        kind="quota",
    )


def suspects(writers: Iterable[Writer]) -> list[str]:
    """Who has grown without having been seen to write: perhaps somebody put a file there. Worth another look soon."""
    return [writer.id for writer in writers if writer.grows and not writer.witnessed]


def sentence(user: str, used: int, quota: Quota, writers: Iterable[Writer]) -> Sentence | None:
    """Which of the running bots of a user ends now, if any has to."""
    if used <= quota.hard:
        return None
    growing = [writer for writer in writers if writer.grows and writer.witnessed]
    worst = max(growing, key=lambda writer: (writer.rate, writer.size - writer.base, writer.id), default=None)
    if worst is None:
        return None
    soon = used + max(0.0, worst.rate) * worst.grace_s / 60.0
    reason = (
        f"quota: {user} keeps {mib(used)} on disk, over {mib(quota.hard)} (maxStoragePerUser), "
        f"and this bot grows fastest, {mib(worst.rate)} a minute"
    )
    return Sentence(worst, reason, soon > quota.hard * WILD)


def step(used: int, quota: Quota) -> int:
    """After how many more bytes a user has to be looked at: often near a mark, seldom far from it."""
    mark = quota.soft if used <= quota.soft else quota.hard
    return min(STEP_MAX, max(STEP_MIN, (mark - used) // _SHARE_OF_ROOM))


def due(written: Mapping[str, int], used: int, quota: Quota) -> list[str]:
    """The bots of a user that are worth a look: `written` is what each seems to have written since its last one."""
    every = sum(written.values())
    if every < step(used, quota):
        return []
    return [bot_id for bot_id, count in written.items() if count * 2 * len(written) >= every]


def is_stopped_for_it(state: BotState) -> bool:
    """Whether a bot is down because its user was over, and nobody has started it since."""
    return state.phase == "stopped" and state.last_exit is not None and state.last_exit.cause == "quota"


def biggest(big: Sequence[Big]) -> str:
    """As in "biggest: alice/shop 700 MiB, alice/news 12 MiB"; `big` is sorted."""
    if not big:
        return "it has no bots"
    return "biggest: " + ", ".join(f"{one.id} {mib(one.bytes)}" for one in big[:_SHOWN])


def mib(count: float) -> str:
    if count < MIB:
        return f"{count / 1024:.0f} KiB"
    return f"{count / MIB:,.0f} MiB" if count >= 10 * MIB else f"{count / MIB:.1f} MiB"


class Shared(NamedTuple):
    """A release: its bytes in a full copy, and those of them that each bot has a copy of anyway."""

    bytes: int
    copied: int


class Savings(NamedTuple):
    """`copies`: what the bots would take if each had everything of its release; `used`: what they take."""

    copies: int
    used: int

    @property
    def percent(self) -> float:
        return 100.0 * (self.copies - self.used) / self.copies if self.copies > 0 else 0.0


def savings(private: Mapping[str, int], release_of: Mapping[str, Shared], releases_on_disk: int) -> Savings:
    """`private`: bytes by bot, of those that have a release; `release_of`: the release of each bot."""
    own = sum(private[bot_id] for bot_id in release_of)
    linked = sum(max(0, release.bytes - release.copied) for release in release_of.values())
    return Savings(own + linked, own + releases_on_disk)


def fair_share(release: Shared, bots: int) -> int:
    """What one of `bots` bots would pay of a release that they share."""
    return max(0, release.bytes - release.copied) // max(bots, 1)
