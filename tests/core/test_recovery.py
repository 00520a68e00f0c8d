"""Recovery statistics: sums, rates and times, over one bot and over many."""

from hypothesis import given
from hypothesis import strategies as st

from botd.core.bot import Recovery
from botd.core.recovery import attempted, failed, succeeded, total, view


def test_nothing_is_claimed_before_there_is_an_outcome():
    assert view(Recovery()) == view(attempted(Recovery())) | {"attempts": 0}
    assert view(attempted(Recovery()))["success_rate"] is None
    assert view(failed(attempted(Recovery())))["mean_time_to_recovery_s"] is None


def test_counts_rates_and_times():
    stats = Recovery()
    for took in (1.0, 4.0):
        stats = succeeded(attempted(stats), took)
    stats = failed(attempted(stats))
    stats = attempted(stats)  # still on its way: not in the rate
    assert view(stats) == {
        "attempts": 4,
        "successes": 2,
        "failures": 1,
        "success_rate": 0.6667,
        "mean_time_to_recovery_s": 2.5,
        "worst_time_to_recovery_s": 4.0,
    }


def test_an_instant_recovery_is_a_time_and_not_none():
    assert view(succeeded(attempted(Recovery()), 0.0))["mean_time_to_recovery_s"] == 0.0


def test_the_total_of_none_is_nothing():
    assert total([]) == Recovery()


OUTCOMES = st.lists(st.one_of(st.none(), st.floats(0, 1e4)))


def told(outcomes):
    stats = Recovery()
    for took in outcomes:
        stats = failed(attempted(stats)) if took is None else succeeded(attempted(stats), took)
    return stats


@given(st.lists(OUTCOMES, max_size=5))
def test_the_total_of_many_is_as_if_one_bot_had_seen_it_all(fleets):
    whole, one = total(map(told, fleets)), told([took for outcomes in fleets for took in outcomes])
    assert (whole.attempts, whole.successes, whole.failures) == (one.attempts, one.successes, one.failures)
    assert whole.worst_s == one.worst_s
    assert abs(whole.total_s - one.total_s) <= 1e-6 * max(1.0, one.total_s)


@given(OUTCOMES)
def test_a_rate_is_a_share_and_a_mean_no_more_than_the_worst(outcomes):
    shown = view(told(outcomes))
    assert shown["attempts"] == len(outcomes)
    if outcomes:
        assert 0.0 <= shown["success_rate"] <= 1.0
    if shown["successes"]:
        assert shown["mean_time_to_recovery_s"] <= shown["worst_time_to_recovery_s"] + 1e-4
