"""Random walks of whole fleets through a simulated world (world.py), each held against an independent book.

A failure names its seed: BOTD_SEED=N replays that walk alone. BOTD_WALKS and BOTD_STEPS set how much is walked.
"""

import os
import random

from .world import World

WALKS = int(os.environ.get("BOTD_WALKS", "150"))
STEPS = int(os.environ.get("BOTD_STEPS", "400"))
SEED = os.environ.get("BOTD_SEED")


def walk(seed):
    world = World(random.Random(seed))
    try:
        for _ in range(STEPS):
            world.act()
        world.calm()
    except Exception as error:
        error.add_note(f"replay: BOTD_SEED={seed}; the last that happened:\n" + "\n".join(world.trace))
        raise
    return world


def test_the_invariants_hold_on_every_walk():
    seeds = [int(SEED)] if SEED else range(WALKS)
    seen = set()
    for seed in seeds:
        world = walk(seed)
        seen |= world.seen
    if not SEED and WALKS >= 100:
        missing = world.everything() - seen
        assert not missing, f"the walks never came to {sorted(missing)}"


def test_a_walk_can_be_replayed():
    assert list(walk(7).trace) == list(walk(7).trace)
