"""A fleet from its first start to the reckoning: rounds of requests and blows, all decided by one seed."""

from __future__ import annotations

import random
from time import monotonic, sleep

from fleet_house import ALL, Fleet, Timeout, alive, until

from . import blows
from .crew import SOURCE, muster
from .promises import Promises
from .reckoning import Reckoning
from .rig import Rig
from .storm import Storm
from .tally import Tally

CONFIG = {
    "botRecovery": {"restartDelay": 20, "maxBackoffDelay": 200, "settleTime": 200, "backoffResetAfter": 1500},
    "resourceManagement": {
        "autoRestartMaxAttempts": 100_000,
        "memoryThreshold": 100,
        "maxBotsPerUser": 1000,
        "maxTotalBots": None,
        "cleanupInterval": 0,
    },
    "output": {"maxLogSize": 1, "keepLogs": 1000},
}
"""Impatient, and nothing that a bot ever said is thrown away."""
SETTLE_S = 60.0
LOOK_EVERY = 10


class Chapter:
    """`rounds`: their numbers. `run` returns the tally; its violations name the seed and the rounds."""

    def __init__(self, seed, rounds, *, who="all", bots=40, containment="auto", without="", config=CONFIG):
        self.seed, self.rounds, self.who = seed, list(rounds), who
        self.members = muster(bots)
        self.tally = Tally()
        self.promises = Promises(monotonic)
        self.gun = blows.Gun(monotonic)
        self.fleet = Fleet(config, containment=containment)
        self.rig = Rig(self.fleet, self.tally, without)
        self._where = f"BOTS={bots} CONTAINMENT={containment}" + (f" WITHOUT={without}" if without else "")
        self._round = "the start"
        self._events, self._seq = [], 0
        self._steady = {}

    def run(self):
        try:
            try:
                self.muster()
                for number in self.rounds:
                    self._round = number
                    self.play(number)
                self._round = "the end"
                self.settle()
            except (AssertionError, OSError, Timeout) as error:
                self.complain(f"{type(error).__name__}: {error}")
            self.close()
        finally:
            self.fleet.destroy()
        self.tally.acknowledged += self.promises.acknowledged
        self.tally.unanswered += self.promises.unanswered
        return self.tally

    def complain(self, text):
        self.tally.violations.append(f"[round {self._round} of: make faults {self.describe()}] {text}")

    def describe(self):
        """The words that play it again."""
        return f"SEED={self.seed} WHO={self.who} FROM={self.rounds[0]} TO={self.rounds[-1]} {self._where}"

    # --- the beginning ----------------------------------------------------------------------------------

    def muster(self):
        self.rig.up()
        self.enrol()

    def enrol(self):
        """Every bot is made and runs; from here on those that nobody touches keep their pids."""
        specs = [member.spec(self.seed) for member in self.members]
        with self.promises.request("create", *(m.id for m in self.members), exists=True, wanted=True):
            answer = self.rig.rpc("fleet.apply", source=SOURCE, bots=specs, wait=False)
        assert answer["summary"]["failed"] == 0, answer
        self._until_all_ran()
        views = self.rig.views()
        self._steady = {member.id: views[member.id]["pid"] for member in self.members if member.untouched}

    def _until_all_ran(self):
        wanting = {member.id for member in self.members}

        def ran():
            wanting.difference_update(
                bot_id for bot_id, view in self.rig.views().items() if view["phase"] == "running" or view["generation"]
            )
            return not wanting

        until(ran, "a life of every bot", SETTLE_S, pause=0.05)
        # Not before they run: who is still at its gate has no pid to keep.
        steady = [member.id for member in self.members if member.untouched]
        until(
            lambda: all(self.rig.views()[bot_id]["phase"] == "running" for bot_id in steady),
            "a running life of those that nobody touches",
            SETTLE_S,
            pause=0.05,
        )

    # --- a round ----------------------------------------------------------------------------------------

    def play(self, number):
        """Requests, and while they are on their way one blow; then everything that can be seen from outside."""
        chance = random.Random(f"{self.seed} {self.who} {number}")
        name, blow = blows.choose(self.who, chance)
        storm = Storm(
            self.rig, self.members, self.promises, random.Random(chance.random()), f"r{number}", self.seed,
            steps=chance.randrange(1, 9),
        )  # fmt: skip
        storm.start()
        # The instant of the blow is the fault that is injected: nothing is waited for here.
        sleep(chance.random() * 0.12)
        if chance.random() < 0.3:
            self.shoot(chance)
        blow(self.rig)
        self.tally.faults[name] += 1
        storm.join(SETTLE_S)
        assert not storm.is_alive(), "a request was never answered and its connection never ended"
        for text in storm.unexpected:
            self.complain(text)
        self.look(deep=number % LOOK_EVERY == 0)

    def shoot(self, chance):
        """One bot is killed from outside; it comes back like one that crashed."""
        marks = [member for member in self.members if not member.untouched]
        member = chance.choice(marks)
        view = self.rig.views().get(member.id)
        if view is not None and self.gun.shoot(view, chance.choice(blows.SHOTS)):
            self.tally.faults["signal to a bot"] += 1

    def look(self, deep=False):
        """What holds at every instant: promises, and those that nobody touches."""
        views = self.rig.views()
        for text in self.promises.broken(views, self.members):
            self.tally.broken += 1
            self.complain(text)
        self.promises.settle(views)
        for bot_id, pid in self._steady.items():
            if views.get(bot_id, {}).get("pid") != pid or not alive(pid):
                self.tally.lost += 1
                self.complain(f"{bot_id} ran as pid {pid}, now {views.get(bot_id)}: {self._around(bot_id)}")
                self._steady[bot_id] = views.get(bot_id, {}).get("pid")
        self._read_events()
        if deep:
            self._count_mains()

    def _read_events(self):
        while True:
            found = self.rig.rpc("events.list", after=self._seq, lines=10_000)["items"]
            self._events += found
            if not found:
                return
            self._seq = found[-1]["seq"]

    def _around(self, bot_id):
        events = self.rig.rpc("events.list", lines=200)["items"]
        return [event["text"] for event in events if event["id"] == bot_id][-5:]

    def _count_mains(self):
        """No bot has two main processes, whatever botd believes."""
        leaders = {}
        for pid, command in self.fleet.processes():
            bot = _bot_of(pid) if "witness.py" in command else None
            if bot is not None and _is_main(pid, bot, self.fleet.home):
                leaders.setdefault(bot, []).append(pid)
        for bot, pids in leaders.items():
            if len(pids) > 1:
                self.tally.doubled += 1
                self.complain(f"{bot} has {len(pids)} main processes: {pids}")

    # --- the end ----------------------------------------------------------------------------------------

    def settle(self):
        """Everything converges: first to running, then to nothing; and then it is accounted for."""
        self.rig.rpc("bots.start", select=ALL, wait=False)
        wanting = {member.id for member in self.members}

        def ran():
            wanting.difference_update(i for i, view in self.rig.views().items() if view["phase"] == "running")
            return not wanting

        try:
            until(ran, "a run of every bot after the storm", SETTLE_S, pause=0.02)
        except Timeout:
            self.tally.lost += len(wanting)
            self.complain(f"wanted, and not running any more: {sorted(wanting)}")
        views = self.rig.views()
        self.promises.settle(views)
        with self.promises.request("stop", *views, wanted=False):
            stopped = self.rig.rpc("bots.stop", select=ALL, timeout_s=SETTLE_S)
        failed = [item for item in stopped["items"] if not item["ok"]]
        assert not failed, failed
        self._steady = {}
        self.look(deep=True)
        left = [process for process in self.fleet.processes() if "witness.py" in process[1]]
        if left:
            self.tally.doubled += len(left)
            self.complain(f"left when every bot was stopped: {left}")
        waiting = self.rig.rpc("daemon.status")["waiting_for_disk"]
        assert waiting == 0, waiting
        Reckoning(
            self.fleet.home, self.members, self._events, self.promises, self.gun.shots, self.rig.gaps, self.tally,
            self.complain,
            self.rig.orphaned if self.rig.helpless else (),
            self.rig.diary,
        ).run()  # fmt: skip
        if "Traceback" in self.fleet.daemon_log():
            self.complain(f"the daemon's log has a traceback: {_around_traceback(self.fleet.daemon_log())}")
        if "unexpected" in self.fleet.keeper_log() or "Traceback" in self.fleet.keeper_log():
            self.complain(f"the keeper's log: {_around_traceback(self.fleet.keeper_log())}")

    def close(self):
        try:
            self.fleet.close()
        except AssertionError as error:
            self.complain(f"the orderly end: {error}")


def _around_traceback(text):
    at = max(text.find("Traceback"), text.find("unexpected"), 0)
    return text[max(0, at - 500) : at + 2500]


def _bot_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return None
    return next((entry[7:].decode() for entry in entries if entry.startswith(b"BOT_ID=")), None)


def _is_main(pid, bot, home):
    """Whether it wrote down that it began ; its children never do."""
    try:
        with open(f"{home}/bots/{bot}/data/lives") as file:
            return any(line.split()[:1] == ["begin"] and line.split()[2] == str(pid) for line in file)
    except OSError:
        return False
