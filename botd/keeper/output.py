"""Which pipe may flow now: fair turns, coalesced small writes, patience when the disk is full."""

from __future__ import annotations

import errno
import os

from botd.keeper.logs import Full, Sink, open_folder
from botd.keeper.loop import ONCE, READ, Loop
from botd.keeper.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COALESCE_S = 0.005
"""After a small move a pipe rests this long: a chatty bot costs 200 moves a second, not one a line."""

RETRY_S = 1.0
_DRAIN_LIMIT = 16 * 1024 * 1024


class Output:
    """All pipes of all bots. `complain` gets a line for the keeper's log when a file cannot be written."""

    def __init__(self, loop: Loop, complain: Callable[[str], None]) -> None:
        self._loop = loop
        self._complain = complain
        self._sinks: dict[tuple[str, str], Sink] = {}
        self._resting: list[Source] = []
        self._stuck: set[tuple[str, str]] = set()
        self._on_bytes = self._flow

    def check(self, folder: str) -> None:
        """Make a log folder and see that it is one. A silent bot needs no more: files are made by their first byte."""
        os.close(open_folder(folder))

    def attach(self, fd: int, folder: str, name: str, max_bytes: int, keep: int) -> Source:
        """Let a pipe flow into folder/name.log from now on."""
        key = (folder, name)
        sink = self._sinks.get(key)
        if sink is None:
            sink = Sink(folder, name, max_bytes, keep)
        sink.max_bytes, sink.keep = max_bytes, keep
        source = Source(fd, sink)
        # Behind a former life's pipe it waits for its turn.
        self._loop.watch(fd, self._on_bytes, 0 if sink.sources else READ | ONCE, source)
        self._sinks[key] = sink
        sink.sources.append(source)
        return source

    def limits(self, folder: str, max_bytes: int, keep: int) -> None:
        """Change when the files of a folder rotate."""
        for name in ("out", "err"):
            sink = self._sinks.get((folder, name))
            if sink is not None:
                sink.max_bytes, sink.keep = max_bytes, keep

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

    def _arm(self, sink: Sink) -> None:
        if sink.sources:
            self._loop.change(sink.sources[0].fd, READ | ONCE)

    def _flow(self, source: Source) -> None:
        sink = source.sink
        if not sink.sources or sink.sources[0] is not source or source.final:
            return
        try:
            moved = sink.move(source)
        except BlockingIOError:
            moved = -1
        except (Full, OSError) as error:
            self._wait(sink, error)
            return
        if moved == 0:
            # The bot closed it; the descriptor stays, botd may still be told of it.
            self._loop.unwatch(source.fd)
            sink.sources.remove(source)
            self._next(sink)
        elif 2 * moved >= source.capacity or (moved > 0 and sink.seeking):
            if moved >= source.capacity:
                source.grow()
            self._arm(sink)
        elif moved > 0:
            if not self._resting:
                self._loop.after(COALESCE_S, self._wake)
            self._resting.append(source)
        else:
            self._arm(sink)

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
            except (Full, OSError) as error:
                self._wait(sink, error)
                return
            sink.sources.pop(0)
            self._close(source)
        self._next(sink)

    def _next(self, sink: Sink) -> None:
        if sink.sources and sink.sources[0].final:
            self._drain(sink)
        elif sink.sources:
            self._arm(sink)
        else:
            sink.close()
            self._sinks.pop((sink.folder, sink.name), None)
            self._stuck.discard((sink.folder, sink.name))

    def _wait(self, sink: Sink, error: Exception) -> None:
        """The bytes stay in the pipe; the bot blocks at most. Said once, tried every second."""
        key = (sink.folder, sink.name)
        cause = error.args[0] if isinstance(error, Full) else error
        if key not in self._stuck:
            self._stuck.add(key)
            self._complain(f"output of {sink.folder}/{sink.name}.log waits: {cause}")
        if getattr(cause, "errno", None) in (errno.EMFILE, errno.ENFILE):
            self.spare()
        self._loop.after(RETRY_S, lambda: self._retry(sink))

    def _retry(self, sink: Sink) -> None:
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
