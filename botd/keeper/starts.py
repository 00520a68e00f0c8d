"""Starts that were asked for: their queue, and which of them are under way. births.py has the steps of each."""

from __future__ import annotations

import errno
import os
from collections import deque

from botd.keeper.births import Failed, Refused, abort, conceive, deliver, limit
from botd.keeper.launch import Gate, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages
    from botd.keeper.descriptors import Reserve
    from botd.keeper.door import Door
    from botd.keeper.ends import Ends
    from botd.keeper.journal import Journal
    from botd.keeper.life import Life
    from botd.keeper.limits import Limits
    from botd.keeper.lives import Lives
    from botd.keeper.loop import Loop
    from botd.keeper.nursery import Nursery
    from botd.keeper.output import Output
    from botd.keeper.remains import Remains
    from botd.keeper.request import Start

_AHEAD = 3
"""So many starts are under way at once: one is forked while the next is prepared and the last one is released."""


class Starts:
    """Does what a START asks for, and tells what became of it. `nursery`: None where the keeper forks by itself."""

    def __init__(
        self,
        loop: Loop,
        lives: Lives,
        journal: Journal,
        cages: Cages,
        output: Output,
        nursery: Nursery | None,
        ends: Ends,
        remains: Remains,
        reserve: Reserve,
        door: Door,
        boot: str,
    ) -> None:
        self._loop, self._lives, self._journal, self._cages = loop, lives, journal, cages
        self._output, self._nursery, self._ends, self._remains = output, nursery, ends, remains
        self._reserve, self._door, self._boot = reserve, door, boot
        self._waiting: dict[tuple[str, int], Start] = {}
        self._queue: deque[Start] = deque()
        self._under_way = 0
        self._births: set[str] = set()
        self._behind: dict[str, list[Start]] = {}
        self._paused: Callable[[], None] | None = None

    def __len__(self) -> int:
        """How many wait for their turn, or for their fork."""
        return len(self._waiting)

    def awaited(self, life_id: str) -> bool:
        """Whether a start of this bot waits."""
        return any(key[0] == life_id for key in self._waiting)

    def ask(self, start: Start) -> None:
        """Start it when its turn comes. Answered by `started` and the rest of a life, by `failed`, or by `refused`."""
        key = start.id, start.gen
        if key in self._waiting:
            return  # asked twice
        if key in self._lives:
            self.refuse(*key, "released", f"generation {start.gen} of {start.id} was started already")
            return
        self._waiting[key] = start
        self._queue.append(start)
        self._pump()

    def forget_all(self) -> None:
        """Nothing happens of what waits, and nobody is told: another botd is here, to which it is no life yet.

        It asks again for what is still wanted. Otherwise what it takes for never begun would begin behind its back.
        """
        self._waiting.clear()
        self._queue.clear()
        self._behind.clear()

    def withdraw(self, key: tuple[str, int]) -> bool:
        """Give a start up that has not happened; False when there is none."""
        if self._waiting.pop(key, None) is None:
            return False
        self._ends.never_lived(*key, "stopped", None, "it was stopped before it was started")
        return True

    def limit(self, key: tuple[str, int], limits: Limits) -> bool:
        """Other limits for a start that has not happened; False when there is none."""
        start = self._waiting.get(key)
        if start is None:
            return False
        start.limits = limits
        start.amended = True
        return True

    def pause(self, then: Callable[[], None]) -> None:
        """Begin no more of them; `then` is called when none is under way."""
        self._paused = then
        self._pump()

    def go_on(self) -> None:
        self._paused = None
        self._pump()

    def resume(self, life: Life) -> None:
        """A life whose program is not executed yet, or so it seemed to the keeper that was here before."""
        self._loop.watch(life.error_fd, lambda: self._reported(life))

    def refuse(self, life_id: str, gen: int | None, why: str, text: str, spent: int = 0) -> None:
        """Say that nothing was done; the generation is not spent by it. `spent`: the highest one that is, if known."""
        self._door.note({"op": "refused", "id": life_id, "gen": gen, "why": why, "text": text, "spent": spent})

    def _pump(self) -> None:
        """Let a few starts be under way at a time, one step of one of them in a turn of the loop."""
        if self._paused is not None:
            if not self._under_way:
                self._loop.after(0.0, self._paused)
            return
        while self._queue and self._under_way < _AHEAD:
            self._under_way += 1
            # Taken here and not in its turn: what is in the queue is what nobody has taken yet.
            self._loop.slow.append(self._turn(self._queue.popleft()))

    def _turn(self, start: Start) -> Callable[[], None]:
        return lambda: self._next(start)

    def _wanted(self, start: Start) -> bool:
        """Whether it still waits: this one, and not the same generation asked for once more."""
        return self._waiting.get((start.id, start.gen)) is start

    def _next(self, start: Start) -> None:
        key = start.id, start.gen
        try:
            if self._wanted(start) and start.id in self._births:
                # The child of a start that was given up meanwhile: it has the lock, until the answer comes and it goes.
                self._behind.setdefault(start.id, []).append(start)
            elif self._wanted(start):
                self._begin(start)
                return
        except Refused as refused:
            del self._waiting[key]
            self.refuse(*key, *refused.args)
        except Failed as failed:
            del self._waiting[key]
            self._ends.never_lived(*key, *failed.args)
        self._done()

    def _done(self) -> None:
        self._under_way -= 1
        self._pump()

    def _begin(self, start: Start) -> None:
        former = self._lives.current(start.id)
        if former is not None:
            raise Refused("busy", f"generation {former.gen} of {start.id} lives")
        if not self._reserve.whole():
            raise Failed("descriptors", errno.EMFILE, "the keeper has none left but those it needs to end what lives")
        try:
            clean = self._remains.none_of(start.id)
        except OSError as error:
            raise Failed("containment", error.errno, f"a former life's processes: {error.strerror}") from error
        if not clean:
            raise Refused("busy", f"processes of a former life of {start.id} have not ended yet")
        life, lock, birthplace = conceive(start, self._journal, self._cages)
        try:
            if self._nursery is not None and self._nursery.ask(
                start.command, lock, birthplace, lambda gate: self._born(life, start, gate)
            ):
                self._births.add(start.id)
                return
            gate: Gate | OSError = launch(start.command, lock, birthplace)
        except OSError as error:
            gate = error
        finally:
            os.close(lock)
            if birthplace is not None:
                os.close(birthplace)
        self._born(life, start, gate)

    def _born(self, life: Life, start: Start, gate: Gate | OSError) -> None:
        """The fork was made (or not); the child waits at its gate."""
        self._births.discard(start.id)
        self._queue += self._behind.pop(start.id, ())
        wanted = self._wanted(start)
        if wanted:
            del self._waiting[life.key]
        try:
            if isinstance(gate, OSError):
                if life.cage is not None:
                    life.cage.remove()
                raise Failed("fork", gate.errno, gate.strerror)
            if not wanted:
                abort(life, gate, self._output)  # stopped meanwhile, and told so
                return
            deliver(life, gate, start, self._journal, self._output, self._boot, self._door.tell)
            self._lives.children[life.pid] = life
            self._ends.follow(life)
            self._loop.watch(life.error_fd, lambda: self._reported(life))
            self._door.publish(life)
            if start.amended:
                self._amend(life, start.limits)
        except Failed as failed:
            if wanted:
                self._ends.never_lived(*life.key, *failed.args)
        finally:
            self._done()

    def _amend(self, life: Life, limits: Limits) -> None:
        """Limits that came while it was being born."""
        try:
            limit(life, limits, self._cages, self._journal)
        except OSError as error:
            self._door.note({"op": "error", "about": "limits", "id": life.id, "gen": life.gen, "text": str(error)})

    def _reported(self, life: Life) -> None:
        """The error pipe: words when a step failed, its end when the program was executed."""
        try:
            data = os.read(life.error_fd, 1024)
        except BlockingIOError:
            return
        if data:
            life.report += data
            return
        self._loop.unwatch(life.error_fd)
        os.close(life.error_fd)
        life.error_fd = -1
        if not life.report:
            life.running = True
            self._door.publish(life)
