"""`make faults ROUNDS=1000 [SEED=N] [WHO=botd|keeper|both|stop|points|all] [BOTS=40]`: chapter after chapter.

WHO=all is ROUNDS kills of botd, a fifth as many of the keeper, a tenth of both at once, a twentieth of SIGSTOPs, and
each crash point ROUNDS / 200 times. Chapters take turns in both ways of containment, and every third of those that kill
keepers does without the kernel's PIDFD_INFO_EXIT.

To play one chapter again: the words that a violation is told with (FROM, TO, CONTAINMENT, WITHOUT, ...). OUT=FILE keeps
the figures of each chapter as a line of JSON, and `FIGURES=FILE` prints the table of such a file.

Exit status 1 for any violation, and where the API needs more than two seconds in the median.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import signal
import statistics
import sys
from collections import Counter
from time import monotonic

from .blows import WHO
from .chapter import Chapter
from .points import Walk
from .tally import Tally

CHAPTER = 50
SHARES = {"botd": 1, "keeper": 5, "both": 10, "stop": 20}
ROUNDS_A_WALK = 200
API_WITHIN_S = 2.0
WORDS = ("ROUNDS", "SEED", "WHO", "BOTS", "FROM", "TO", "CONTAINMENT", "WITHOUT", "OUT", "FIGURES")


def main(arguments):
    given = dict(word.partition("=")[::2] for word in arguments)
    if wrong := [word for word in given if word not in WORDS] or given.get("WHO", "all") not in (*WHO, "points"):
        print(__doc__, f"unknown: {wrong}", sep="\n", file=sys.stderr)
        return 2
    if "FIGURES" in given:
        print(read(given["FIGURES"]).table(markdown=True))
        return 0
    # Asked to end, it leaves no fleet behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed = int(given.get("SEED") or secrets.randbelow(10**6))
    chapters = list(plan(given, seed))
    print(f"seed {seed}: {len(chapters)} chapters on {os.cpu_count()} cores, Linux {platform.release()}", flush=True)
    total, began = Tally(), monotonic()
    for number, chapter in enumerate(chapters, 1):
        tally = chapter.run()
        total.add(tally)
        print(
            f"{number:4}/{len(chapters)}  {monotonic() - began:6.0f} s  {chapter.describe()}: "
            f"{sum(tally.faults.values())} faults, {len(tally.violations)} violations",
            flush=True,
        )
        for text in tally.violations:
            print(f"      {text}", flush=True)
        if out := given.get("OUT"):
            with open(out, "a") as file:
                file.write(json.dumps(vars(tally)) + "\n")
    print(f"\n{total.table()}")
    slow = [times for times in (total.api, total.api_by_itself) if times and statistics.median(times) > API_WITHIN_S]
    if slow:
        print(f"the API took more than {API_WITHIN_S:g} s in the median")
    print(f"{len(total.violations)} violations, seed {seed}")
    return 1 if total.violations or slow else 0


def plan(given, seed):
    """The chapters, not yet begun."""
    rounds, who, bots = int(given.get("ROUNDS") or 100), given.get("WHO") or "all", int(given.get("BOTS") or 40)
    if "FROM" in given:
        numbers = range(int(given["FROM"]), int(given["TO"]) + 1)
        where = {"containment": given.get("CONTAINMENT", "auto"), "without": given.get("WITHOUT", "")}
        if who == "points":
            yield Walk(seed, numbers[0], bots=bots, **where)
        else:
            yield Chapter(seed, numbers, who=who, bots=bots, **where)
        return
    for kind, share in SHARES.items():
        if who not in (kind, "all"):
            continue
        count = math.ceil(rounds / (share if who == "all" else 1))
        for index, first in enumerate(range(0, count, CHAPTER)):
            numbers = range(first, min(count, first + CHAPTER))
            without = "pidfd_info,zombie_stat" if kind != "botd" and index % 3 == 2 else ""
            yield Chapter(seed, numbers, who=kind, bots=bots, containment=("auto", "tree")[index % 2], without=without)
    if who in ("points", "all"):
        for number in range(math.ceil(rounds / ROUNDS_A_WALK)):
            yield Walk(seed, number, containment=("auto", "tree")[number % 2])


def read(path):
    total = Tally()
    with open(path) as file:
        for line in file:
            facts = json.loads(line)
            total.add(Tally(**{**facts, "faults": Counter(facts["faults"]), "points": Counter(facts["points"])}))
    return total
