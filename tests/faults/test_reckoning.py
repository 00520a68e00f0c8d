"""The reckoning sees what it is there for: each thing that could go wrong, made up, is found and counted."""

from __future__ import annotations

from struct import pack

import pytest
from driver.crew import Member
from driver.promises import Asked, Promises
from driver.reckoning import Reckoning
from driver.tally import Tally
from witness import line

BOT = Member("u/bot", "mortal", "mortal")


class Story:
    """Two lives of one bot as they should be: 10 lines each, exit 3 by itself, then SIGTERM on request."""

    def __init__(self, home):
        self.home = home
        self.book = [
            "begin 1 100 10.0",
            "end 1 100 11.0 exit 3",
            "begin 2 200 11.2",
            "term 2 200 15.0",
            "end 2 200 15.0 exit 12",
        ]
        self.events = [
            self.event(1, "started", "life 1 started, pid 100"),
            self.event(1, "exited", "exited with code 3 after 1.0 s"),
            self.event(2, "started", "life 2 started, pid 200"),
            self.event(2, "exited", "exited with code 12"),
        ]
        self.out = [line(BOT.id, life, n, 5) for life in (1, 2) for n in range(1, 11) if n % 5]
        self.err = [line(BOT.id, life, n, 5) for life in (1, 2) for n in range(1, 11) if not n % 5]
        self.counts = (10, 10)
        self.asked = [Asked("u/bot", "stop", 14.9, 14.95)]
        self.shots, self.gaps = [], []

    @staticmethod
    def event(generation, kind, text):
        return {"id": BOT.id, "at": "", "generation": generation, "kind": kind, "text": text}

    def tally(self):
        data, logs = self.home / "bots" / BOT.id / "data", self.home / "logs" / BOT.id
        data.mkdir(parents=True)
        logs.mkdir(parents=True)
        (data / "lives").write_text("\n".join(self.book) + "\n")
        (data / "counts").write_bytes(pack("<3Q", 0, *self.counts))
        (logs / "out.log").write_bytes(b"".join(self.out))
        (logs / "err.log").write_bytes(b"".join(self.err))
        promises, tally = Promises(float), Tally()
        promises.asked = self.asked
        Reckoning(self.home, [BOT], self.events, promises, self.shots, self.gaps, tally, tally.violations.append).run()
        return tally


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path)


def test_all_is_well(story):
    tally = story.tally()
    assert tally.violations == []
    assert (tally.lives, tally.exact, tally.lines, tally.lost, tally.doubled) == (2, 2, 20, 0, 0)
    assert tally.recovery == [pytest.approx(0.2)]


def test_a_twin(story):
    story.book.append("twin 0 300 12.0")
    assert story.tally().doubled == 1


def test_an_end_that_nobody_asked_for(story):
    story.asked.clear()
    assert story.tally().lost == 1


@pytest.mark.parametrize(("at", "until", "lost"), [(5.0, 9.9, 1), (5.0, 11.5, 0), (14.0, 14.1, 0), (15.1, 15.2, 1)])
def test_a_request_counts_from_its_sending_to_its_answer(story, at, until, lost):
    story.asked = [Asked("u/bot", "restart", at, until)]
    assert story.tally().lost == lost


def test_a_kill_out_of_nowhere(story):
    story.book[1:2] = []
    story.events[1] = story.event(1, "exited", "killed by SIGKILL after 1.0 s")
    assert story.tally().lost == 1


def test_a_shot_is_no_loss(story):
    story.book[1:2] = []
    story.events[1] = story.event(1, "exited", "killed by SIGUSR1 after 1.0 s")
    story.shots.append(("u/bot", 100, 10, 10.9))
    tally = story.tally()
    assert (tally.lost, tally.exact, tally.violations) == (0, 2, [])


def test_a_wrong_status(story):
    story.events[1] = story.event(1, "exited", "exited with code 4 after 1.0 s")
    assert story.tally().wrong == 1


def test_a_status_of_another_life(story):
    story.events[3] = story.event(2, "exited", "exited with code 3")
    assert story.tally().wrong == 1


def test_an_end_on_no_record(story):
    del story.events[3]
    assert story.tally().wrong == 1


def test_an_end_told_twice(story):
    story.events.append(story.events[1])
    assert story.tally().doubled == 1


def test_an_unknown_status_is_right_only_in_a_gap(story):
    story.events[1] = story.event(1, "exited", "ended with an unknown status after 1.0 s")
    assert story.tally().wrong == 1


def test_an_unknown_status_in_a_gap(story):
    story.events[1] = story.event(1, "exited", "ended with an unknown status after 1.0 s")
    story.gaps.append((10.5, 11.5))
    tally = story.tally()
    assert (tally.unknown, tally.violations) == (1, [])


def test_a_start_that_nobody_saw_is_found_by_its_end(story):
    del story.events[0]
    tally = story.tally()
    assert (tally.exact, tally.violations) == (2, [])


@pytest.mark.parametrize("which", [0, 3, 7])
def test_a_line_lost(story, which):
    del story.out[which]
    assert story.tally().lines_lost == 1


def test_a_tail_lost_in_a_gap(story):
    del story.out[6:8]
    story.gaps.append((10.5, 11.5))
    tally = story.tally()
    assert (tally.tails, tally.lines_lost, tally.violations) == (1, 0, [])


@pytest.mark.parametrize(("gap", "lost"), [((11.1, 11.15), 0), ((11.3, 11.5), 2), ((9.0, 10.9), 2)])
def test_an_end_that_waited_for_the_disk_lasts_until_the_next_life(story, gap, lost):
    del story.out[6:8]
    story.gaps.append(gap)
    assert story.tally().lines_lost == lost


def test_a_hole_is_no_tail(story):
    del story.out[4]
    story.gaps.append((10.5, 11.5))
    assert story.tally().lines_lost == 1


def test_a_line_doubled(story):
    story.err.insert(1, story.err[0])
    assert story.tally().lines_doubled == 1


def test_a_line_torn(story):
    story.out[2] = story.out[2][:7] + b"x" + story.out[2][8:]
    tally = story.tally()
    assert (
        tally.lines_lost == 2 and len(tally.violations) == 2
    )  # it is no line of its own, and the one that was is gone


def owed(**facts):
    promises = Promises(float)
    with promises.request("create", BOT.id, exists=True, wanted=True, labels={"a": "1"}):
        pass
    view = {"phase": "running", "desired": "running", "labels": {"a": "1"}, **facts}
    return promises, {BOT.id: view}


@pytest.mark.parametrize("facts", [{"desired": "stopped"}, {"labels": {}}])
def test_what_was_acknowledged_is_owed(facts):
    promises, views = owed(**facts)
    assert len(promises.broken(views, [BOT])) == 1


def test_a_bot_that_is_gone_or_back_again():
    promises, views = owed()
    assert promises.broken(views, [BOT]) == []
    assert len(promises.broken({}, [BOT])) == 1
    with promises.request("delete", BOT.id, exists=False):
        pass
    assert len(promises.broken(views, [BOT])) == 1


def test_what_was_not_answered_may_be_either():
    promises, views = owed()
    with pytest.raises(ConnectionError), promises.request("stop", BOT.id, wanted=False):
        raise ConnectionError
    assert promises.broken(views, [BOT]) == []
    stopped = {BOT.id: {**views[BOT.id], "desired": "stopped"}}
    assert promises.broken(stopped, [BOT]) == []
    promises.settle(stopped)
    assert len(promises.broken(views, [BOT])) == 1
