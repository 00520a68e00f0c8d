"""Who ends for what it uses: over a watched limit, or to relieve the machine."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from botd.core import relief
from botd.core.bot import Spec
from botd.core.relief import HYSTERESIS_PERCENT, PATIENCE_S, PAUSE_S, YOUNG_S, Shortage, User
from botd.core.settings import MIB, Limits

SPEC = Spec("alice/shop", ("run",), "/srv")
LIMITS = Limits()
OLD_S = 3600.0


def user(bot_id="a/a", used=100, limit=512, growth=0.0, age_s=OLD_S):
    return User(bot_id, 1, used * MIB, limit * MIB, growth * MIB, age_s)


def decide(users, *, percent=91.0, threshold=80.0, shortage=None, ending=False, now=1000.0):
    standing = Shortage(now - PATIENCE_S) if shortage is None else shortage
    return relief.decide(standing, percent, threshold, users, ending=ending, now=now)


# --- watched limits -------------------------------------------------------------------------------


def test_the_bots_own_limit_comes_before_the_default():
    own = replace(SPEC, memory_bytes=600 * MIB)
    assert relief.over(SPEC, LIMITS, 512 * MIB) is None
    assert relief.over(SPEC, LIMITS, 550 * MIB).reason == (
        "memory 550 MiB over its limit of 512 MiB (maxMemoryPerBot, watched)"
    )
    assert relief.over(own, LIMITS, 600 * MIB) is None
    assert relief.over(own, LIMITS, 601 * MIB).reason == (
        "memory 601 MiB over its limit of 600 MiB (memory_mb, watched)"
    )


def test_a_slow_leak_ends_politely_and_a_wild_one_at_once():
    assert not relief.over(SPEC, LIMITS, 520 * MIB, growth=10.0 * MIB).at_once
    assert relief.over(SPEC, LIMITS, 520 * MIB, growth=6000.0 * MIB).at_once
    assert relief.over(SPEC, LIMITS, 1024 * MIB).at_once


def test_too_many_processes_end_at_once():
    assert relief.too_many(SPEC, LIMITS, 512) is None
    verdict = relief.too_many(SPEC, LIMITS, 1500)
    assert verdict == (
        "processes",
        "1,500 processes and threads, over its limit of 512 (maxProcessesPerBot, watched)",
        True,
    )
    assert relief.too_many(replace(SPEC, processes=3), LIMITS, 4).reason.endswith("limit of 3 (processes, watched)")
    assert relief.too_many(SPEC, Limits(max_processes_per_bot=None), 10_000) is None


# --- relief ---------------------------------------------------------------------------------------


def test_the_fastest_growing_goes_and_hears_why():
    found = decide([user("a/slow", growth=12), user("a/fast", growth=40), user("a/large", used=400)])
    assert found.chosen.id == "a/fast"
    assert found.reason == (
        "relieved: the machine's memory is at 91 % (memoryThreshold 80), it grew 40 MiB/min, the fastest"
    )


def test_who_is_over_its_own_limit_goes_before_who_grows():
    found = decide([user("a/fast", growth=400), user("a/over", used=600), user("b/over", used=530)])
    assert found.chosen.id == "a/over"
    assert found.reason.endswith("it is 88 MiB over its limit of 512 MiB, the most")


def test_nobody_goes_for_age_or_size():
    assert decide([user("a/large", used=511), user("a/old", age_s=1e9), user("a/b", growth=-50)]).chosen is None
    # Five percent a minute of a large one is more than the least growth.
    assert decide([user(used=400, growth=9)]).chosen is None
    assert decide([]).chosen is None


def test_growing_while_it_starts_is_no_offence():
    assert decide([user(growth=500, age_s=YOUNG_S - 1)]).chosen is None
    assert decide([user(growth=500, age_s=YOUNG_S)]).chosen is not None


def test_a_shortage_begins_and_ends_with_a_word_and_nobody_goes_at_once():
    begun = decide([user(growth=40)], shortage=Shortage())
    assert begun.chosen is None and "starts are refused" in begun.told
    moment = decide([user(growth=40)], shortage=begun.shortage, now=1000.0 + PATIENCE_S / 2)
    assert (moment.chosen, moment.told) == (None, "")
    held = decide([user(growth=40)], shortage=begun.shortage, now=1000.0 + PATIENCE_S)
    assert held.chosen is not None
    near = decide([user(growth=40)], percent=80.0 - HYSTERESIS_PERCENT, shortage=held.shortage, now=2000.0)
    assert near == (held.shortage, None, "", "")
    over = decide([user(growth=40)], percent=74.0, shortage=held.shortage, now=2000.0)
    assert over.shortage == Shortage(None, held.shortage.relieved_at) and over.told.endswith("the shortage is over")


def test_one_at_a_time_and_a_pause_between():
    first = decide([user("a/a", growth=40), user("a/b", growth=30)])
    again = decide([user("a/b", growth=30)], shortage=first.shortage, now=1000.0 + PAUSE_S - 0.1)
    assert again.chosen is None
    assert decide([user("a/b", growth=30)], shortage=first.shortage, now=1000.0 + PAUSE_S).chosen.id == "a/b"
    assert decide([user("a/b", growth=30)], ending=True).chosen is None


users = st.builds(
    user,
    st.sampled_from(["a/a", "a/b", "b/a", "c/c"]),
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.floats(-1e4, 1e4),
    st.floats(0, 1e6),
)
fleets = st.lists(users, max_size=8, unique_by=lambda one: one.id)


@given(fleets, st.floats(0, 100), st.floats(1, 100), st.booleans(), st.randoms())
def test_whoever_goes_is_an_offender_and_no_other_is_a_worse_one(fleet, percent, threshold, ending, random):
    found = decide(fleet, percent=percent, threshold=threshold, ending=ending)
    shuffled = random.sample(fleet, len(fleet))
    assert decide(shuffled, percent=percent, threshold=threshold, ending=ending) == found
    worst = found.chosen
    if worst is None:
        if percent >= threshold and not ending:
            assert not any(one.used > one.limit for one in fleet)
        return
    assert percent >= threshold and not ending
    assert worst in fleet and found.reason
    excess = {one.id: one.used - one.limit for one in fleet}
    if worst.used > worst.limit:
        assert excess[worst.id] == max(excess.values())
    else:
        assert max(excess.values()) <= 0
        assert worst.growth > 0 and worst.age_s >= YOUNG_S
        assert not any(one.growth > worst.growth and one.age_s >= YOUNG_S for one in fleet if one.used <= worst.used)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 30)), max_size=60))
def test_over_any_course_of_the_machine_nobody_goes_under_the_threshold_and_two_never_close_together(course):
    now, shortage, gone = 1000.0, Shortage(), []
    for percent, passed in course:
        now += passed
        found = relief.decide(shortage, percent, 80.0, [user(growth=50)], ending=False, now=now)
        shortage = found.shortage
        if found.chosen is not None:
            assert percent >= 80.0
            gone.append(now)
    assert all(b - a >= PAUSE_S for a, b in pairwise(gone))
