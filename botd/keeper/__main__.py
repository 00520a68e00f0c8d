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
from time import sleep

from botd.keeper import proc
from botd.keeper.keeper import Keeper
from botd.keeper.keeper_log import Log
from botd.keeper.launch import LOCK_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

USAGE, TAKEN = 2, 75
_LOCK_WITHIN_S = 3.0
_WITHOUT = ("cgroup_kill", "clone3", "controllers", "nursery", "pidfd_info", "unique_inodes", "zombie_stat")


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
    argv, resumption = _resumption(argv)
    options = _options(argv)
    if options is None:
        print(
            "usage: botd-keeper --home HOME [--detach] [--containment=auto|cgroup2|tree] "
            f"[--without=FEATURE,...]   (features: {', '.join(_WITHOUT)})",
            file=sys.stderr,
        )
        return USAGE
    home, containment, without = options
    if resumption:
        return _resumed(home, containment, without, resumption)
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
        keeper = Keeper(home, containment, without, log)
    except OSError as error:
        log(f"cannot start: {error}")
        print(f"botd-keeper cannot start: {error}", file=sys.stderr)
        return 1
    log(f"started; {keeper}")
    listening()
    return _work(keeper, log)


def _work(keeper: Keeper, log: Log) -> int:
    gc.collect()
    # What exists now stays: the collector must not touch its pages again, they are shared with every child.
    gc.freeze()
    keeper.run()
    log("ended: no life is left")
    return 0


def _resumption(argv: list[str]) -> tuple[list[str], list[str]]:
    """(arguments, what follows "--resume"): the latter is what a keeper says that puts this program in its place."""
    at = argv.index("--resume") if "--resume" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def _resumed(home: str, containment: str, without: list[str], words: list[str]) -> int:
    """Go on in the place of the program that was executed in this process before."""
    from botd.keeper import resume

    os.umask(0o077)
    return resume.main(
        int(words[0]), home, words[1:], lambda state, log: Keeper(home, containment, without, log, state), _work
    )


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
    return proc.is_zombie(int(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
