"""The new program's side of a handover: check what the former one left, take it over, or give the process back.

Until everything stands, nothing is closed and nothing is told: the former program can be executed again on the same
state. Where it is this very program there is nothing to go back to; the process ends then, and botd, which holds
duplicates of every descriptor, starts a keeper as after a kill.
"""

from __future__ import annotations

import os
import stat
import sys
from sys import byteorder
from time import monotonic

from botd.crash import crash_point
from botd.keeper import proc, wire
from botd.keeper.handover import FORMAT, LOCK_FD, descriptors, keep_open
from botd.keeper.journal import Journal
from botd.keeper.lean import loads
from botd.keeper.life import Life
from botd.keeper.request import id_of, log_of
from botd.keeper.respawn import recipe_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages
    from botd.keeper.ends import Ends
    from botd.keeper.handover import State
    from botd.keeper.keeper import Keeper
    from botd.keeper.keeper_log import Log
    from botd.keeper.lives import Lives
    from botd.keeper.loop import Loop
    from botd.keeper.output import Output
    from botd.keeper.remains import Remains
    from botd.keeper.source import Source
    from botd.keeper.starts import Starts

SIZE_LIMIT = 1 << 28


class Unfit(ValueError):
    """The state cannot be gone on from; the text says why."""


def read(memfd: int) -> State:
    """The state in a memfd. Unfit when it is none, or of a format that this program does not know."""
    try:
        head = os.pread(memfd, 8, 0)
        size = int.from_bytes(head, byteorder)
        if len(head) < 8 or not 0 < size <= SIZE_LIMIT:
            raise Unfit("there is no state in it")
        data = b""
        while len(data) < size and (chunk := os.pread(memfd, size - len(data), 8 + len(data))):
            data += chunk
        state = loads(data.decode("ascii"))
        if not isinstance(state, dict) or type(state.get("format")) is not int:
            raise Unfit("it is no state of a keeper")
        if state["format"] > FORMAT:
            raise Unfit(f"its format is {state['format']}, this program knows {FORMAT} and older")
    except (OSError, ValueError, RecursionError) as error:
        raise Unfit(f"the state of the former keeper: {error}") from None
    return state


def check(state: State, home: str, open_fds: bool = True) -> None:
    """Raise Unfit unless all of it can be gone on from. `open_fds`: whether the descriptors are here, too."""
    try:
        if state["home"] != home:
            raise Unfit(f"it is of the home {state['home']}")
        botd = state["botd"]
        numbers = [*descriptors(state), *state["nofile"], state["handovers"], botd["pid"]]
        words = [
            *state["former"],
            state["release"],
            *(path for found in state["remains"].values() for path, _folders in found if path),
        ]
        numbers += [] if state["oom_score_adj"] is None else [state["oom_score_adj"]]
        if not all(type(number) is int for number in numbers) or len(state["nofile"]) != 2:
            raise Unfit("a number is none")
        if (
            not all(isinstance(word, str) for word in words)
            or type(botd["facts"]) is not dict
            or type(botd["delay"]) is not float
        ):
            raise Unfit("a text is none")
        if botd["recipe"] is not None:
            recipe_of(botd["recipe"])
        for about in state["lives"]:
            life = _life(about)
            if about["sources"]:
                log_of(life.facts["log"])
            if life.final is None and (life.pid <= 0 or life.pidfd < 0):
                raise Unfit(f"{life.id}: a life without a process")
        for life_id, name, log, _fds in state["orphans"]:
            id_of({"id": life_id})
            log_of(log)
            if name not in ("out", "err"):
                raise Unfit(f"{life_id}: {name!r}")
        if open_fds:
            _check_descriptors(state)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise Unfit(f"the state of the former keeper: {type(error).__name__}: {error}") from None


def _check_descriptors(state: State) -> None:
    for fd in descriptors(state):
        os.fstat(fd)
    if not os.path.samestat(os.fstat(LOCK_FD), os.stat(os.path.join(state["home"], "run", "keeper.lock"))):
        raise Unfit("the lock is another file")
    # Only looked at: who builds the keeper owns it.
    wire.listening(state["listener"]).detach()
    for about in state["lives"]:
        if about["pidfd"] >= 0 and proc.pidfd_pid(about["pidfd"]) not in (-1, about["pid"]):
            raise Unfit(f"{about['id']}: the pidfd belongs to another process")
        for name, fd, _final in about["sources"]:
            found = os.fstat(fd)
            if not stat.S_ISFIFO(found.st_mode) or found.st_ino != about["facts"][name]:
                raise Unfit(f"{about['id']}: the {name} descriptor is another pipe")


