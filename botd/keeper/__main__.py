"""botd-keeper: `python -I -S .../botd/keeper/__main__.py --home HOME`, or `python -m botd.keeper --home HOME`.

With --detach the command returns as soon as the keeper listens, and the keeper is nobody's child.

Ends with 0 after `quit`, 2 on wrong arguments, 75 when another keeper has this home, 1 when it cannot start.
"""

from __future__ import annotations

import sys

if not __package__:
    # Started by path, without site: everything of Python's own comes first, then the folder that holds botd.
    sys.path.append(__file__.rsplit("/botd/keeper/", 1)[0])

import fcntl
import gc
import os
import resource
from time import gmtime, sleep, strftime

from botd.keeper import lean, proc
from botd.keeper.containment import Cages
from botd.keeper.door import Door
from botd.keeper.journal import Journal
from botd.keeper.keeper import Keeper
from botd.keeper.launch import LOCK_FD, subreaper
from botd.keeper.life import Life
from botd.keeper.loop import Loop
from botd.keeper.nursery import Nursery
from botd.keeper.output import Output
from botd.keeper.respawn import Respawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

USAGE, TAKEN = 2, 75
_LOG_LIMIT = 256 * 1024
_LOCK_WITHIN_S = 3.0
_WITHOUT = ("cgroup_kill", "clone3", "nursery", "pidfd_info", "unique_inodes", "zombie_stat")


class Log:
    """The keeper's own few lines; the file never grows beyond twice its limit."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, text: str) -> None:
        line = f"{strftime('%Y-%m-%dT%H:%M:%SZ', gmtime())} keeper[{os.getpid()}] {text}\n"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, line.encode("utf-8", "backslashreplace"))
                if os.fstat(fd).st_size > _LOG_LIMIT:
                    os.rename(self._path, self._path + ".1")
            finally:
                os.close(fd)
        except OSError:
            return  # the disk is full: what cannot be written cannot be complained about either

    def error(self, error: Exception) -> None:
        place, trace = "", error.__traceback__
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
            trace = trace.tb_next
        self(f"unexpected at {place}: {type(error).__name__}: {error}")


def main(argv: list[str]) -> int:
    if "--detach" in argv:
        return _detached([word for word in argv if word != "--detach"])
    return _run(argv, lambda: None)


def _detached(argv: list[str]) -> int:
    """Run the keeper as an orphan in a session of its own; 0 as soon as it listens, else its exit status."""
    wait, ready = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(ready)
        if os.read(wait, 1):
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(wait)
    os.setsid()
    os.chdir("/")

    def listening() -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for fd in range(LOCK_FD):
            os.dup2(null, fd)
        os.close(null)
        os.write(ready, b"x")
        os.close(ready)

    return _run(argv, listening)


def _run(argv: list[str], listening: Callable[[], None]) -> int:
    options = _options(argv)
    if options is None:
        print(
            "usage: botd-keeper --home HOME [--detach] [--containment=auto|cgroup2|tree] "
            f"[--without=FEATURE,...]   (features: {', '.join(_WITHOUT)})",
            file=sys.stderr,
        )
        return USAGE
    home, containment, without = options
    run = os.path.join(home, "run")
    os.umask(0o077)
    try:
        os.makedirs(run, 0o700, exist_ok=True)
        _occupy_low_descriptors(os.path.join(run, "keeper.lock"))
    except BlockingIOError:
        print(f"another keeper has {home}", file=sys.stderr)
        return TAKEN
    except OSError as error:
        print(f"botd-keeper cannot start: {error}", file=sys.stderr)
        return 1
    log = Log(os.path.join(run, "keeper.log"))
    try:
        keeper = _build(home, run, containment, without, log)
    except OSError as error:
        log(f"cannot start: {error}")
        print(f"botd-keeper cannot start: {error}", file=sys.stderr)
        return 1
    log(f"started; containment {keeper.cages.kind}; {len(keeper.journal.open)} lives in the journal")
    listening()
    gc.collect()
    # What exists now stays: the collector must not touch its pages again, they are shared with every child.
    gc.freeze()
    keeper.loop.run()
    keeper.door.close()
    keeper.cages.close()
    try:
        os.unlink(os.path.join(run, "keeper.sock"))
    except FileNotFoundError:
        pass  # somebody tidied up before us
    log("ended: no life is left")
    return 0


def _build(home: str, run: str, containment: str, without: list[str], log: Log) -> Keeper:
    lean.default_signals()
    lean.ignore(13)
    subreaper()
    proc.Switches.pidfd_info = "pidfd_info" not in without and proc.probe_pidfd_info()
    proc.Switches.unique_inodes = "unique_inodes" not in without and proc.probe_unique_inodes()
    proc.Switches.zombie_stat = "zombie_stat" not in without
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _raise_descriptors(hard)
    loop = Loop(log.error)
    known: dict[int, Life | None] = {}
    cages = Cages(home, containment, known, without)
    # As early as the containment is known: what the helper inherits it keeps.
    nursery = Nursery(loop, known) if cages.clone_into and "nursery" not in without else None
    journal = Journal(os.path.join(run, "keeper.journal"))
    if journal.damaged:
        log(f"{journal.damaged} damaged lines of the journal were skipped")
    keeper = Keeper(loop, journal, cages, Output(loop, log), (soft, hard), known, log)
    keeper.nursery = nursery
    keeper.door = Door(loop, os.path.join(run, "keeper.sock"), keeper.on_message, keeper.on_lost, log)
    keeper.respawner = Respawner(
        loop,
        os.path.join(run, "botd.log"),
        known,
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        lambda: keeper.door.connected,
        log,
    )
    wakeup, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    lean.on_child_signal(ring)
    loop.watch(wakeup, lambda: _rung(wakeup, keeper))
    return keeper


def _rung(wakeup: int, keeper: Keeper) -> None:
    os.read(wakeup, 4096)
    keeper.reap_strays()


def _options(argv: list[str]) -> tuple[str, str, list[str]] | None:
    """(home, containment, features to do without); None when the arguments are wrong."""
    home, containment, without = "", "auto", ""
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            value = next(words, "")
        if name == "--home":
            home = value
        elif name == "--containment":
            containment = value
        elif name == "--without":
            without = value
        else:
            return None
    missing = [name for name in without.split(",") if name]
    if not home or containment not in ("auto", "cgroup2", "tree") or not set(missing).issubset(_WITHOUT):
        return None
    return os.path.abspath(home), containment, missing


def _occupy_low_descriptors(lock: str) -> None:
    """/dev/null at 0 to 2 where nothing is, and the keeper's lock at LOCK_FD for life. BlockingIOError: it is taken."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < LOCK_FD:
        os.set_inheritable(fd, True)
    os.close(fd)
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    # A child of a keeper that was just killed may hold it until it has executed its program.
    tries = int(_LOCK_WITHIN_S / 0.01)
    for left in range(tries, -1, -1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if left == 0 or not _held_by_the_dead(fd):
                raise
            sleep(0.01)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    if fd != LOCK_FD:
        os.dup2(fd, LOCK_FD, inheritable=False)
        os.close(fd)


def _held_by_the_dead(fd: int) -> bool:
    """Whether the keeper that wrote its pid into the lock is gone (then the lock is free in a moment)."""
    text = os.pread(fd, 32, 0).strip()
    if not text.isdigit():
        return True
    fields = proc.stat(int(text))
    return not fields or fields[0] in (b"Z", b"X")


def _raise_descriptors(hard: int) -> None:
    """Room for up to seven descriptors a life."""
    for wanted in (1 << 19, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return
        except (OSError, ValueError):
            continue  # only root may raise the hard limit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
