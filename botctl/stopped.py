"""A botd that does not answer, looked at: is it stopped (SIGSTOP), and is there somebody who will wake it?"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.contract.paths import Paths


def is_stopped(pid: int) -> bool:
    """Whether a process stands still by SIGSTOP; one in a debugger does not count."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[:1] == [b"T"]
    except OSError:
        return False


def see_to(paths: Paths, pid: int) -> str:
    """What to tell somebody who waits for botd, "" when it is not stopped.

    The keeper wakes it. A keeper that is stopped as well is woken from here, and so is botd where there is none.
    """
    if not is_stopped(pid):
        return ""
    from botctl.keeper import ask

    keeper = ask(paths)
    if keeper.pid is None:
        return f"botd (pid {pid}) is stopped (SIGSTOP); {_woken(pid)}"
    if is_stopped(keeper.pid):
        woken = _woken(keeper.pid)
        return f"botd (pid {pid}) and its keeper (pid {keeper.pid}) are stopped (SIGSTOP); the keeper {woken}"
    return f"botd (pid {pid}) is stopped (SIGSTOP); the keeper wakes it in a moment"


def _woken(pid: int) -> str:
    try:
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        finally:
            os.close(pidfd)
    except OSError as error:
        return f"is not ours to wake: {error.strerror}; its owner does with: kill -CONT {pid}"
    return "is woken"
