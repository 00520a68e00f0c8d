"""Bringing botd back: it asked for that in its hello, went away without a bye, and nobody took its place."""

from __future__ import annotations

import os
import select
from time import gmtime, monotonic, strftime

from botd.keeper import proc
from botd.keeper.lean import SIGKILL, exec_signals, send_signal
from botd.keeper.life import Life, status_words
from botd.keeper.loop import Loop
from botd.keeper.request import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.trial import Trial
    from botd.keeper.wire import Message

FIRST_S, LONGEST_S = 0.2, 30.0
GOOD_LIFE_S = 60.0
_LOG_LIMIT = 1024 * 1024
_WORDS_LIMIT = 2000


class Respawner:
    """Starts botd again, at growing distances while it keeps dying.

    `connected()` tells whether some botd is there; `log` is the file for its stdout and stderr; `known` is the keeper's
    table of children that are no strays; `prepare` runs in the child before exec. `pid` is the botd that this keeper
    started (its child), or -1. `facts` is what hello tells of it: `row` counts the starts since the last good life,
    `said` is what the last botd gave as the reason of its end. `on_start` is called with the pid of each botd.
    """

    def __init__(
        self,
        loop: Loop,
        log: str,
        known: dict[int, Life | None],
        prepare: Callable[[], None],
        connected: Callable[[], bool],
        complain: Callable[[str], None],
    ) -> None:
        self._loop, self._log, self._known, self._prepare = loop, log, known, prepare
        self._connected, self._complain = connected, complain
        self._recipe: tuple[list[bytes], dict[bytes, bytes], bytes] | None = None
        self._delay = FIRST_S
        self._peer_pid = -1
        self._peer_pidfd = -1
        self._since = 0.0
        self._planned = False
        self._due_at = 0.0
        self._down_since = ""
        self._connected_pid = -1
        self._stranger, self._why = False, ""
        self.pid = -1
        self._pidfd = -1
        self._words = -1
        self.on_start: Callable[[int], None] = lambda _pid: None
        self.facts: Message = {"respawns": 0, "row": 0, "last_botd_exit": None, "said": ""}
        self.trial: Trial | None = None

    def arrived(self, pid: int, respawn: object) -> None:
        """botd said hello; `respawn` is {argv, env, cwd} or None. Invalid when it is neither."""
        self._recipe = None if respawn is None else recipe_of(respawn)
        self._since = monotonic()
        self._connected_pid, self._stranger, self._why = pid, pid != self.pid, ""
        if self.trial is not None:
            self.trial.arrived()
        if self._peer_pidfd >= 0:
            os.close(self._peer_pidfd)
        try:
            self._peer_pidfd = os.pidfd_open(pid)
        except OSError:
            self._peer_pidfd = -1

    def adopt_recipe(self, respawn: object) -> None:
        """From now on start botd like this (as in `arrived`)."""
        self._recipe = None if respawn is None else recipe_of(respawn)

    def start_now(self) -> int:
        """Start botd without any delay, where there is a recipe and nobody is there: its pid, or -1."""
        self._delay = FIRST_S
        self._due()
        return self.pid

    def hand_over(self) -> Message:
        """What the program that takes the keeper's place needs to know of botd; `resume` reads it."""
        return {
            "recipe": None if self._recipe is None else _as_asked(*self._recipe),
            "pid": self.pid,
            "pidfd": self._pidfd,
            "peer_pidfd": self._peer_pidfd,
            "words": self._words,
            "stranger": self._stranger,
            "delay": self._delay,
            "facts": self.facts,
        }

    def resume(self, former: Message) -> None:
        """Go on for the program before this one: its connection to botd is gone, botd most likely is not."""
        self._recipe = None if former["recipe"] is None else recipe_of(former["recipe"])
        self._delay, self._since = former["delay"], monotonic()
        self._peer_pidfd, self.pid, self._pidfd = former["peer_pidfd"], former["pid"], former["pidfd"]
        self._words, self._stranger = former["words"], former["stranger"]
        self._down_since = _now()
        self.facts.update(former["facts"])
        if self.pid >= 0:
            self._known[self.pid] = None
            self._loop.watch(self._pidfd, self.reap)
            self.on_start(self.pid)
        if self._recipe is not None:
            self._plan()

    def leaving(self) -> None:
        """botd said bye: it is not to be started again, and an attempt under way beside it is not to take its place."""
        self._recipe = None
        if self.pid >= 0 and self.pid != self._connected_pid:
            send_signal(self._pidfd, SIGKILL)

    def lost(self, why: str = "") -> None:
        """The connection ended; `why` where the keeper knows more than that."""
        self._down_since = _now()
        self._connected_pid, self._why = -1, why
        if why or self._stranger:
            self.facts["said"] = why
        if self._recipe is None:
            return
        if monotonic() - self._since >= GOOD_LIFE_S:
            self._delay = FIRST_S
            self.facts["row"] = 0
        self._plan()

    def outlook(self) -> Message:
        """What became of botd and what comes next, for a person.

        `state`: connected, starting (it runs and has not said hello), waiting (the next attempt is in `next_s`),
        unasked (nobody wants it back). `since`: when it was lost (RFC 3339, "" when it never was).
        """
        found: Message = {"since": self._down_since, "attempt": self.facts["row"] + 1, "pid": None, "next_s": None}
        if self._connected():
            found |= {"state": "connected", "pid": self._connected_pid, "since": ""}
        elif self.pid >= 0:
            found |= {"state": "starting", "pid": self.pid, "attempt": self.facts["row"]}
        elif self._recipe is not None and self._planned:
            found |= {"state": "waiting", "next_s": round(max(0.0, self._due_at - monotonic()), 1)}
        else:
            found |= {"state": "unasked"}
        return {**found, "last_exit": self.facts["last_botd_exit"], "said": self.facts["said"]}

    def reap(self) -> None:
        """Take the exit of a botd that this keeper started."""
        if self.pid < 0 or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        _pid, status = os.waitpid(self.pid, 0)
        del self._known[self.pid]
        self.facts["last_botd_exit"] = {"pid": self.pid, **status_words(status)}
        self.facts["said"] = self._last_words() or self._why
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self.pid = self._pidfd = -1
        if not self._connected() and self._recipe is not None:
            self._plan()

    def _plan(self) -> None:
        if self._planned:
            return
        self._planned = True
        delay, self._delay = self._delay, min(LONGEST_S, self._delay * 2)
        self._due_at = monotonic() + delay
        self._loop.after(delay, self._due)

    def _due(self) -> None:
        self._planned = False
        if self._recipe is None or self._connected() or self.pid >= 0:
            return
        if self._peer_lives():
            # It only lost the connection. Starting a second one would be refused by its lock anyway.
            self._plan()
            return
        self._note_stranger()
        self.facts["row"] += 1
        try:
            self._start(*self._recipe)
        except OSError as error:
            self.facts["said"] = f"botd could not be started: {error}"
            self._complain(self.facts["said"])
            self._plan()

    def _note_stranger(self) -> None:
        """The exit of a botd that was not our child, where the kernel tells it."""
        if self._peer_pidfd >= 0 and self._stranger:
            status = _ended(self._peer_pidfd)
            self.facts["last_botd_exit"] = {"pid": None, **status_words(status)}
            self._stranger = False

    def _peer_lives(self) -> bool:
        if self._peer_pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._peer_pidfd, select.POLLIN)
        return not poll.poll(0)

    def _start(self, argv: list[bytes], env: dict[bytes, bytes], cwd: bytes) -> None:
        try:
            if os.stat(self._log).st_size > _LOG_LIMIT:
                os.rename(self._log, self._log + ".1")
        except FileNotFoundError:
            pass  # the first time
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(self._log, flags, 0o600)
        # Its last words, also where a full disk takes no log.
        words, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                self._prepare()
                exec_signals()
                os.set_inheritable(theirs, True)
                os.chdir(cwd)
                os.execvpe(argv[0], argv, {**env, b"BOTD_RESPAWNED": b"%d" % theirs})
            except OSError as error:
                told = f"botd could not be started: {error}\n".encode("utf-8", "replace")[:_WORDS_LIMIT]
                os.write(theirs, told)
                os.write(2, told)
            finally:
                os._exit(127)
        os.close(log)
        os.close(theirs)
        self._words, self._why = words, ""
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self._known[pid] = None
        self._loop.watch(self._pidfd, self.reap)
        self.facts["respawns"] += 1
        self._since = monotonic()
        self.on_start(pid)
        self._complain(f"botd was gone and is started again as pid {pid} (attempt {self.facts['row']})")

    def _last_words(self) -> str:
        """What the botd that just ended left in its pipe."""
        fd, self._words = self._words, -1
        if fd < 0:
            return ""
        try:
            return os.read(fd, _WORDS_LIMIT).decode("utf-8", "replace").strip()
        except OSError:
            return ""  # a child of its child holds the other end, and it said nothing
        finally:
            os.close(fd)