def main(
    memfd: int, home: str, words: list[str], build: Callable[[State, Log], Keeper], work: Callable[[Keeper, Log], int]
) -> int:
    """Go on where the former program stopped; with "--rehearse" in `words` only say (by the status) whether it could.

    `build` makes a keeper of a state, `work` lets it work to its end.
    """
    from botd.keeper.keeper_log import Log

    if "--rehearse" in words:
        try:
            check(read(memfd), home)
            Journal(os.path.join(home, "run", "keeper.journal"), rewrite=False)
        except (Unfit, OSError) as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    log = Log(os.path.join(home, "run", "keeper.log"))
    state: State | None = None
    try:
        crash_point("resume-begun")
        state = read(memfd)
        check(state, home)
        crash_point("resume-checked")
        if "--back" in words:
            state["error"] = words[words.index("--back") + 1]
        keeper = build(state, log)
        crash_point("resume-built")
    except Exception as error:  # noqa: BLE001  # whatever it is, the former program did without it
        log.error(error)
        _give_back(state, memfd, words, f"{type(error).__name__}: {error}", log)
        return 1
    keep_open([fd for fd in descriptors(state) if fd != LOCK_FD], False)
    os.set_inheritable(LOCK_FD, False)
    os.close(memfd)
    crash_point("resume-settled")
    log(f"took over from {state['release']} with {len(state['lives'])} lives; {keeper}")
    del state
    return work(keeper, log)


def _give_back(state: State | None, memfd: int, words: list[str], reason: str, log: Log) -> None:
    former: list[str] = [] if state is None else state["former"]
    own = [sys.executable, os.path.abspath(sys.argv[0])]
    if not former or "--back" in words or [former[0], next((w for w in former if w.endswith(".py")), "")] == own:
        log(f"cannot go on: {reason}; nothing older is there to go back to")
        return
    log(f"cannot go on: {reason}; back to {former[0]}")
    try:
        os.execve(former[0], [*former, "--resume", str(memfd), "--back", reason[:500]], dict(os.environ))
    except OSError as error:
        log(f"the former keeper could not be executed: {error}")


def lives(state: State, table: Lives, cages: Cages, output: Output) -> list[Source]:
    """The former program's lives into the table, their pipes into the output; nothing happens to any of them yet.

    Returns the pipes that nothing will be written to any more.
    """
    ended = []
    for life_id, name, log, fds in state["orphans"]:
        ended += [output.attach(life_id, fd, log_of(log)[0], name, log_of(log)[1]) for fd in fds]
    for about in state["lives"]:
        life = _life(about)
        if about["caged"]:
            life.cage = cages.former(life.facts, life.marks, child=life.child)
        for name, fd, final in about["sources"]:
            folder, limits = log_of(life.facts["log"])
            source = output.attach(life.id, fd, folder, name, limits)
            life.sources.append(source)
            if final:
                ended.append(source)
        if about["unreaped"]:
            table.children[life.pid] = life
        table.add(life)
    return ended


def go_on(
    state: State,
    loop: Loop,
    table: Lives,
    cages: Cages,
    output: Output,
    starts: Starts,
    ends: Ends,
    remains: Remains,
    ended: list[Source],
) -> None:
    """Watch everything again; what is to be done at once is done in the first turn. `ended` is what `lives` gave."""
    for life_id, paths in state["remains"].items():
        for path, folders in paths:
            remains.bury(life_id, cages.former({"cgroup": path, "folders": folders}, list))
    for life in table:
        if life.live and life.status is None:
            ends.follow(life)
            if life.kill_at is not None:
                ends.kill_after(max(0.0, life.kill_at - monotonic()), life.key)
        if life.error_fd >= 0:
            starts.resume(life)

    def first_turn() -> None:
        for source in ended:
            output.finish(source)
        for life in tuple(table):
            ends.resume(life)

    loop.after(0.0, first_turn)


def _life(about: State) -> Life:
    life = Life(about["id"], about["gen"])
    life.facts, life.pid, life.pidfd = about["facts"], about["pid"], about["pidfd"]
    life.error_fd, life.child, life.running = about["error_fd"], about["child"], about["running"]
    life.report = about["report"].encode("latin-1")
    life.stop_signal, life.kill_at, life.killed = about["stop_signal"], about["kill_at"], about["killed"]
    life.status, life.final, life.unrecorded = about["status"], about["final"], about["unrecorded"]
    return life
