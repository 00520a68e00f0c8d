"""Crowds at the door: connections without end, in every way that costs something. Whoever administers gets in."""

from __future__ import annotations

import os
import select
import time

import pytest
from fleet_house import NOBODY, python_for_everybody, until
from hostile_house import (
    ANSWER_MAX_S,
    GROWTH_MAX,
    LONG,
    Administrator,
    cpu,
    crowd,
    descriptors,
    report,
    resident,
)

MOST = 10_000 if LONG else 1500
SECONDS = 15.0 if LONG else 1.0


@pytest.fixture(scope="module")
def crowded():
    from fleet_house import FAST, Fleet

    fleet = Fleet({**FAST, "security": {"socketAccess": "everyone"}}).up()
    fleet.create("alice/one", "sleep")
    Administrator(fleet).ask(20)
    yield fleet
    fleet.close()


def under(fleet, title, many, **who):
    """An administrator asks while a crowd comes, while it stands, and after it left."""
    pid, admin = fleet.daemon_pid, Administrator(fleet)
    fleet.hang_up()
    before, had, busy = resident(pid), descriptors(pid), cpu(pid)
    peak = before
    with crowd(fleet, many, title, **who) as child:
        last = ""
        while not last.startswith("all"):
            # Not a line is waited for: the administrator comes in the middle of it.
            admin.ask(3, pause=0.01)
            peak = max(peak, resident(pid))
            last = _said(child) or last
        until_s = time.monotonic() + SECONDS
        while time.monotonic() < until_s:
            admin.ask(5, pause=0.02)
            peak = max(peak, resident(pid))
        open_now = descriptors(pid) - had
    busy = cpu(pid) - busy
    report(f"{many} {title} ({last})", admin, before, peak, f", {open_now} stand, {busy:.2f} s of CPU")
    assert admin.worst < ANSWER_MAX_S, admin
    assert peak - before < GROWTH_MAX
    until(lambda: descriptors(pid) <= had + 2, "the crowd to be gone")
    assert fleet.daemon_pid == pid
    assert "Traceback" not in fleet.daemon_log()
    return open_now


def _said(child):
    """The last line that it said since we looked; "" when it said none."""
    if not select.select([child.stdout], [], [], 0)[0]:
        return ""
    return os.read(child.stdout.fileno(), 4096).decode().split("\n")[-2]


@pytest.mark.parametrize("kind", ["idle", "drip", "half", "huge", "deaf"])
def test_an_administrator_gets_in_whatever_a_crowd_of_administrators_does(crowded, kind):
    stand = under(crowded, kind, MOST if kind == "idle" else MOST // 5)
    assert stand <= 1024 + 8


@pytest.mark.root
@pytest.mark.parametrize("kind", ["idle", "drip", "huge", "deaf"])
def test_strangers_hold_no_more_than_their_share(crowded, kind):
    stand = under(crowded, kind, MOST if kind == "idle" else MOST // 5, uid=NOBODY, python=python_for_everybody())
    assert stand <= 512 + 8
