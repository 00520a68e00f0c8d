"""Probe results -> verdicts, and the word for a bot's health."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract.vocabulary import PHASES
from botd.core.bot import BotState, Probe
from botd.core.health import STARTUP_INTERVAL_S, Outcome, first, judge, shown

PROBE = Probe("http", url="http://127.0.0.1:1/", interval_s=30.0, failures=3, start_grace_s=20.0)
UP, DOWN = Outcome(True, "200"), Outcome(False, "timed out after 5 s")


class Probed:
    """One life and its probes, with time by hand."""

    def __init__(self, probe=PROBE, chance=0.0):
        self.probe, self.chance, self.now = probe, chance, 100.0
        self.state = first(probe, 1, self.now, chance)

    def hear(self, outcome):
        """The answer to the probe that is due now; the news."""
        self.now = max(self.now, self.state.due_at)
        self.state, news = judge(self.probe, self.state, outcome, self.now, self.chance)
        assert self.state.due_at > self.now, "it would be asked without end"
        return news


def test_the_first_answer_makes_it_healthy_and_that_is_news_once():
    bot = Probed()
    assert [bot.hear(UP) for _ in range(3)] == [True, None, None]


def test_so_many_failures_in_a_row_make_it_unhealthy_and_one_answer_well_again():
    bot = Probed()
    bot.hear(UP)
    assert [bot.hear(DOWN) for _ in range(5)] == [None, None, False, None, None]
    assert bot.hear(UP) is True
    assert bot.state.failures == 0


def test_failures_that_are_not_in_a_row_do_not_add_up():
    bot = Probed()
    bot.hear(UP)
    assert [bot.hear(outcome) for outcome in (DOWN, DOWN, UP) * 5] == [None] * 15


def test_within_the_start_grace_failures_do_not_count_and_it_is_asked_again_soon():
    bot = Probed()
    while bot.state.due_at < 100.0 + PROBE.start_grace_s:
        assert bot.hear(DOWN) is None
        assert (bot.state.failures, bot.state.verdict) == (0, None)
        assert bot.state.due_at - bot.now <= STARTUP_INTERVAL_S
    assert [bot.hear(DOWN) for _ in range(3)] == [None, None, False]


def test_the_grace_ends_with_the_first_good_answer():
    bot = Probed()
    bot.hear(UP)
    bot.hear(DOWN)
    assert bot.state.failures == 1


def test_a_bot_that_never_answers_is_unknown_until_it_is_unhealthy():
    bot = Probed(Probe("tcp", port=1, failures=2, start_grace_s=0.0))
    assert [bot.hear(DOWN), bot.hear(DOWN)] == [None, False]


def test_without_grace_one_failure_may_be_enough():
    assert Probed(Probe("tcp", port=1, failures=1, start_grace_s=0.0)).hear(DOWN) is False


@given(st.floats(0, 1, exclude_max=True), st.floats(0.1, 86400))
def test_probes_of_bots_that_began_together_drift_apart_and_are_never_late(chance, interval):
    probe = Probe("tcp", port=1, interval_s=interval)
    bot = Probed(probe, chance)
    assert 0.0 <= bot.state.due_at - 100.0 <= min(STARTUP_INTERVAL_S, interval)
    bot.hear(UP)
    assert 0.9 * interval - 1e-6 <= bot.state.due_at - bot.now <= interval + 1e-6


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 1, exclude_max=True))
def test_news_alternate_and_tell_the_verdict(answers, chance):
    bot, told = Probed(chance=chance), []
    for healthy in answers:
        news = bot.hear(UP if healthy else DOWN)
        if news is not None:
            told.append(news)
            assert news == bot.state.verdict
            assert news == healthy
    assert all(one != two for one, two in pairwise(told))
    assert bot.state.verdict == (told[-1] if told else None)


@pytest.mark.parametrize(
    "phase,wanted,health,attempts,word",
    [
        ("stopped", False, "unknown", 0, "stopped"),
        ("stopping", False, "unknown", 0, "stopped"),
        ("stopping", True, "unknown", 0, "unknown"),
        ("starting", True, "unknown", 2, "unknown"),
        ("backoff", True, "unknown", 1, "unhealthy"),
        ("failed", True, "unknown", 9, "unhealthy"),
        ("running", True, "unknown", 0, "unknown"),
        ("running", True, "healthy", 0, "healthy"),
        ("running", True, "healthy", 1, "recovered"),
        ("running", True, "unhealthy", 1, "unhealthy"),
        ("running", True, "unknown", 1, "unknown"),
    ],
)
def test_the_word_for_it(phase, wanted, health, attempts, word):
    assert phase in PHASES
    assert shown(BotState(phase=phase, wanted=wanted, health=health, attempts=attempts)) == word
