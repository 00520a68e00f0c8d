"""Measuring a daemon while somebody is at it: how quickly an administrator is answered, and what it costs in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from fleet_house import ALL, WITHIN_S

LONG = os.environ.get("BOTD_HOSTILE") == "long"
"""The figures that are promised, instead of small ones that find the same mistakes."""

CLIENT = Path(__file__).with_name("crowd_client.py")
GROWTH_MAX = 10 << 20
ANSWER_MAX_S = 1.0 if LONG else 20.0


def resident(pid):
    """Bytes of memory of a process that are its own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
    return 1024 * (int(fields["Private_Clean"]) + int(fields["Private_Dirty"]))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu(pid):
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Administrator:
    """Knocks anew each time, asks for the whole fleet, and remembers how long that took."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.took = []

    def ask(self, times=1, pause=0.0):
        for _ in range(times):
            began = time.monotonic()
            with self.fleet.connect() as wire:
                assert wire.rpc("daemon.ping")
                wire.rpc("bots.list", select=ALL, limit=2000)
            self.took.append(time.monotonic() - began)
            time.sleep(pause)

    @property
    def worst(self):
        return max(self.took)

    def __str__(self):
        took = sorted(self.took)
        return f"{len(took)} answers: median {took[len(took) // 2] * 1000:.1f} ms, longest {took[-1] * 1000:.1f} ms"


@contextlib.contextmanager
def crowd(fleet, most, kind, *, uid=None, python=sys.executable):
    """A process that holds `most` connections, or as many as it gets. Its `said` lines come from `readline`."""
    identity = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    # Another user may not read our folder: the program comes as an argument.
    child = subprocess.Popen(
        [python, "-I", "-S", "-c", CLIENT.read_text(), fleet.socket, str(most), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", **identity,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.stdin.close()
        child.stdout.close()
        try:
            child.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def report(title, admin, before, after, more=""):
    """One line of figures, for `-s` and for docs."""
    print(f"\n{title}: {admin}; memory {(after - before) / (1 << 20):+.1f} MiB{more}")
