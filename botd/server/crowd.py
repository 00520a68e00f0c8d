"""Who is connected: how many, how idle, and how much of ours they hold. When it is too much, the least loss goes first.

Whoever knocks last gets in at the cost of who has most connections, and of these the one that was silent for longest: a
client that comes back has lost nothing, an administrator who is refused everything. No connection with a call under way
goes, unless it is a stranger's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter, OrderedDict
from typing import Protocol

from botd.access.peer import Caller
from botd.contract.errors import BotdError
from botd.server.turns import Party, Turns, party_of

log = logging.getLogger("botd.server")

MOST = 1024
BYTES_MAX = 2 << 20
"""Unfinished lines and unsent answers of all connections together, over which who takes nothing is let go."""
WORTH = 4 << 10
"""Who holds less is not let go for it."""
FEW = 8
"""Connections of one process that may be slow at the same time when memory is short."""
STUCK_S = 0.25
"""For how long an administrator may take nothing of its answers when memory is short."""
SHED_EVERY_S = 0.05
LOOKED_AT = 64
"""Of so many the best is good enough."""
COLLECT_EVERY = 256
COMPLAIN_EVERY_S = 60.0


class Member(Protocol):
    """A connection, as far as the crowd needs it."""

    caller: Caller

    def waits_for(self) -> int:
        """0: nothing; 1: it does not read what it asked for; 2: a stream; 3: a call under way."""

    def pending(self) -> int:
        """Bytes of it in our memory."""

    def close(self) -> None:
        """What was answered leaves, then it ends."""

    def dismiss(self, error: BotdError) -> None:
        """One last word if it can be said at once, then the end."""


class Crowd:
    """All connections. `most` of them at a time: descriptors may be shorter than MOST."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.reserved = max(2, min(64, most // 4))
        """Of all, kept for administrators."""
        self.per_uid = max(2, most // 2)
        self.evicted = 0
        self.turns = Turns()
        self._of: dict[Party, OrderedDict[Member, None]] = {}
        self._total = 0
        self._holders: dict[Member, tuple[int, float]] = {}
        self._bytes = 0
        self._shedding = False
        self._complained = -COMPLAIN_EVERY_S

    def __len__(self) -> int:
        return self._total

    def members(self) -> list[Member]:
        return [member for members in self._of.values() for member in members]

    # --- how many -----------------------------------------------------------------------------------

    def make_room(self, caller: Caller) -> None:
        """For one more connection of `caller`. Raises BotdError(unavailable)."""
        admin = caller.role == "admin"
        party = party_of(caller)
        if not admin and len(self._of.get(party, ())) >= self.per_uid and not self._evict(party, admin):
            raise self._full(f"too many connections of uid {caller.uid} ({self.per_uid})")
        if self._total >= (self.most if admin else self.most - self.reserved) and not self._evict(None, admin):
            raise self._full(f"too many connections ({self._total})")

    def enter(self, member: Member) -> None:
        self._of.setdefault(party_of(member.caller), OrderedDict())[member] = None
        self._total += 1

    def spoke(self, member: Member) -> None:
        """It said something: of its user's it is the last to go."""
        members = self._of.get(party_of(member.caller))
        if members is not None and member in members:
            members.move_to_end(member)

    def leave(self, member: Member) -> None:
        """It is gone. Once or twice is the same."""
        self._forget_bytes(member)
        members = self._of.get(party_of(member.caller))
        if members is None or member not in members:
            return
        del members[member]
        self._total -= 1
        if not members:
            del self._of[party_of(member.caller)]

    def relieve(self) -> bool:
        """Let one connection go because descriptors are short. Whether there was one that could."""
        return self._evict(None, admin=True)

    def _evict(self, party: Party | None, admin: bool) -> bool:
        """One of this party's, or of anybody whom the newcomer may push aside: the largest crowd's first."""
        if party is not None:
            return self._evict_of(self._of[party], most=2)
        strangers = [members for members in self._of.values() if next(iter(members)).caller.role != "admin"]
        for members in sorted(strangers, key=len, reverse=True):
            if self._evict_of(members, most=3 if admin else 2):
                return True
        admins = [members for members in self._of.values() if next(iter(members)).caller.role == "admin"]
        return admin and any(self._evict_of(members, most=2) for members in sorted(admins, key=len, reverse=True))

    def _evict_of(self, members: OrderedDict[Member, None], most: int) -> bool:
        best, found = most + 1, None
        for seen, member in enumerate(members):
            rank = member.waits_for()
            if rank < best:
                best, found = rank, member
            if best == 0 or (best == 1 and seen >= LOOKED_AT):
                break
        if found is None:
            return False
        self._let_go(found, f"this connection had to make room for another one: {self._total} are open")
        return True

    def _let_go(self, member: Member, why: str) -> None:
        self.evicted += 1
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_EVERY_S:
            self._complained = now
            log.warning("connections have to go (%d so far): uid %d: %s", self.evicted, member.caller.uid, why)
        self.leave(member)
        member.dismiss(self._full(why))
        if self.evicted % COLLECT_EVERY == 0:
            # A transport of asyncio is a cycle: what thousands of them held would wait for the collector's last round.
            asyncio.get_running_loop().call_later(SHED_EVERY_S, gc.collect)

    def _full(self, text: str) -> BotdError:
        return BotdError("unavailable", text, hint="close connections that are not needed, and try again", exit=7)

    # --- how much -----------------------------------------------------------------------------------

    def holds(self, member: Member) -> None:
        """What `member` holds of our memory has changed."""
        if member not in self._of.get(party_of(member.caller), ()):
            return  # it has been let go, and says its last word
        size = member.pending()
        before, since = self._holders.get(member, (0, 0.0))
        if size == before:
            return
        if size == 0:
            self._forget_bytes(member)
            return
        now = time.monotonic()
        self._holders[member] = (size, now if before == 0 or size < before else since)
        self._bytes += size - before
        if self._bytes > BYTES_MAX and not self._shedding:
            self._shed(now)
            if self._bytes > BYTES_MAX:
                # Who is slow shows only with time.
                self._shedding = True
                asyncio.get_running_loop().call_later(SHED_EVERY_S, self._shed_again)

    def _shed_again(self) -> None:
        self._shedding = False
        self._shed(time.monotonic())
        if self._bytes > BYTES_MAX:
            self._shedding = True
            asyncio.get_running_loop().call_later(SHED_EVERY_S, self._shed_again)

    def _shed(self, now: float) -> None:
        """Who has taken nothing for longest goes, until it is little enough or everybody left is quick."""
        for member in list(self._holders):
            size, _ = self._holders[member]
            left = member.pending()
            if left == 0:
                self._forget_bytes(member)
            elif left < size:  # it takes something
                self._bytes += left - size
                self._holders[member] = (left, now)
        holders = Counter(party_of(member.caller) for member in self._holders)
        for member, (size, since) in sorted(self._holders.items(), key=lambda item: item[1][1]):
            if self._bytes <= BYTES_MAX // 2:
                return  # a look at everybody costs: it has to last for a while
            # A line is sent within milliseconds; an answer may be taken by somebody who works on its beginning.
            one_of_few = member.caller.role == "admin" and holders[party_of(member.caller)] <= FEW
            patience = STUCK_S if one_of_few and member.waits_for() else 0.0
            if size >= WORTH and now - since >= patience:
                self._let_go(member, f"{size} bytes of this connection wait, and memory for that is short")

    def _forget_bytes(self, member: Member) -> None:
        size, _ = self._holders.pop(member, (0, 0.0))
        self._bytes -= size
