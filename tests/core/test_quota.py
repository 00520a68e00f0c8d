"""A user's quota of storage: who is near, who is over, who is stopped, when it is worth a look."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from botd.core import quota
from botd.core.bot import BotState, Exit
from botd.core.quota import GROWS, STEP_MAX, STEP_MIN, Big, Quota, Shared, Usage, Writer
from botd.core.settings import MIB, Limits

LIMITS = Limits(max_storage_per_user_bytes=1000 * MIB)
QUOTA = quota.quota_of(LIMITS)
BIG = [Big("alice/shop", 700 * MIB), Big("alice/news", 200 * MIB)]
used = st.integers(0, 3000).map(lambda mb: mb * MIB)
levels = st.sampled_from(["within", "near", "over"])


def writer(bot_id="alice/shop", *, grown=10 * MIB, rate=60 * MIB, grace_s=10.0, witnessed=True):
    return Writer(bot_id, 3, 500 * MIB + grown, 500 * MIB, rate, grace_s, witnessed)


def test_marks_and_their_slack():
    assert Quota(800 * MIB, 1000 * MIB) == QUOTA
    level = quota.level
    assert level("within", 800 * MIB, QUOTA) == "within"
    assert level("within", 801 * MIB, QUOTA) == "near"
    assert level("near", 760 * MIB, QUOTA) == "near"
    assert level("near", 750 * MIB, QUOTA) == "within"
    assert level("near", 1000 * MIB, QUOTA) == "near"
    assert level("near", 1000 * MIB + 1, QUOTA) == "over"
    assert level("over", 960 * MIB, QUOTA) == "over"
    assert level("over", 950 * MIB, QUOTA) == "near"
    assert level("over", 100 * MIB, QUOTA) == "within"


@given(levels, used)
def test_a_level_stands_until_the_figure_moves(before, figure):
    after = quota.level(before, figure, QUOTA)
    assert quota.level(after, figure, QUOTA) == after
    if figure > QUOTA.hard:
        assert after == "over"
    elif figure <= QUOTA.soft * 0.9:
        assert after == "within"


@given(st.lists(used, min_size=1, max_size=40), levels)
def test_each_change_of_level_is_told_and_nothing_else(figures, before):
    for figure in figures:
        after = quota.level(before, figure, QUOTA)
        text = quota.told("alice", before, after, figure, QUOTA, BIG, 1)
        assert bool(text) == (before != after)
        if text:
            assert "alice keeps" in text and "1,000 MiB (maxStoragePerUser)" in text
        before = after


def test_the_words():
    def told(before, after, megabytes, stopped=0):
        return quota.told("alice", before, after, megabytes * MIB, QUOTA, BIG, stopped)

    assert told("within", "near", 810) == (
        "quota near: alice keeps 810 MiB of 1,000 MiB (maxStoragePerUser), 81 %; "
        "biggest: alice/shop 700 MiB, alice/news 200 MiB"
    )
    assert told("near", "over", 1001).startswith(
        "quota passed: alice keeps 1,001 MiB of 1,000 MiB (maxStoragePerUser); starts and new bots are refused, "
        "who writes on is stopped; biggest: "
    )
    assert told("over", "near", 900) == (
        "quota kept again: alice keeps 900 MiB of 1,000 MiB (maxStoragePerUser); bots may start"
    )
    assert told("over", "within", 9, 2).endswith(
        "bots may start; stopped for it: 2, they start again with: botctl recover 'user:alice'"
    )
    assert told("near", "within", 90) == "quota far again: alice keeps 90 MiB of 1,000 MiB (maxStoragePerUser)"
    assert [quota.mib(count) for count in (8192, 1.5 * MIB, 12.4 * MIB)] == ["8 KiB", "1.5 MiB", "12 MiB"]


def test_a_refusal_names_limit_value_biggest_and_remedy():
    assert quota.refuse("alice", QUOTA.hard, QUOTA, BIG) is None
    refusal = quota.refuse("alice", 1200 * MIB, QUOTA, BIG)
    assert (refusal.kind, refusal.limit, refusal.value, refusal.used) == (
        "quota",
        "maxStoragePerUser",
        QUOTA.hard,
        1200 * MIB,
    )
    assert refusal.reason == (
        "alice keeps 1,200 MiB on disk, over the quota of 1,000 MiB a user (resourceManagement.maxStoragePerUser); "
        "biggest: alice/shop 700 MiB, alice/news 200 MiB"
    )
    assert refusal.remedy == (
        "delete files of alice/shop or, with --purge, a bot that is no longer needed (botctl resources --user alice "
        "shows which), or raise the limit and run: botctl config reload"
    )
    full = quota.refuse("alice", 1200 * MIB, QUOTA, BIG, deleted=300 * MIB)
    assert full.remedy.startswith("empty the trash of 300 MiB (botctl trash empty --user alice), or delete files of")
    assert quota.refuse("alice", 1200 * MIB, QUOTA, []).remedy == "raise the limit and run: botctl config reload"


def test_the_fastest_writer_is_stopped_and_gets_its_grace_if_there_is_time():
    slow, fast = writer("alice/slow", rate=MIB), writer("alice/fast", rate=90 * MIB)
    found = quota.sentence("alice", 1001 * MIB, QUOTA, [slow, fast])
    assert (found.writer, found.at_once) == (fast, False)
    assert found.reason == (
        "quota: alice keeps 1,001 MiB on disk, over 1,000 MiB (maxStoragePerUser), "
        "and this bot grows fastest, 90 MiB a minute"
    )
    runaway = replace_rate(fast, 1024 * MIB)
    assert quota.sentence("alice", 1001 * MIB, QUOTA, [runaway]).at_once
    assert not quota.sentence("alice", 1001 * MIB, QUOTA, [runaway._replace(grace_s=0.5)]).at_once
    assert quota.sentence("alice", 1000 * MIB, QUOTA, [fast]) is None


def replace_rate(one, rate):
    return one._replace(rate=rate)


def test_who_does_not_write_is_left_alone():
    quiet = writer(grown=GROWS - 1)
    assert quota.sentence("alice", 1001 * MIB, QUOTA, [quiet]) is None
    by_hand = writer("alice/by-hand", witnessed=False)
    assert quota.sentence("alice", 1001 * MIB, QUOTA, [by_hand]) is None
    assert quota.suspects([quiet, by_hand, writer()]) == ["alice/by-hand"]


writers = st.lists(
    st.builds(
        Writer,
        st.integers(0, 99).map("alice/bot{}".format),
        st.just(1),
        used,
        used,
        st.floats(-1e9, 1e9),
        st.floats(0, 60),
        st.booleans(),
    ),
    max_size=8,
)


@given(used, writers)
def test_only_a_seen_writer_of_a_user_who_is_over_is_ever_stopped(figure, some):
    found = quota.sentence("alice", figure, QUOTA, some)
    guilty = [one for one in some if one.grows and one.witnessed]
    assert (found is None) == (figure <= QUOTA.hard or not guilty)
    if found is not None:
        assert found.writer in guilty
        assert found.writer.rate == max(one.rate for one in guilty)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 200 * MIB), max_size=8), used)
def test_a_look_is_due_when_enough_was_written_and_finds_the_writers(written, figure):
    due = quota.due(written, figure, QUOTA)
    every = sum(written.values())
    assert STEP_MIN <= quota.step(figure, QUOTA) <= STEP_MAX
    assert bool(due) == (every >= quota.step(figure, QUOTA))
    if due:
        assert max(written, key=written.get) in due
        assert 2 * sum(written[one] for one in due) >= every  # what is left out is less than half


@given(used)
def test_steps_get_small_near_a_mark(figure):
    for mark in QUOTA:
        if mark - 4 * MIB <= figure <= mark:
            assert quota.step(figure, QUOTA) == STEP_MIN
    # However often a bot is looked at just before its step is full, it cannot pass a mark by much unseen.
    if figure <= QUOTA.hard:
        assert figure + quota.step(figure, QUOTA) <= QUOTA.hard + STEP_MIN


def test_a_bot_that_was_stopped_for_it():
    down = BotState(last_exit=Exit(None, 9, 0.0, cause="quota"))
    assert quota.is_stopped_for_it(down)
    assert not quota.is_stopped_for_it(replace(down, phase="running"))
    assert not quota.is_stopped_for_it(BotState())
    assert not quota.is_stopped_for_it(BotState(last_exit=Exit(0, None, 0.0)))


def test_what_sharing_saves():
    release = Shared(35 * MIB, MIB)
    bots = [f"a/bot{number}" for number in range(200)]
    saved = quota.savings(dict.fromkeys(bots, 2 * MIB), dict.fromkeys(bots, release), 35 * MIB)
    assert saved.copies == 200 * (2 + 34) * MIB
    assert saved.used == (200 * 2 + 35) * MIB
    assert round(saved.percent, 1) == 94.0
    assert quota.savings({}, {}, 0).percent == 0.0
    assert quota.fair_share(release, 200) == 34 * MIB // 200
    assert quota.fair_share(release, 0) == 34 * MIB
    assert Usage(3, 4).total == 7
