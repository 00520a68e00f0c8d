"""Starting botd: the one thing that a client does without being asked."""

from __future__ import annotations

import _socket
import os
import subprocess
import sys
import time
from contextlib import contextmanager

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from botd.contract.paths import Paths

PATIENCE_S = 60.0
# From holding the lock to answering, a daemon with a large fleet may take a while.
OTHERS_PATIENCE_S = 10.0
_TRIES = 5


def botd_command(*arguments: str) -> list[str]:
    """botd of the same installation.

    -P: the working folder may belong to anybody and must not be searched for a package named botd.
    """
    return [sys.executable, "-P", "-m", "botd", *arguments]


def start_daemon(paths: Paths, config: str | None = None) -> None:
    """Start botd in the background and return when it, or another started in the same moment, answers.

    Raises BotdError(unavailable) with the reason that botd gave; the exit is 9 when that is its configuration.
    """
    with _one_at_a_time(paths):
        if not _answers(paths.socket):
            _start(paths, config)


@contextmanager
def _one_at_a_time(paths: Paths) -> Iterator[None]:
    """Ten cron jobs of one minute start one daemon; the nine others wait here and find it answering."""
    from filelock import FileLock, Timeout

    try:
        os.makedirs(paths.run, 0o700, exist_ok=True)
        lock = FileLock(f"{paths.run}/start.lock", timeout=PATIENCE_S, mode=0o600)
        lock.acquire()
    except (OSError, Timeout):
        yield  # botd has the better words for what is wrong with the home
        return
    try:
        yield
    finally:
        lock.release()


def _start(paths: Paths, config: str | None) -> None:
    for _ in range(_TRIES):
        status, reason, hint = _try(config)
        if status == Exit.OK:
            return
        if status != Exit.FAILED or "already running" not in reason:
            break
        # There is a daemon, which a neighbouring job has started and that may not listen yet. Or it was an attempt of
        # the keeper, which came to nothing: then it is our turn.
        if _another_answers(paths):
            return
    raise _failed(reason or f"it ended with status {status}", hint, status)


def _try(config: str | None) -> tuple[int, str, str]:
    """One start of botd: its exit status, and the reason and the hint that it gave."""
    command = botd_command("run", "--detach", *(["--config", config] if config else []))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(f"it did not answer within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise _failed(f"{command[0]}: {error.strerror or error}") from None
    return done.returncode, *_told(done.stderr)


def _told(stderr: str) -> tuple[str, str]:
    """The reason and the hint in what botd says: `botd: reason` and beneath it `try: hint`.

    Without such a line (a broken installation, say) the last one has to do.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reasons = [i for i, line in enumerate(lines) if line.startswith("botd: ")]
    if not reasons:
        return (lines[-1] if lines else ""), ""
    first = reasons[0]
    below = lines[first + 1] if first + 1 < len(lines) else ""
    return lines[first].removeprefix("botd: "), below.removeprefix("try: ") if below.startswith("try: ") else ""


def _failed(reason: str, hint: str = "", status: int = Exit.UNREACHABLE) -> BotdError:
    return BotdError(
        "unavailable",
        f"botd could not be started: {reason}",
        hint=hint or "botctl doctor",
        exit=Exit.INVALID if status == Exit.INVALID else Exit.UNREACHABLE,
    )


def _another_answers(paths: Paths) -> bool:
    """Whether a daemon that was started by somebody else accepts connections, now or soon."""
    deadline = time.monotonic() + OTHERS_PATIENCE_S
    while time.monotonic() < deadline:
        if _answers(paths.socket):
            return True
        if not _is_held(paths.daemon_lock):
            return False
        time.sleep(0.02)
    return False


def _is_held(lock: str) -> bool:
    """Whether the botd that wrote itself into the lock lives; as long as that cannot be read, it is taken to."""
    try:
        with open(lock, encoding="ascii") as file:
            pid = int(file.readline())
    except OSError:
        return True
    except ValueError:
        return False  # it gave the lock back
    return os.path.exists(f"/proc/{pid}")


def _answers(path: str) -> bool:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(OTHERS_PATIENCE_S)
        sock.connect(path)
    except OSError:
        return False
    finally:
        sock.close()
    return True
