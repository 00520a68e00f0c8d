"""botd and the keeper are killed and stopped, at random and at every crash point, while a fleet of witnesses is busy.

The short form of `make faults`; tests/faults/driver says how it works. BOTD_SEED repeats a run.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from driver.chapter import Chapter
from driver.points import ELSEWHERE, Walk, all_points, in_the_source
from fleet_house import ROOT

SEED = int(os.environ.get("BOTD_SEED", "4711"))
BOTS = 8
"""One of each role, and those that apply is about."""
ROUNDS = 5
WITHOUT = "pidfd_info,zombie_stat"


def clean(tally):
    print(tally.table())  # shown with a failure
    assert not tally.violations, "\n".join(tally.violations)
    return tally


@pytest.mark.parametrize("containment", ["auto", "tree"])
def test_random_kills(containment):
    tally = clean(Chapter(SEED, range(ROUNDS), who="all", bots=BOTS, containment=containment).run())
    assert tally.exact > BOTS and tally.lines > 1_000, "the bots were not busy"


def test_without_the_kernels_help_a_status_is_exact_or_unknown_and_never_wrong():
    tally = clean(Chapter(SEED, range(2), who="both", bots=BOTS, containment="tree", without=WITHOUT).run())
    assert tally.unknown > 0 and tally.unknown + tally.exact == tally.lives


def test_crash_points_that_are_left_to_other_tests_are_still_there():
    for beginning, where in ELSEWHERE.items():
        assert any(name.startswith(beginning) for name in in_the_source()), beginning
        assert (ROOT / where.rpartition(" ")[2]).exists(), where


def test_death_at_every_crash_point():
    """Two fleets at once, one in each containment, and half of the points for each: they wait more than they work."""
    shares = {containment: all_points()[share::2] for share, containment in enumerate(("auto", "tree"))}
    walks = [Walk(SEED, points=points, containment=where, bots=BOTS) for where, points in shares.items()]
    with ThreadPoolExecutor() as pool:
        tallies = list(pool.map(Walk.run, walks))
    for tally, points in zip(tallies, shares.values(), strict=True):
        assert set(clean(tally).points) == set(points)
