"""What an ended life leaves in the keeper: nothing that waits, and no cage that the next one could meet."""

from __future__ import annotations

import os
import sys

from botd.keeper.cgroup2 import Cgroup
from botd.keeper.ends import Ends
from botd.keeper.life import Life
from botd.keeper.lives import Lives
from botd.keeper.loop import Loop
from botd.keeper.remains import Remains


class Stubborn:
    """A cage that somebody is inside of, until it was killed."""

    path = "/a/cage"

    def __init__(self) -> None:
        self.inside = True

    def remove(self) -> bool:
        return not self.inside

    def kill(self, main: int) -> int:
        self.inside = False
        return 1


def test_no_deadline_holds_a_life_that_ended():
    loop, lives = Loop(lambda error: None), Lives()
    nobody = None
    ends = Ends(loop, lives, nobody, nobody, nobody, nobody, lambda life: None, lambda text: None)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    life = Life("u/bot", 1)
    life.pidfd = os.pidfd_open(pid)
    try:
        lives.add(life)
        before = sys.getrefcount(life)
        ends.stop(life, 15, 1000.0)
        assert sys.getrefcount(life) == before
    finally:
        life.close()
        os.waitpid(pid, 0)


def test_a_buried_cage_stands_in_the_way_until_it_is_empty():
    said: list[str] = []
    remains, cage = Remains(Lives(), said.append), Stubborn()
    remains.bury("u/bot", cage)
    assert remains.none_of("u/other")
    remains.tidy()
    assert said == ["processes of u/bot have not ended: /a/cage"]
    assert not remains.none_of("u/bot")
    assert remains.none_of("u/bot")


def test_a_cage_is_looked_at_before_a_start_even_when_nobody_tidied_yet():
    remains, cage = Remains(Lives(), print), Stubborn()
    remains.bury("u/bot", cage)
    assert not remains.none_of("u/bot")
    assert remains.none_of("u/bot")
    remains.tidy()


def test_a_cage_goes_with_the_folders_made_inside(tmp_path):
    cage = Cgroup(str(tmp_path / "cage"))
    os.makedirs(tmp_path / "cage/one/two")
    assert cage.remove()
    assert not os.path.exists(tmp_path / "cage")
    assert cage.remove()
    os.mkdir(tmp_path / "cage")
    (tmp_path / "cage/busy").touch()
    assert not cage.remove()
