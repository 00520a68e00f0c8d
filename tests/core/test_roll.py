"""A roll as a dialogue: how its batches do goes in, what is to be moved comes out."""

from dataclasses import replace

import pytest

from botd.core.gate import Tally
from botd.core.roll import (
    AbortRequested,
    Begun,
    Looked,
    Move,
    Note,
    NotOpen,
    Options,
    PutInForce,
    Resumed,
    Return,
    Roll,
    batch_size,
    step,
)

WELL = Tally(bots=2)
BUSY = Tally(bots=2, open=1)
BAD = Tally(bots=2, failures=1, sample=(("a/x", "exited with code 3"),))


class Talk:
    def __init__(self, waiting=10, fallback=None, **options):
        self.roll = Roll(1, "echo", "f" * 64, fallback, Options(**{"batch": "4", "canary": 2, **options}), 0.0, 0)
        self.now, self.waiting, self.notes = 100.0, waiting, []
        self.first = self.say(Begun(waiting))

    def say(self, event):
        decision = step(self.roll, event, self.now, 5.0)
        self.roll = decision.roll
        self.notes += [effect.text for effect in decision.effects if isinstance(effect, Note)]
        out = [effect for effect in decision.effects if not isinstance(effect, Note)]
        self.waiting -= sum(effect.count for effect in out if isinstance(effect, Move))
        return out

    def look(self, tally):
        return self.say(Looked(tally, self.waiting))


def test_a_good_roll_goes_batch_by_batch_to_its_end():
    talk = Talk()
    assert talk.first == [Move(1, 2)]
    assert (talk.roll.batches, talk.roll.bots) == (3, 10)
    assert talk.look(BUSY) == []
    assert talk.look(WELL) == [Move(2, 4)]
    assert talk.look(replace(WELL, bots=4)) == [Move(3, 4)]
    assert talk.look(replace(WELL, bots=4)) == [PutInForce("f" * 64)]
    assert (talk.roll.phase, talk.roll.moved, talk.roll.deadline) == ("finished", 10, None)
    with pytest.raises(NotOpen):
        talk.look(WELL)


def test_nobody_to_move_is_a_roll_that_is_finished():
    talk = Talk(waiting=0)
    assert talk.first == [PutInForce("f" * 64)]
    assert talk.roll.phase == "finished"


def test_shares_are_of_all_bots_from_the_first_batch_on():
    talk = Talk(waiting=200, batch="10%", canary=0)
    assert talk.first == [Move(1, 20)]
    assert talk.roll.batches == 10
    assert talk.look(replace(WELL, bots=20)) == [Move(2, 20)]
    assert [batch_size(Options(batch=text), 7) for text in ("3", "1%", "50%", "100%")] == [3, 1, 3, 7]


def test_one_failure_stops_it_and_takes_every_batch_back_one_at_a_time():
    talk = Talk()
    talk.look(WELL)
    assert talk.look(replace(BAD, open=3)) == [Return(2)], "at once, without waiting for the others"
    assert talk.roll.phase == "returning"
    assert "a/x" in talk.roll.reason
    assert "code 3" in talk.roll.reason
    assert talk.look(BUSY) == []
    assert talk.look(BAD) == [Return(1)], "whoever fails on the former release does not stop the way back"
    assert talk.look(WELL) == []
    assert (talk.roll.phase, talk.roll.moved) == ("taken-back", 0)


def test_finished_batches_stay_where_that_is_wanted():
    talk = Talk(keep_done=True)
    talk.look(WELL)
    assert talk.look(BAD) == [Return(2)]
    assert talk.look(WELL) == []
    assert (talk.roll.phase, talk.roll.moved) == ("stopped", 2)


def test_as_many_may_fail_as_were_allowed_over_all_batches():
    talk = Talk(max_failures=1)
    assert talk.look(BAD) == [Move(2, 4)]
    assert talk.look(BAD) == [Return(2)]
    assert "2 bots failed" in talk.roll.reason


def test_a_batch_is_watched_through_the_pause():
    talk = Talk(pause_s=30.0)
    assert talk.look(WELL) == []
    assert (talk.roll.phase, talk.roll.deadline) == ("watching", 130.0)
    talk.now = 129.0
    assert talk.look(WELL) == []
    talk.now = 130.0
    assert talk.look(WELL) == [Move(2, 4)]
    talk.look(WELL)
    assert talk.look(BAD) == [Return(2)]


def test_no_pause_after_the_last_batch():
    talk = Talk(waiting=2, pause_s=30.0)
    assert talk.look(WELL) == [PutInForce("f" * 64)]


def test_the_release_that_was_in_force_before_is_in_force_again():
    talk = Talk(fallback="e" * 64)
    assert talk.look(BAD) == [PutInForce("e" * 64), Return(1)]


def test_an_abort_takes_back_and_a_second_one_changes_nothing():
    talk = Talk()
    talk.look(WELL)
    assert talk.say(AbortRequested("aborted by alice", BUSY)) == [Return(2)]
    assert talk.say(AbortRequested("aborted by bob", BUSY)) == []
    assert talk.roll.reason == "aborted by alice"
    assert talk.look(WELL) == [Return(1)]


def test_an_abort_that_keeps_what_is_done_keeps_a_batch_that_is_only_watched():
    talk = Talk(pause_s=30.0)
    talk.look(WELL)
    assert talk.say(AbortRequested("aborted by alice", WELL, keep_done=True)) == []
    assert (talk.roll.phase, talk.roll.moved) == ("stopped", 2)


def test_whoever_takes_over_gives_the_bots_their_time_anew():
    talk = Talk(gate_timeout_s=50.0)
    talk.now = 1000.0
    assert talk.say(Resumed()) == []
    assert talk.roll.deadline == 1050.0


def test_a_batch_that_was_through_is_awaited_again_when_somebody_else_took_over():
    talk = Talk(pause_s=30.0, gate_timeout_s=50.0)
    talk.look(WELL)
    talk.say(Resumed())
    talk.now = talk.roll.deadline
    assert talk.look(BUSY) == []
    assert (talk.roll.phase, talk.roll.deadline) == ("moving", talk.now + 50.0), "a deadline never stays in the past"
    assert talk.look(WELL) == []
    assert talk.roll.phase == "watching"


def test_bots_that_came_meanwhile_make_one_more_batch():
    talk = Talk(waiting=2)
    talk.waiting = 3
    assert talk.look(WELL) == [Move(2, 3)]
    assert (talk.roll.batches, talk.roll.bots) == (2, 5)
