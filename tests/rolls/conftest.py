"""Worlds in which rolls are walked through."""

import os
import random
import tempfile

import pytest
from rolling_world import World


@pytest.fixture
def world(monkeypatch):
    """Makes worlds; their files lie in memory where the machine has such a place."""
    made = []

    def make(seed=0, **more):
        folder = tempfile.TemporaryDirectory(prefix="b", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        one = World(f"{folder.name}/botd.db", random.Random(seed), monkeypatch, **more)
        made.append((one, folder))
        return one

    yield make
    for one, folder in made:
        one.close()
        folder.cleanup()