def _ended(pidfd: int) -> int | None:
    """The raw wait status of somebody else's child, as far as it can be known."""
    status = proc.exit_from_pidfd(pidfd)
    pid = proc.pidfd_pid(pidfd)
    if status is None and pid > 0:
        # Its parent has not reaped it yet; while the pidfd shows its pid, that is nobody else's.
        ticks = proc.start_ticks(pid)
        status = None if ticks is None else proc.exit_from_zombie(pid, ticks)
    return status


def _now() -> str:
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())


def recipe_of(respawn: object) -> tuple[list[bytes], dict[bytes, bytes], bytes]:
    if isinstance(respawn, dict):
        argv, env, cwd = respawn.get("argv"), respawn.get("env"), respawn.get("cwd")
        if isinstance(argv, list) and argv and isinstance(env, dict) and isinstance(cwd, str):
            try:
                return (
                    [_bytes(a) for a in argv],
                    {_bytes(k): _bytes(v) for k, v in env.items()},
                    _bytes(cwd),
                )
            except (ValueError, AttributeError):
                pass  # said below
    raise Invalid("respawn: argv (texts), env (an object of texts) and cwd are needed")


def _as_asked(argv: list[bytes], env: dict[bytes, bytes], cwd: bytes) -> Message:
    """What `recipe_of` makes a recipe of."""
    return {
        "argv": [os.fsdecode(word) for word in argv],
        "env": {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
        "cwd": os.fsdecode(cwd),
    }


def _bytes(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError("a NUL byte")
    return data
