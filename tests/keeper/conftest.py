from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from keeper_house import House


@pytest.fixture
def house():
    """A home with nothing in it; `house.up()` starts a keeper and connects."""
    place = House()
    yield place
    place.close()


@pytest.fixture(params=["cgroup2", "tree"])
def each_house(request):
    """One test for each way of containment; cgroup2 is skipped where the machine has none to write to."""
    place = House(request.param)
    if request.param == "cgroup2" and not _cgroup2():
        place.close()
        pytest.skip("no cgroup v2 folder that may be written to")
    yield place
    place.close()


_found: list[bool] = []


def _cgroup2() -> bool:
    if not _found:
        probe = House("auto")
        try:
            _found.append(probe.up().hello["containment"] == "cgroup2")
        finally:
            probe.close()
    return _found[0]
