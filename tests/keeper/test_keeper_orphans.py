"""Orphans of a bot whose keeper was killed, where nothing but the tree of processes holds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from keeper_house import House, alive, until

BOT = Path(__file__).parents[1] / "faults" / "orphans.py"


@pytest.fixture
def bare():
    place = House("tree", "controllers")
    yield place
    place.close()


@pytest.mark.parametrize("how", ["asked", "killed", "by itself"])
def test_daemons_of_an_adopted_bot_end_with_it(bare, how):
    keeper = bare.up()
    file = Path(bare.path("pids"))
    keeper.start("u/bot", 1, [sys.executable, "-I", "-S", str(BOT), str(file), *(["leave"] if how != "killed" else [])])
    keeper.start("u/other", 1, ["sleep", "1000"])
    until(file.exists, "the bot and its orphans")
    pids = [int(pid) for pid in file.read_text().split()]
    try:
        bare.kill_keeper()
        held = keeper.hand_over()
        bare.launch()
        again = bare.connect(adopt=held)
        if how == "by itself":
            again.ping()
            os.kill(pids[0], 15)
        else:
            again.stop("u/bot", 1, grace_s=10 if how == "asked" else 0)
        ended = again.expect("exited", "u/bot", 1)
        assert ended["leftovers"] >= (3 if how != "killed" else 0)
        assert not [pid for pid in pids if alive(pid)]
        assert alive(again.state("u/other", 1)["pid"])
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, 9)
