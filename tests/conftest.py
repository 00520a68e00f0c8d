"""Fixtures that several folders share: private fleets with real processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail, and nothing is left in the working folder.
settings.register_profile("unhurried", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Tests that run in the background of a shell ignore Ctrl-C, and every program they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).parent / "e2e"))


@pytest.fixture(scope="module")
def shared_fleet():
    """One running fleet with small delays for all tests of a module; use `fleet`, which hands it over empty."""
    from fleet_house import Fleet

    fleet = Fleet().up()
    yield fleet
    fleet.close()


@pytest.fixture
def fleet(shared_fleet):
    """The module's fleet, without a bot."""
    yield shared_fleet
    shared_fleet.clear()


@pytest.fixture
def make_fleet():
    """`make_fleet(...)`: a fleet of one's own, not yet running; see fleet_house.Fleet for the arguments."""
    from fleet_house import Fleet

    made = []

    def make(*args, **options):
        made.append(Fleet(*args, **options))
        return made[-1]

    yield make
    problems = []
    for one in made:
        try:
            one.close()
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


LONG = ("faults", "e2e", "test_mutants.py", "server")


def pytest_collection_modifyitems(items):
    # The longest files first, so that none of them is left for one process alone in the end.
    items.sort(key=lambda item: next((i for i, word in enumerate(LONG) if word in item.path.parts), len(LONG)))
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
