"""Rolls on random walks: the real engine, store and rolls; simulated lives; kill -9 anywhere; people who interfere.

A failure names its seed: BOTD_SEED=N replays that walk alone. BOTD_ROLL_WALKS sets how many are walked.
"""

import os
import re
from pathlib import Path

from rolling_world import BAD, GOOD

from botd.core.roll import OPEN, PHASES

WALKS = int(os.environ.get("BOTD_ROLL_WALKS", "12"))
SEED = os.environ.get("BOTD_SEED")
STEPS = 200
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def documented():
    """Phase -> what may follow, as docs/architecture.md says."""
    [table] = re.findall(r"<!-- roll -->\n(.*?)<!-- end -->", ARCHITECTURE.read_text(), re.DOTALL)
    rows = [line.split("|") for line in table.splitlines()[2:]]
    return {row[1].strip(" `"): re.findall(r"`([a-z-]+)`", row[3]) for row in rows}


def test_the_documented_phases_are_those_of_the_code():
    assert tuple(documented()) == PHASES
    assert [phase for phase, then in documented().items() if then] == list(OPEN)


def test_rolls_end_and_every_bot_has_one_release(world):
    phases, crashes, transitions = set(), 0, set()
    for seed in [int(SEED)] if SEED else range(WALKS):
        one = world(seed)
        try:
            one.guarded(lambda one=one: one.begin(one.rng.choice((GOOD, BAD))))
            for _ in range(STEPS):
                one.act()
            one.calm()
        except Exception as error:
            error.add_note(f"replay: BOTD_SEED={seed}")
            raise
        crashes += one.crashes
        transitions |= one.transitions
        phases |= {roll.phase for roll in one.rolls()}
    told = documented()
    strange = {pair for pair in transitions if pair[0]} - {(phase, then) for phase in told for then in told[phase]}
    assert not strange, f"docs/architecture.md does not have {strange}"
    if not SEED and WALKS >= 12:
        assert phases == {"finished", "taken-back", "stopped"}
        assert crashes > WALKS
