"""Every numbered crash point, found in the source, and the way to each.

A walk is a fleet through which botd and the keeper die at one point after the other: start the program with the point
armed, do what reaches it, let it die, let the next one come (armed with the next point) and look at what survived.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from signal import SIGKILL
from time import monotonic, sleep

from fleet_house import ROOT, alive, kill

from .chapter import CONFIG, SETTLE_S, Chapter
from .rig import SILENT
from .storm import Storm

WALK_CONFIG = {**CONFIG, "resourceManagement": {**CONFIG["resourceManagement"], "cleanupInterval": 1000}}
NEW_DATABASE = ("botd-migration-step", "botd-migration-committed", "botd-database-built", "botd-database-published")
"""Only a home without a database comes past these, in this order."""
ELSEWHERE = {
    "rotate-oldest-gone": "it takes lines away, as it should: tests/keeper/test_keeper_rotation.py",
    "rotate-packed": "only behind a compression that was cut short: tests/keeper/test_keeper_rotation.py",
    "nursery": "of the helper alone, which the keeper outlives: tests/keeper/test_keeper_nursery.py",
    "handover": "only in an upgrade: tests/keeper/test_keeper_handover.py",
    "resume": "only in an upgrade: tests/keeper/test_keeper_handover.py",
    "botd-roll": "only in a roll: tests/e2e/test_rolls.py",
    "botd-template": "templates: tests/e2e/test_templates_killed.py",
    "botd-folder": "bots of a template: tests/e2e/test_templates_killed.py",
    "botd-app": "only of bots with a template: tests/storage/test_storage_layout_crashes.py",
    "botd-gather": "only of bots with a template: tests/storage/test_storage_layout_crashes.py",
    "botd-upgrade": "only in an upgrade: tests/e2e/test_upgrade.py",
    "botd-undelete": "nobody in a storm changes his mind: tests/e2e/test_trash.py",
    "botd-purge": "only what is to be gone for good: tests/e2e/test_trash.py",
    "store-": "of the child that makes releases, and of removing them: tests/storage/test_releases.py",
}
"""Points, or beginnings of their names, that a walk does not go to; and who does."""
REACHED_WITHIN_S = 90.0
BOTDS = "botd-"
ONCE = ("botd-up", "botd-down", "botd-keeper", "botd-snapshot", "botd-checkpoint", "compact")
"""What is passed once in a life of the program, or seldom."""
BOTS = 16


def in_the_source():
    """The names in the code itself, so that a new point is walked to without anybody remembering to."""
    found = set()
    for source in sorted((ROOT / "botd").rglob("*.py")):
        for call in re.findall(r"crash_point\(([^()]*)\)", source.read_text()):
            names = re.findall(r'f?"([^"]+)"', call)
            for name in names:
                found |= {name.replace("{name[-3:]}", "log"), name.replace("{name[-3:]}", "idx")}
        if "{part}" in source.read_text():
            found = {name.replace("{part}", part) for name in found for part in ("bot", "logs")}
    return found


def all_points():
    """Those that a walk goes to."""
    return sorted(name for name in in_the_source() if not name.startswith(tuple(ELSEWHERE)))


class Walk(Chapter):
    """One pass of every point (or of `points`), in an order of the seed's choosing; `number` makes another one."""

    def __init__(self, seed, number=0, *, points=None, containment="auto", without="", bots=BOTS):
        super().__init__(
            seed, [number], who="points", bots=bots, containment=containment, without=without, config=WALK_CONFIG
        )
        self._chance = random.Random(f"{seed} points {number}")
        self._points = all_points() if points is None else list(points)
        self._most_passes = 1 if number == 0 else 3
        self._gap = None

    def muster(self):
        """The first starts of this home die as well."""
        if self.rig.without:
            self.rig.start_keeper()
        for name in NEW_DATABASE:
            if name in self._points:
                self._reached(name, not self.rig.start_child(name))
        self._start_child()
        self.enrol()

    def play(self, number):
        rest = [name for name in self._points if name not in NEW_DATABASE]
        self._chance.shuffle(rest)
        for name in rest:
            if name.startswith(BOTDS):
                self._round = name
                self._die_as_botd(name)
        self._start_child()
        self.look()
        for name in rest:
            if not name.startswith(BOTDS):
                self._round = name
                self._die_as_keeper(name)
        self._round = "the end"

    def _start_child(self):
        """One that shall live."""
        self._end_child()
        assert self.rig.start_child(), self.fleet.daemon_log()[-2000:]
        self._looked()

    def _end_child(self):
        if self.rig.child is not None and self.rig.child.poll() is None:
            self.rig.child.kill()
            self.rig.child.wait()

    def _looked(self):
        self.rig.look()
        if self._gap is not None:
            self.rig.gap(self._gap)
            self._gap = None

    def _die_as_botd(self, name):
        self._end_child()
        died = not self.rig.start_child(self._armed(name))
        if not died:
            # It may die while it is looked at: the next one is looked at as well.
            with suppress(*SILENT):
                self._looked()
                self.look()
            if name.startswith("botd-keeper"):
                self._gap = self._gap or monotonic()
                self.rig.note("kill -9 of the keeper")
                kill(self.rig.keeper_pid)
            elif name.startswith("botd-down"):
                with suppress(*SILENT):
                    self.fleet.rpc("daemon.shutdown")
            died = self._until(lambda: self.rig.child.poll() is not None)
        self._reached(name, died)

    def _die_as_keeper(self, name):
        pid = self.rig.arm_keeper(self._armed(name))
        self._reached(name, pid is None or self._until(lambda: not alive(pid)))
        self._looked()
        self.look()

    def _armed(self, name):
        """With the number of the pass at which to die; what is passed once in a life is not passed three times."""
        passes = 1 if name.startswith(ONCE) else self._chance.randint(1, self._most_passes)
        return f"{name}:{passes}"

    def _reached(self, name, died):
        self.rig.note(f"{name}: {'died' if died else 'lives'}")
        status = -SIGKILL
        if died and name.startswith(BOTDS):
            self.fleet.hang_up()
            status = self.rig.child.wait(SETTLE_S)
        if not died or status != -SIGKILL:
            self.complain(f"{name} was not reached: {f'it ended with {status}' if died else 'it lives'}")
            return
        self.tally.points[name] += 1
        self.tally.faults["crash point of " + ("botd" if name.startswith(BOTDS) else "the keeper")] += 1

    def _until(self, ended):
        """Requests of all kinds until it has died; False: it would not."""
        deadline = monotonic() + REACHED_WITHIN_S
        number = 0
        while not ended() and monotonic() < deadline:
            number += 1
            name = f"{self._round}-{number}"
            chance = random.Random(self._chance.random())
            storm = Storm(self.rig, self.members, self.promises, chance, name, self.seed, steps=8)
            storm.run()
            for text in storm.unexpected:
                self.complain(text)
            sleep(0.02)
        return ended()
