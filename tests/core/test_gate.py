"""The gate of a roll: what of a moved bot counts against its new release, and what does not."""

import pytest

from botd.core import gate
from botd.core.bot import Exit
from botd.core.events import Condemned, HealthReported, RestartRequested, SpawnFailed, SpawnRefused, StopRequested
from botd.core.gate import Gate
from botd.core.lifecycle import Rules

from .dialogue import Dialogue


def moved(rules=None, before=None):
    """A bot that ran, was marked and asked for a new life: the dialogue and its mark."""
    bot = Dialogue(rules=rules).come_up()
    bot.pass_time()
    if before is not None:
        before(bot)
    mark = gate.mark("old", bot.state)
    bot.say(RestartRequested())
    if bot.state.phase == "stopping":
        bot.exit(code=0)
    return bot, mark


def test_a_bot_is_through_when_its_new_life_is_believed():
    bot, mark = moved()
    assert gate.judge(mark, bot.state) is None
    bot.run()
    assert gate.judge(mark, bot.state) is None, "it runs, but nobody believes it yet"
    bot.pass_time()
    assert gate.judge(mark, bot.state).ok


def test_the_old_life_proves_nothing():
    bot = Dialogue().come_up()
    bot.pass_time()
    mark = gate.mark("old", bot.state)
    assert bot.state.settled
    assert gate.judge(mark, bot.state) is None
    assert gate.needs_new_life(mark, bot.state)


def test_with_a_probe_it_has_to_answer():
    bot, mark = moved(Rules(probed=True), before=lambda bot: bot.say(HealthReported(1, True)))
    bot.run()
    bot.pass_time()
    assert gate.judge(mark, bot.state) is None
    bot.say(HealthReported(2, True))
    assert gate.judge(mark, bot.state).ok


@pytest.mark.parametrize(
    "fall",
    [
        lambda bot: bot.run().crash(),
        lambda bot: bot.say(SpawnFailed(2, "no such file", permanent=True)),
        lambda bot: bot.say(SpawnFailed(2, "no room", permanent=False)),
        lambda bot: bot.run().say(HealthReported(2, False, "HTTP 500")),
        lambda bot: bot.run().say(Condemned(2, "memory", "too much memory")),
    ],
    ids=["crash", "cannot start", "cannot start now", "unhealthy", "condemned"],
)
def test_what_goes_wrong_in_the_new_life_is_a_failure(fall):
    bot, mark = moved()
    fall(bot)
    verdict = gate.judge(mark, bot.state)
    assert verdict is not None
    assert not verdict.ok
    assert verdict.reason


def test_a_crash_stays_a_failure_when_the_bot_runs_again():
    bot, mark = moved()
    bot.run().crash(code=3)
    bot.pass_time()
    bot.run()
    bot.pass_time()
    verdict = gate.judge(mark, bot.state)
    assert not verdict.ok
    assert "code 3" in verdict.reason


def test_a_start_that_was_refused_is_no_fault_of_the_release():
    bot, mark = moved()
    bot.say(SpawnRefused(2, "its lock is busy"))
    assert bot.state.phase == "backoff"
    assert gate.judge(mark, bot.state) is None
    bot.pass_time()
    bot.run()
    bot.pass_time()
    assert gate.judge(mark, bot.state).ok


def test_a_bot_that_was_failing_before_fails_no_roll():
    bot, mark = moved(before=lambda bot: bot.crash())
    assert mark.was == "ill"
    bot.run().crash()
    verdict = gate.judge(mark, bot.state)
    assert verdict.ok
    assert "before" in verdict.reason


def test_a_stopped_bot_passes_at_once_and_so_does_one_that_its_owner_stops():
    bot = Dialogue()
    assert gate.judge(gate.mark("old", bot.state), bot.state).ok
    bot, mark = moved()
    bot.run().say(StopRequested())
    assert gate.judge(mark, bot.state).ok
    assert not gate.needs_new_life(mark, bot.state)


def test_who_is_gone_is_nobodys_failure():
    _, mark = moved()
    assert gate.judge(mark, None).ok


def test_a_bot_that_is_through_may_still_fail_while_it_is_watched():
    bot, mark = moved()
    batch = Gate({"a/x": mark})
    bot.run()
    bot.pass_time()
    assert batch.look("a/x", bot.state).ok
    assert batch.look("a/x", bot.state) is None, "that is no news"
    bot.exit(code=9)
    assert not batch.look("a/x", bot.state).ok
    assert batch.tally.failures == 1
    assert batch.tally.sample[0][0] == "a/x"


def test_time_is_up_for_those_that_are_open():
    _, mark = moved()
    batch = Gate({"a/x": mark, "a/y": mark})
    batch.look("a/y", None)
    assert batch.expire("too late") == ["a/x"]
    assert (batch.tally.open, batch.tally.failures, batch.tally.bots) == (0, 1, 2)


def test_an_exit_of_the_life_before_the_move_is_forgotten():
    bot, mark = moved(before=lambda bot: (bot.exit(code=7), bot.pass_time(), bot.run(), bot.pass_time()))
    assert bot.state.last_exit is not None
    assert isinstance(bot.state.last_exit, Exit)
    bot.run()
    bot.pass_time()
    assert gate.judge(mark, bot.state).ok
