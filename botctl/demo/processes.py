"""The processes and cgroups of one fleet, found from the outside: by their marks in /proc, not by what botd says.

This is how the demo ends what is left when botd cannot be asked any more, and how it proves that nothing is.
"""

from __future__ import annotations

import os
import select
import signal
import time
from itertools import pairwise

MARK = "BOTD_DEMO"
"""In the environment of every command of a demo; its value is the home of the fleet. botd hands BOTD_* on."""

_POLL_S = 0.02


def find(home: str) -> list[int]:
    """The pids of everything that belongs to the fleet of `home`, this process not counted."""
    own = os.getpid()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if pid != own and belongs(pid, home)]


def belongs(pid: int, home: str) -> bool:
    """Whether this is a command or the botd of the demo, the keeper of its home, or a bot with its data there.

    A shell in which somebody has set BOTD_HOME to try the fleet is none of these.
    """
    place = os.fsencode(home)
    argv = _read(pid, "cmdline").split(b"\0")
    if any(word == b"--home" and value == place for word, value in pairwise(argv)):
        return True
    for entry in _read(pid, "environ").split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == MARK.encode() and value == place:
            return True
        if name == b"BOT_DATA" and value.startswith(place + b"/"):
            return True
        if name == b"BOTD_HOME" and value == place and b"botd" in argv and b"run" in argv:
            return True
    return False


def _read(pid: int, file: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as opened:
            return opened.read()
    except OSError:
        return b""  # gone, or somebody else's


def kill(pid: int, home: str, number: int = signal.SIGKILL, *, wait: bool = False) -> bool:
    """Send the signal, but only to a process of this fleet; with `wait`, return when it is dead (10 s at most).

    The pidfd makes sure that what was looked at is what gets the signal. False when there is no such process.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not belongs(pid, home):
            return False
        signal.pidfd_send_signal(pidfd, number)
        if wait:
            died = select.poll()
            died.register(pidfd, select.POLLIN)
            died.poll(10_000)
        return True
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)


def wait_gone(home: str, patience_s: float) -> bool:
    """Whether everything ended by itself within this time."""
    deadline = time.monotonic() + patience_s
    while find(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def end_all(home: str, patience_s: float = 10.0) -> list[int]:
    """Kill until nothing is found twice in a row; returns who is left when `patience_s` has passed, which is nobody.

    In rounds, because the keeper and botd start each other again and anything found may just have forked.
    """
    deadline = time.monotonic() + patience_s
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        found = find(home)
        quiet = 0 if found else quiet + 1
        for pid in found:
            kill(pid, home)
        time.sleep(_POLL_S)
    return find(home)


def cgroup_of(pid: int) -> str | None:
    """The folder in which the keeper holds the cgroups of this bot's fleet; None where it uses none."""
    lines = _read(pid, "cgroup").decode("utf-8", "replace").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "")
    above, _, life = own.rpartition("/")
    if not life or not os.path.basename(above).startswith("botd-"):
        return None
    folders = (mount + above for mount in _cgroup_mounts())
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def _cgroup_mounts() -> list[str]:
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        return [line.split()[1].rstrip("/") for line in mounts if line.split()[2] == "cgroup2"]


def remove_cgroup(folder: str) -> bool:
    """Remove the folder and the empty cgroups in it; whether it is gone."""
    try:
        for name in os.listdir(folder):
            if os.path.isdir(f"{folder}/{name}"):
                os.rmdir(f"{folder}/{name}")
        os.rmdir(folder)
    except OSError:
        return not os.path.exists(folder)
    return True
