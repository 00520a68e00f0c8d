"""When a verb is done for a bot: as early as it is certain, and never before."""

import pytest

from botd.core.goals import judge, timed_out

from .dialogue import Dialogue
from .test_lifecycle import in_phase


def word(goal, state, since=0):
    outcome = judge(goal, state, since)
    return outcome and (outcome.ok, outcome.word)


@pytest.mark.parametrize(
    "phase,up,stopped,running",
    [
        ("stopped", (False, "stopped"), (True, "stopped"), None),
        ("starting", None, None, None),
        ("running", None, None, (True, "running")),
        ("stopping", None, None, None),
        ("backoff", (False, "crashed"), None, None),
        ("failed", (False, "failed"), (False, "failed"), (False, "failed")),
    ],
)
def test_what_each_phase_means_to_who_waits(phase, up, stopped, running):
    state = in_phase(phase).state
    if phase == "stopped":  # its last life was killed, not finished
        up = (True, "finished")
    assert (word("up", state), word("stopped", state), word("running", state)) == (up, stopped, running)
    assert word("gone", state) is None


def test_up_waits_until_the_life_is_believed():
    d = Dialogue().come_up()
    assert word("up", d.state) is None
    d.pass_time()
    assert word("up", d.state) == (True, "running")


def test_up_is_not_disappointed_by_how_it_was_before_the_request():
    d = Dialogue().come_up().crash()
    assert word("up", d.state, since=1) is None
    assert word("up", in_phase("stopped").state, since=1) is None


def test_a_start_that_is_put_off_is_no_crash():
    from botd.core.events import SpawnRefused, StartRequested

    d = Dialogue()
    d.say(StartRequested())
    d.say(SpawnRefused(1, "its lock is held"))
    assert word("up", d.state) is None


def test_a_bot_that_ends_well_by_itself_has_finished_and_one_that_does_not_has_not():
    from botd.core.lifecycle import Rules

    well = Dialogue(rules=Rules(restart="on-failure")).come_up()
    well.exit(0)
    assert word("up", well.state) == (True, "finished")
    ill = Dialogue(rules=Rules(restart="never")).come_up()
    ill.exit(1)
    assert word("up", ill.state) == (False, "failed")
    assert judge("up", ill.state, 0).reason == "exited with code 1; restart policy is never"


def test_healthy_is_more_than_running():
    d = Dialogue().come_up()
    assert word("healthy", d.state) is None
    d.pass_time()
    assert word("healthy", d.state) == (True, "healthy")
    recovered = Dialogue().come_up().crash().retry()
    recovered.pass_time()
    assert word("healthy", recovered.state) == (True, "healthy")


@pytest.mark.parametrize("goal", ["up", "stopped", "running", "healthy"])
def test_a_bot_that_is_gone_reaches_nothing_more(goal):
    outcome = judge(goal, None, 0)
    assert (outcome.ok, outcome.word, outcome.kind) == (False, "gone", "not_found")


def test_gone_is_reached_by_going():
    assert word("gone", None) == (True, "deleted")


def test_a_timeout_says_what_was_waited_for_and_how_it_is():
    outcome = timed_out("up", in_phase("backoff").state, 2.5)
    assert (outcome.ok, outcome.word, outcome.kind, outcome.exit) == (False, "timed out", "timeout", 124)
    assert outcome.reason == "not running after 2.5 s, it is backoff: exited with code 1; restart 1 of 3"
    assert timed_out("gone", None, 60).reason == "not deleted after 60 s, it is gone"
