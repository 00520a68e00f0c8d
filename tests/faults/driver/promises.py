"""What botd acknowledged, and therefore owes: for each bot, what may be true of it now.

A request that was answered leaves one possibility. One whose answer never came leaves two, until the next answer.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

ENDING = ("stop", "restart", "delete", "apply")
"""Verbs that may end a life."""


@dataclass
class Asked:
    """One request that may end a life of a bot. It may take effect from `at` until it was answered, or botd died."""

    bot_id: str
    verb: str
    at: float
    until: float = float("inf")


@dataclass
class Debt:
    exists: set = field(default_factory=lambda: {False})
    wanted: set = field(default_factory=lambda: {False})
    labels: list = field(default_factory=lambda: [{}])


class Promises:
    """`asked` has every request that may end a life, answered or not; times are monotonic."""

    def __init__(self, clock):
        self._clock = clock
        self._debts = {}
        self.asked = []
        self.acknowledged = self.unanswered = 0

    def debt(self, bot_id):
        return self._debts.setdefault(bot_id, Debt())

    @contextmanager
    def request(self, verb, *bot_ids, **facts):
        """Around one request. `facts`: exists, wanted, labels as they will be. Left by an exception: no answer."""
        asked = []
        for bot_id in bot_ids:
            debt = self.debt(bot_id)
            for name, value in facts.items():
                possible = getattr(debt, name)
                if value not in possible:
                    possible.add(value) if isinstance(possible, set) else possible.append(value)
            if verb in ENDING:
                asked.append(Asked(bot_id, verb, self._clock()))
        self.asked += asked
        refused = []
        try:
            yield refused.append
        except Exception:
            self.unanswered += len(bot_ids)
            raise
        finally:
            for one in asked:
                one.until = self._clock()
        self.acknowledged += len(bot_ids) - len(refused)
        for bot_id in bot_ids:
            if bot_id in refused:
                # It changed nothing, or nobody knows: both stay possible until the next answer.
                continue
            for name, value in facts.items():
                kept = [value] if name == "labels" else {value}
                setattr(self.debt(bot_id), name, kept)

    def broken(self, views, members):
        """What botd owes and does not have, in words; `views` are its bots by id."""
        out = []
        finishing = {member.id for member in members if member.finishes}
        for bot_id, debt in self._debts.items():
            view = views.get(bot_id)
            leaving = view is not None and view["phase"] == "stopping" and False in debt.exists
            if (view is not None) not in debt.exists and not leaving:
                out.append(f"{bot_id}: {'it is there again' if view else 'it is gone'}, which nobody was told")
                continue
            if view is None or False in debt.exists:
                continue
            wanted = view["desired"] == "running"
            if wanted not in debt.wanted and not (bot_id in finishing and not wanted):
                out.append(f"{bot_id}: desired is {view['desired']}, acknowledged was the opposite")
            if view["labels"] not in debt.labels:
                out.append(f"{bot_id}: labels are {view['labels']}, acknowledged was {debt.labels}")
        return out + [f"{bot_id}: nobody asked for it" for bot_id in views.keys() - self._debts.keys()]

    def settle(self, views):
        """What was left open is known now."""
        for bot_id, debt in self._debts.items():
            view = views.get(bot_id)
            debt.exists = {view is not None}
            if view is not None:
                debt.wanted, debt.labels = {view["desired"] == "running"}, [view["labels"]]
                if view["phase"] == "stopping":
                    debt.exists = debt.exists | {False}
