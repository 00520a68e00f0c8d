"""At the end of a chapter, when nothing lives any more: every life, every line and every status is accounted for."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

from .evidence import IN_FLIGHT, counts_of, history, lives_of, match, missing, read_output

SIGKILL, SIGTERM = ("signal", int(signal.SIGKILL)), ("signal", int(signal.SIGTERM))


STORY_S = 10.0
STALLED_S = 10.0
"""So long a busy disk may keep a bot from ending."""
FOUND_AFTER_S = 30.0
"""So long ago a keeper may have died when another one is seen."""


class Reckoning:
    """Fills `tally`; `complain(text)` is called with each violation."""

    def __init__(self, home, members, events, promises, shots, gaps, tally, complain, orphaned=(), diary=()):
        self._home, self._members, self._tally, self._complain = home, members, tally, complain
        self._gaps, self._orphaned, self._diary = gaps, orphaned, diary
        self._events, self._history = events, history(events)
        self._asked, self._shots = {}, {}
        for one in promises.asked:
            self._asked.setdefault(one.bot_id, []).append(one)
        for bot_id, pid, number, at in shots:
            self._shots.setdefault((bot_id, pid), []).append((number, at))

    def run(self):
        for member in self._members:
            folder = Path(self._home, "bots", member.id, "data")
            lives, twins = lives_of(folder)
            self._tally.lives += len(lives)
            self._tally.doubled += twins
            if twins:
                self._complain(f"{member.id}: {twins} times it found itself alive already")
            if not lives:
                self._tally.lost += 1
                self._complain(f"{member.id} never lived")
            for life in lives:
                self._why(member, life)
            self._statuses(member, lives)
            self._lines(member, lives, counts_of(folder))
            self._recoveries(member, lives)

    # --- why it ended -----------------------------------------------------------------------------------

    def _why(self, member, life):
        """Nobody ends but by itself, by request or by a shot."""
        if life.end is not None and life.term_at is None:
            return
        if self._was_asked(member, life) or self._was_shot(member, life):
            return
        self._tally.lost += 1
        one = next((one for one in self._history.get(member.id, {}).values() if one.pid == life.pid), None)
        asked = [
            f"{request.verb} {request.at - life.began:+.3f} to {request.until - life.began:+.3f}"
            for request in self._asked.get(member.id, ())
            if abs(request.at - life.began) <= STORY_S
        ]
        self._complain(
            f"{member.id}: {life} was ended, and nobody had asked for that: {one}; asked in its time: {asked}\n"
            f"{self._story(member, one)}\n{self._meanwhile(life)}"
        )

    def _was_asked(self, member, life):
        latest = life.term_at if life.term_at is not None else life.until
        return any(life.since <= one.until and one.at <= latest for one in self._asked.get(member.id, ()))

    def _was_shot(self, member, life):
        return (member.id, life.pid) in self._shots

    def _was_orphaned(self, life):
        """Whether its keeper died before it did. Another one may be connected a while after that."""
        ended = life.ended_at if life.ended_at is not None else life.until
        return any(life.began <= at and ended >= at - FOUND_AFTER_S for at in self._orphaned)

    def _in_gap(self, member, life):
        """Whether it ended, or may have ended, while nobody held on to it."""
        if life.ended_at is not None:
            # It takes the time, writes it down, which may have to wait for the disk, and ends.
            latest = min(life.until, life.ended_at + STALLED_S)
            return any(start <= latest and life.ended_at <= end for start, end in self._gaps)
        first = [at for _number, at in self._shots.get((member.id, life.pid), ())]
        first += [one.at for one in self._asked.get(member.id, ()) if one.until >= life.since]
        earliest = max(life.began, min(first, default=life.began))
        return any(start <= life.until and earliest <= end for start, end in self._gaps)

    # --- how it ended -----------------------------------------------------------------------------------

    def _may_be(self, member, life, status):
        """Whether a recorded status is the one that this life had."""
        if status is None:
            return self._in_gap(member, life) or self._was_orphaned(life)
        if status == life.end:
            return True
        if status[0] == "signal" and any(status[1] == n for n, _ in self._shots.get((member.id, life.pid), ())):
            return True
        # SIGTERM, too, where it came before the bot could answer it.
        killed = status == SIGKILL or (status == SIGTERM and life.end is None and life.term_at is None)
        return killed and self._was_asked(member, life)

    def _statuses(self, member, lives):
        recorded = list(self._history.get(member.id, {}).values())
        for one in recorded:
            if one.started > 1 or len(one.exited) > 1:
                self._tally.doubled += 1
                self._complain(f"{member.id}: generation {one.generation} is twice on record: {one}")
        pairs = match(lives, recorded, lambda life, status: self._may_be(member, life, status))
        for life in lives:
            one = pairs.get(life.number)
            if one is None or not one.exited:
                self._tally.wrong += 1
                self._complain(f"{member.id}: the end of {life} is on no record: {one}\n{self._story(member, one)}")
            elif not self._may_be(member, life, one.exited[0]):
                self._tally.wrong += 1
                story = f"{self._story(member, one)}\n{self._meanwhile(life)}"
                self._complain(f"{member.id}: {life} is on record as {one}\n{story}")
            elif one.exited[0] is None:
                self._tally.unknown += 1
            else:
                self._tally.exact += 1
        generations = [pairs[life.number].generation for life in lives if life.number in pairs]
        if generations != sorted(set(generations)):
            self._tally.doubled += 1
            self._complain(f"{member.id}: generations that lived, in the order of their lives: {generations}")

    def _story(self, member, one):
        """What botd's history says of that time."""
        near = one.generation if one else 0
        return "\n".join(
            f"        {event['at']} {event['kind']} {event['generation']} {event['text']}"
            for event in self._events
            if event["id"] == member.id and abs((event["generation"] or 0) - near) <= 3
        )

    def _meanwhile(self, life):
        """What was done to the two programs around the end of a life."""
        ended = life.ended_at if life.ended_at is not None else min(life.until, life.began)
        near = (entry for entry in self._diary if abs(entry[0] - ended) <= STORY_S)
        return "\n".join(f"        {at - ended:+8.3f} s {text}" for at, text in near)

    # --- what it said -----------------------------------------------------------------------------------

    def _lines(self, member, lives, counts):
        output = read_output(member.id, Path(self._home, "logs", member.id))
        tally = self._tally
        tally.lines += output.lines
        tally.lines_doubled += len(output.doubled)
        tally.lines_lost += len(output.torn)
        for words in (output.torn[:3], output.doubled[:3]):
            for text in words:
                self._complain(text)
        for life in lives:
            found, count = output.found.get(life.number, set()), counts.get(life.number, 0)
            if found and max(found) > count + IN_FLIGHT:
                tally.lines_doubled += 1
                self._complain(f"{member.id}: life {life.number} wrote {count} lines, found was number {max(found)}")
            gone, tail = missing(found, max(count, max(found, default=0)))
            if not gone:
                continue
            if tail and self._in_gap(member, life):
                tally.tails += 1
            else:
                tally.lines_lost += len(gone)
                self._complain(
                    f"{member.id}: {len(gone)} of {count} lines of {life} are lost: {gone[:3]} to {gone[-1]}\n"
                    f"{self._meanwhile(life)}"
                )

    # --- and came back ----------------------------------------------------------------------------------

    def _recoveries(self, member, lives):
        """From an end that nobody asked for to the next life's first word; its restart delay is a part of that."""
        asked = self._asked.get(member.id, ())
        for life, later in pairwise(lives):
            if life.end is None or life.term_at is not None or (member.finishes and life.end == ("exit", 0)):
                continue
            if not any(life.began <= one.until and one.at <= later.began for one in asked):
                self._tally.recovery.append(later.began - life.ended_at)
