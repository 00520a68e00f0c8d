"""Again, give up, or finished: the verdicts of the restart policy, their waits and their words."""

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.core.bot import Exit
from botd.core.restart import JITTER, Again, Finished, GiveUp, backoff, is_permanent, verdict, words_of
from botd.core.settings import RestartPolicy

POLICY = RestartPolicy(delay_s=0.25, max_delay_s=30.0, reset_after_s=60.0, max_attempts=10)
CHANCE = st.floats(0, 1, exclude_max=True)


def decide(policy=POLICY, mode="always", *, clean=False, attempts=0, ran_s=0.0, chance=0.0):
    return verdict(policy, mode, "exited with code 3", clean=clean, attempts=attempts, ran_s=ran_s, chance=chance)


def test_the_waits_double_up_to_the_cap():
    waits = [backoff(POLICY, attempt, 0.0) for attempt in range(1, 11)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_without_exponential_backoff_the_wait_is_constant():
    constant = replace(POLICY, exponential=False)
    assert {backoff(constant, attempt, 0.0) for attempt in range(1, 100)} == {0.25}


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.booleans(),
    st.integers(1, 1_000_000),
    CHANCE,
)
def test_no_wait_is_above_the_cap_or_below_its_share(delay, cap, exponential, attempt, chance):
    policy = replace(POLICY, delay_s=delay, max_delay_s=cap, exponential=exponential)
    whole, wait = backoff(policy, attempt, 0.0), backoff(policy, attempt, chance)
    assert 0.0 <= whole * (1 - JITTER) <= wait <= whole <= cap


def test_chance_spreads_the_waits():
    assert backoff(POLICY, 1, 0.0) == 0.25
    assert backoff(POLICY, 1, 0.5) == 0.25 * (1 - JITTER / 2)


def test_it_is_tried_so_often_and_no_more():
    assert [type(decide(attempts=n)) for n in range(12)] == [Again] * 10 + [GiveUp] * 2
    assert decide(attempts=9) == Again(30.0, 10, "exited with code 3; restart 10 of 10")
    assert decide(attempts=10) == GiveUp(
        "exited with code 3; gave up after 10 restarts in a row (autoRestartMaxAttempts)"
    )


def test_no_attempts_at_all_may_be_configured():
    assert isinstance(decide(replace(POLICY, max_attempts=0)), GiveUp)
    assert isinstance(decide(replace(POLICY, max_attempts=0), ran_s=1e6), GiveUp)


@pytest.mark.parametrize("ran_s,attempt", [(59.999, 8), (60.0, 1), (1e9, 1)])
def test_a_good_run_begins_a_new_row(ran_s, attempt):
    said = decide(attempts=7, ran_s=ran_s)
    assert (said.attempt, said.delay_s) == (attempt, backoff(POLICY, attempt, 0.0))


def test_even_a_given_up_row_is_forgiven_by_a_good_run():
    assert isinstance(decide(attempts=10, ran_s=60.0), Again)


@pytest.mark.parametrize(
    "mode,clean,kind",
    [
        ("always", True, Again),
        ("always", False, Again),
        ("on-failure", True, Finished),
        ("on-failure", False, Again),
        ("never", True, Finished),
        ("never", False, GiveUp),
    ],
)
def test_the_mode_of_the_bot_decides(mode, clean, kind):
    said = decide(mode=mode, clean=clean)
    assert isinstance(said, kind)
    if kind is not Again:
        assert said.reason == f"exited with code 3; restart policy is {mode}"


@pytest.mark.parametrize("mode", ["always", "on-failure"])
def test_with_automatic_restart_off_nothing_starts_again(mode):
    off = replace(POLICY, enabled=False)
    assert isinstance(decide(off, mode), GiveUp)
    assert isinstance(decide(off, mode, clean=True), Finished)
    assert "botRecovery.autoRestart" in decide(off, mode).reason


@given(st.sampled_from(["always", "on-failure", "never"]), st.booleans(), st.integers(0, 50), st.floats(0, 1e6), CHANCE)
def test_every_verdict_has_a_reason(mode, clean, attempts, ran_s, chance):
    said = decide(mode=mode, clean=clean, attempts=attempts, ran_s=ran_s, chance=chance)
    assert said.reason.startswith("exited with code 3; ")


@pytest.mark.parametrize(
    "exit_,text",
    [
        (Exit(3, None, 0.0), "exited with code 3"),
        (Exit(None, 11, 0.0), "killed by SIGSEGV"),
        (Exit(None, 99, 0.0), "killed by signal 99"),
        (Exit(None, None, 0.0), "ended with an unknown status"),
        (Exit(None, None, 0.0, cause="reboot"), "lost at a reboot of the machine"),
        (Exit(None, 9, 0.0, cause="memory"), "ended for its memory"),
        (Exit(0, None, 0.0, cause="unhealthy"), "ended for failing its health checks"),
        (Exit(0, None, 0.0, cause="request"), "exited with code 0"),
    ],
)
def test_ends_are_told_in_words(exit_, text):
    assert words_of(exit_) == text


def test_an_unknown_end_is_neither_clean_nor_known():
    unknown = Exit(None, None, 0.0)
    assert (unknown.known, unknown.clean) == (False, False)


def test_what_only_a_person_can_mend_is_permanent():
    assert all(map(is_permanent, (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR)))
    assert not any(map(is_permanent, (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOSPC)))
