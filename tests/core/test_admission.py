"""Limits at the door: who is let in, and what those hear who are not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.core.admission import admit_bots, admit_start
from botd.core.settings import Limits

LIMITS = Limits(max_bots_per_user=50, max_total_bots=200, memory_threshold_percent=80.0)


def test_the_fiftieth_bot_is_admitted_and_the_next_is_not():
    assert admit_bots(LIMITS, "alice", 49, 49) is None
    refusal = admit_bots(LIMITS, "alice", 50, 50)
    assert (refusal.limit, refusal.value, refusal.used) == ("maxBotsPerUser", 50, 50)
    assert refusal.reason == (
        "alice has 50 bots, one more would pass the limit of 50 a user (resourceManagement.maxBotsPerUser)"
    )
    assert "botctl config reload" in refusal.remedy


def test_the_two_hundredth_bot_is_admitted_and_the_next_is_not():
    assert admit_bots(LIMITS, "dave", 49, 199) is None
    refusal = admit_bots(LIMITS, "erin", 0, 200)
    assert (refusal.limit, refusal.value, refusal.used) == ("maxTotalBots", 200, 200)
    assert refusal.reason == (
        "there are 200 bots in all, one more would pass the limit of 200 (resourceManagement.maxTotalBots)"
    )


def test_the_users_own_limit_is_told_first():
    assert admit_bots(LIMITS, "alice", 50, 200).limit == "maxBotsPerUser"


def test_null_is_no_limit_in_all_but_still_one_for_each():
    free = replace(LIMITS, max_total_bots=None)
    assert admit_bots(free, "alice", 0, 1_000_000) is None
    assert admit_bots(free, "alice", 50, 1_000_000).limit == "maxBotsPerUser"


def test_several_at_once_are_admitted_together_or_not_at_all():
    assert admit_bots(LIMITS, "alice", 40, 40, 10) is None
    refusal = admit_bots(LIMITS, "alice", 40, 40, 11)
    assert "alice has 40 bots, 11 more would pass the limit of 50" in refusal.reason


def test_what_others_add_in_the_same_request_counts_for_the_limit_in_all():
    assert admit_bots(LIMITS, "alice", 0, 190, 5, 10) is None
    refusal = admit_bots(LIMITS, "alice", 0, 190, 5, 11)
    assert (refusal.limit, refusal.reason.partition(",")[2][:9]) == ("maxTotalBots", " 11 more ")


@given(
    st.integers(1, 100), st.integers(1, 300) | st.none(), st.integers(0, 120), st.integers(0, 400), st.integers(1, 50)
)
def test_nobody_is_let_past_a_limit_and_nobody_below_is_refused(each, in_all, has, there, adding):
    limits = replace(LIMITS, max_bots_per_user=each, max_total_bots=in_all)
    fits = has + adding <= each and (in_all is None or there + adding <= in_all)
    assert (admit_bots(limits, "alice", has, there, adding) is None) == fits


@pytest.mark.parametrize("percent,admitted", [(0.0, True), (79.9, True), (80.0, False), (99.0, False)])
def test_starts_are_refused_from_the_memory_threshold_on(percent, admitted):
    assert (admit_start(LIMITS, percent) is None) == admitted


def test_a_refused_start_names_the_threshold_and_the_remedy():
    refusal = admit_start(replace(LIMITS, memory_threshold_percent=82.5), 91.234)
    assert (refusal.limit, refusal.value, refusal.used) == ("memoryThreshold", 82.5, 91.234)
    assert refusal.reason == (
        "91 % of the machine's memory is in use, starts are refused from 82.5 % (resourceManagement.memoryThreshold)"
    )
    assert "stop a bot" in refusal.remedy
