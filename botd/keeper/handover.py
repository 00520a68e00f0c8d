"""Another program in the keeper's place, in the same process: every bot stays its child, every status stays exact.

What neither the journal nor the kernel could tell the next program goes into a memfd (one JSON object, `State`). The
descriptors that it names stay open over the exec; botd's connection does not. Before, the new program is run as a
child that reads the same memfd and tries all of it that has no effects: one that cannot go on is never put in place.

    pause      no start is under way (those that wait are asked for again by botd)
    rehearse   the new program as a child, on a copy of the state
    exec       of the new program on the state of this instant; resume.py is its side, and the way back

State, format 1: home, boot, release (of who wrote it), former (its argv), nofile and oom_score_adj (of the bots),
listener, handovers,
lives (see `_life`), orphans (pipes of forgotten lives that a full disk keeps), remains (cages that are not empty),
botd (see Respawner.hand_over). All descriptors are numbers, all deadlines CLOCK_MONOTONIC.
"""

from __future__ import annotations

import os
from sys import byteorder

from botd.crash import armed, crash_point
from botd.keeper.lean import SIGKILL, dumps, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from botd.keeper.life import Life
    from botd.keeper.lives import Lives
    from botd.keeper.loop import Loop
    from botd.keeper.starts import Starts

    State = dict[str, Any]

FORMAT = 1
LOCK_FD = 3
_PAUSE_WITHIN_S, _REHEARSE_WITHIN_S = 3.0, 8.0
_WORDS = 2000


class Handover:
    """One try to put `argv` (interpreter, options, the keeper's program) in this process's place.

    `collect` gives the state of this instant, `arguments` are what the keeper was started with. `fail` is called with
    the reason when it is not to be; then nothing has changed. When it succeeds nothing is called: this program is over.
    """

    def __init__(
        self,
        loop: Loop,
        lives: Lives,
        starts: Starts,
        collect: Callable[[], State],
        argv: list[str],
        arguments: list[str],
        fail: Callable[[str], None],
    ) -> None:
        self._loop, self._lives, self._starts, self._collect = loop, lives, starts, collect
        self._argv, self._arguments, self._fail = argv, arguments, fail
        self._pid = self._pidfd = self._words = -1
        self._over = False
        crash_point("handover-asked")
        loop.after(_PAUSE_WITHIN_S, self._no_pause)
        starts.pause(self._rehearse)

    def _no_pause(self) -> None:
        if self._pid < 0:
            self._failed(f"a start has been under way for {_PAUSE_WITHIN_S:g} s")

    def _rehearse(self) -> None:
        if self._over:
            return
        crash_point("handover-paused")
        try:
            state = self._collect()
            memfd = write(state)
            words, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            pid = os.fork()
            if pid == 0:
                self._child(memfd, theirs, state)
            os.close(memfd)
            os.close(theirs)
            self._pid, self._words = pid, words
            self._lives.children[pid] = None
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._failed(f"no rehearsal: {error}")
            return
        self._loop.watch(self._pidfd, self._rehearsed)
        self._loop.after(_REHEARSE_WITHIN_S, self._too_long)

    def _child(self, memfd: int, words: int, state: State) -> None:
        try:
            os.dup2(words, 2)
            keep_open([*descriptors(state), memfd], True)
            self._exec(memfd, "--rehearse")
        except OSError as error:
            os.write(2, f"{self._argv[0]}: {error.strerror}".encode("utf-8", "replace"))
        finally:
            os._exit(1)

    def _too_long(self) -> None:
        if self._pidfd >= 0:
            send_signal(self._pidfd, SIGKILL)

    def _rehearsed(self) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        _pid, status = os.waitpid(self._pid, 0)
        del self._lives.children[self._pid]
        try:
            words = os.read(self._words, 65536).decode("utf-8", "replace").strip()[-_WORDS:]
        except BlockingIOError:
            words = ""
        os.close(self._words)
        if self._over:
            return
        crash_point("handover-rehearsed")
        if status:
            how = "was killed" if os.WIFSIGNALED(status) else f"ended with status {os.waitstatus_to_exitcode(status)}"
            self._failed(f"the new keeper's rehearsal {how}: {words or 'without a word'}")
            return
        self._go()

    def _go(self) -> None:
        """The point of no return is the exec itself."""
        opened: list[int] = []
        try:
            state = self._collect()
            memfd = write(state)
            opened = [*descriptors(state), memfd]
            crash_point("handover-written")
            keep_open(opened, True)
            crash_point("handover-ready")
            self._exec(memfd)
        except OSError as error:
            keep_open(opened[:-1], False)
            if opened:
                os.close(opened[-1])
            self._failed(f"the new keeper could not be executed: {error}")

    def _exec(self, memfd: int, *more: str) -> None:
        env = {**os.environ, **armed()}
        os.execve(self._argv[0], [*self._argv, *self._arguments, "--resume", str(memfd), *more], env)

    def _failed(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._starts.go_on()
            self._fail(reason)


def write(state: State) -> int:
    """A memfd that holds the state."""
    memfd = os.memfd_create("botd-keeper", os.MFD_CLOEXEC)
    data = dumps(state).encode("ascii")
    try:
        view = memoryview(len(data).to_bytes(8, byteorder) + data)
        while view:
            view = view[os.write(memfd, view) :]
    except OSError:
        os.close(memfd)
        raise
    return memfd


def keep_open(fds: list[int], inheritable: bool) -> None:
    """Let descriptors stay open over an exec, or not."""
    for fd in fds:
        os.set_inheritable(fd, inheritable)


def descriptors(state: State) -> list[int]:
    """Every descriptor that a state names."""
    found = [LOCK_FD, state["listener"]]
    for life in state["lives"]:
        found += [fd for fd in (life["pidfd"], life["error_fd"]) if fd >= 0]
        found += [fd for _name, fd, _final in life["sources"]]
    for *_sink, fds in state["orphans"]:
        found += fds
    return found + [fd for fd in (state["botd"][name] for name in ("pidfd", "peer_pidfd", "words")) if fd >= 0]


def lives_of(lives: Lives) -> list[State]:
    """All lives, earlier generations of a bot first: what they still have in their pipes comes first."""
    return [_life(life, lives) for life in sorted(lives, key=lambda life: life.key)]


def _life(life: Life, lives: Lives) -> State:
    return {
        "id": life.id,
        "gen": life.gen,
        "facts": life.facts,
        "pid": life.pid,
        "pidfd": life.pidfd,
        "error_fd": life.error_fd,
        "child": life.child,
        # Not reaped yet: its number is its own.
        "unreaped": life.pid >= 0 and lives.children.get(life.pid) is life,
        "caged": life.cage is not None,
        "running": life.running,
        "report": life.report.decode("latin-1"),
        "sources": [[source.sink.name, source.fd, source.final] for source in life.sources if source.fd >= 0],
        "stop_signal": life.stop_signal,
        "kill_at": life.kill_at,
        "killed": life.killed,
        "status": life.status,
        "final": life.final,
        "unrecorded": life.unrecorded,
    }
