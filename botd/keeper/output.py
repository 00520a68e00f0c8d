"""Which pipe may flow now: fair turns, gathered small writes, patience when the disk is full."""

from __future__ import annotations

import errno
import os
from time import monotonic

from botd.keeper.logs import MOVE_LIMIT, Busy, Full, Limits, Sink
from botd.keeper.loop import ONCE, READ, Loop
from botd.keeper.pacing import REST_S, SHORTEST_S
from botd.keeper.rotation import open_folder
from botd.keeper.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.wire import Message

RETRY_S = 1.0
BUSY_S = 0.01
TELL_S = 1.0
_DRAIN_LIMIT = 16 * 1024 * 1024


class Output:
    """All pipes of all bots. `complain` gets a line for the keeper's log when a file cannot be written.

    `tell` gets the messages for botd: `rotated`, with the bytes that a rotation took out of a file, or several of them
    within TELL_S.
    """

    def __init__(self, loop: Loop, complain: Callable[[str], None], tell: Callable[[Message], None]) -> None:
        self._loop = loop
        self._complain, self._tell = complain, tell
        self._sinks: dict[tuple[str, str], Sink] = {}
        self._resting: list[Source] = []
        self._stuck: set[Sink] = set()
        self._planned: set[Sink] = set()
        self._told: set[Sink] = set()
        self._on_bytes = self._flow

    def check(self, folder: str) -> None:
        """Make a log folder and see that it is one. A silent bot needs no more: files are made by their first byte."""
        os.close(open_folder(folder))

    def attach(self, life_id: str, fd: int, folder: str, name: str, limits: Limits) -> Source:
        """Let a pipe of a bot flow into folder/name.log from now on."""
        key = (folder, name)
        sink = self._sinks.get(key)
        if sink is None:
            sink = Sink(folder, name, limits.max_bytes, limits.keep)
        sink.id, sink.limits = life_id, limits
        source = Source(fd, sink)
        # Behind a former life's pipe it waits for its turn.
        self._loop.watch(fd, self._on_bytes, 0 if sink.sources else READ | ONCE, source)
        self._sinks[key] = sink
        sink.sources.append(source)
        return source

    def limit(self, folder: str, limits: Limits) -> None:
        """Change when the files of a folder rotate."""
        for name in ("out", "err"):
            sink = self._sinks.get((folder, name))
            if sink is not None:
                sink.limits = limits

    def spare(self) -> None:
        """Give descriptors back when they are short: a file is opened again by its next byte."""
        for sink in self._sinks.values():
            sink.close()

    def finish(self, source: Source) -> None:
        """Nothing more will be written: move what is left and close the pipe (later, when the disk is full)."""
        source.final = True
        sink = source.sink
        self._loop.unwatch(source.fd)
        if source not in sink.sources:
            self._close(source)
        elif sink.sources[0] is source:
            self._drain(sink)

    def orphans(self, known: set[int]) -> list[tuple[str, str, Message, list[int]]]:
        """(id, name, log as in a start, descriptors) of pipes that outlast their lives (on a full disk).

        `known`: the descriptors that lives still name.
        """
        found = []
        for sink in self._sinks.values():
            fds = [source.fd for source in sink.sources if source.fd not in known]
            if fds:
                found.append((sink.id, sink.name, {"dir": sink.folder, **sink.limits.facts()}, fds))
        return found

    def _arm(self, sink: Sink) -> None:
        if sink.sources:
            self._loop.change(sink.sources[0].fd, READ | ONCE)

    def _flow(self, source: Source) -> None:
        """There are bytes, or may be."""
        sink = source.sink
        if not sink.sources or sink.sources[0] is not source or source.final:
            return
        total = 0
        try:
            # What a limit cut short goes on at once: a rest in the middle of a flood would be felt.
            while (moved := sink.move(source)) > 0:
                total += moved
                if not sink.more or total >= MOVE_LIMIT:
                    break
        except BlockingIOError:
            moved = -1  # empty
        except (Full, Busy, OSError) as error:
            self._wait(sink, error)
            return
        if sink.rotated or sink.strange or self._stuck:
            self._say(sink)
        if moved == 0:
            # The bot closed it; the descriptor stays, botd may still be told of it.
            self._loop.unwatch(source.fd)
            sink.sources.remove(source)
            self._next(sink)
        elif total:
            self._rest(source, total)
        else:
            self._arm(sink)

    def _rest(self, source: Source, moved: int) -> None:
        if 2 * moved >= source.capacity:
            source.grow()
        if source.flood is not None:
            rest = source.flood.rest(moved, source.capacity, monotonic())
        else:
            # A pipe that may not grow fills within a rest.
            rest = 0.0 if 2 * moved >= source.capacity else REST_S
        if rest >= REST_S:
            if not self._resting:
                self._loop.after(REST_S, self._wake)
            self._resting.append(source)
        elif rest >= SHORTEST_S:
            # There will be bytes, and the pipe is looked at without asking for them first.
            self._loop.after(rest, lambda: self._flow(source))
        else:
            self._arm(source.sink)

    def _wake(self) -> None:
        resting, self._resting = self._resting, []
        for source in resting:
            head = source.sink.sources[:1]
            if head == [source] and not source.final:
                self._arm(source.sink)

    def _drain(self, sink: Sink) -> None:
        """Empty the pipes at the head that are final, then let the next one flow."""
        while sink.sources and sink.sources[0].final:
            source = sink.sources[0]
            total = 0
            try:
                while total < _DRAIN_LIMIT and (moved := sink.move(source)) > 0:
                    total += moved
            except BlockingIOError:
                pass  # empty: somebody who escaped still holds the other end
            except (Full, Busy, OSError) as error:
                self._wait(sink, error)
                return
            sink.sources.pop(0)
            self._close(source)
        if sink.rotated or sink.strange or self._stuck:
            self._say(sink)
        self._next(sink)

    def _next(self, sink: Sink) -> None:
        if sink.sources and sink.sources[0].final:
            self._drain(sink)
        elif sink.sources:
            self._arm(sink)
        else:
            sink.close()
            self._sinks.pop((sink.folder, sink.name), None)

    def _say(self, sink: Sink) -> None:
        """What happened to a file while bytes went into it: to botd, or into the keeper's log."""
        if sink.rotated and sink not in self._told:
            self._told.add(sink)
            self._tell_rotated(sink)
        if sink.strange:
            sink.strange = False
            path = f"{sink.folder}/{sink.name}.log"
            self._complain(f"{path} was a link, no file, or had a second name: it is {sink.name}.log.strange now")
        if sink in self._stuck:
            self._stuck.remove(sink)
            self._complain(f"output of {sink.folder}/{sink.name}.log flows again")

    def _tell_rotated(self, sink: Sink) -> None:
        """At most one message each TELL_S; what is rotated meanwhile is in the next one."""
        if not sink.rotated:
            self._told.remove(sink)
            return
        message = {"op": "rotated", "id": sink.id, "name": sink.name, "dir": sink.folder, "bytes": sink.rotated}
        sink.rotated = 0
        self._tell(message)
        self._loop.after(TELL_S, lambda: self._tell_rotated(sink))

    def _wait(self, sink: Sink, error: Exception) -> None:
        """The bytes stay in the pipe; the bot blocks at most. Said once, tried every second."""
        if not isinstance(error, Busy):
            cause = error.args[0] if isinstance(error, Full) else error
            # The next try finds the file anew, and meanwhile its file system can be unmounted and mended.
            sink.close()
            if sink not in self._stuck:
                self._stuck.add(sink)
                self._complain(f"output of {sink.folder}/{sink.name}.log waits: {cause}")
            if getattr(cause, "errno", None) in (errno.EMFILE, errno.ENFILE):
                self.spare()
        if sink not in self._planned:
            self._planned.add(sink)
            self._loop.after(BUSY_S if isinstance(error, Busy) else RETRY_S, lambda: self._retry(sink))

    def _retry(self, sink: Sink) -> None:
        self._planned.discard(sink)
        if not sink.sources:
            return
        if sink.sources[0].final:
            self._drain(sink)
        else:
            self._flow(sink.sources[0])

    def _close(self, source: Source) -> None:
        if source.fd >= 0:
            os.close(source.fd)
            source.fd = -1
