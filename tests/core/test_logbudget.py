"""Which logs go, and why."""

from hypothesis import given, settings
from hypothesis import strategies as st

from botd.core.logbudget import File, decide, summary, total
from botd.core.settings import MIB, Output

NOW = 1_000_000.0


def rotated(bot, number, size, age, stream="out"):
    return File(bot, stream, number, size, NOW - age)


def numbers(removals):
    return [(removal.file.bot, removal.file.stream, removal.file.number) for removal in removals]


def test_nothing_goes_without_a_bound_or_within_it():
    files = [rotated("a/x", n, 10 * MIB, 1000 * n) for n in range(6)]
    assert decide(files, Output(), NOW) == []
    assert decide(files, Output(max_bytes_per_bot=60 * MIB, max_bytes_per_user=60 * MIB, max_age_s=5000.0), NOW) == []
    assert decide([], Output(max_bytes_per_user=1), NOW) == []


def test_the_oldest_of_a_user_go_first_whichever_bot_they_are_of():
    files = [
        *(rotated("a/x", n, 10 * MIB, 100 * n) for n in range(4)),
        *(rotated("a/y", n, 10 * MIB, 130 * n) for n in range(3)),
        rotated("a/y", 1, 10 * MIB, 5000, "err"),
    ]
    found = decide(files, Output(max_bytes_per_user=45 * MIB), NOW)
    assert numbers(found) == [("a/y", "err", 1), ("a/x", "out", 3), ("a/y", "out", 2), ("a/x", "out", 2)]
    assert {removal.reason for removal in found} == {"logs of a were 80 of 45 MiB (output.maxPerUser)"}


def test_a_bot_over_its_own_budget_pays_alone():
    files = [rotated("a/x", n, 10 * MIB, n) for n in range(3)] + [rotated("a/y", 5, 10 * MIB, 9999)]
    found = decide(files, Output(max_bytes_per_bot=20 * MIB, max_bytes_per_user=30 * MIB), NOW)
    assert numbers(found) == [("a/x", "out", 2)]
    assert found[0].reason == "logs of a/x were 30 of 20 MiB (output.maxPerBot)"


def test_what_is_being_written_never_goes():
    files = [rotated("a/x", 0, 500 * MIB, 0), rotated("a/x", 1, MIB, 10)]
    assert numbers(decide(files, Output(max_bytes_per_bot=MIB), NOW)) == [("a/x", "out", 1)]


def test_age_counts_from_the_last_byte_and_leaves_no_gap():
    files = [rotated("a/x", 1, 1, 50), rotated("a/x", 2, 1, 5000), rotated("a/x", 3, 1, 60), rotated("a/x", 4, 1, 5000)]
    found = decide(files, Output(max_age_s=3600.0), NOW)
    assert numbers(found) == [("a/x", "out", 4)]
    assert found[0].reason == "older than 1 h (output.maxAge)"


def test_the_words_of_history():
    assert (
        summary("alice/shop", 3, 48 * MIB, "logs of alice were 260 of 256 MiB (output.maxPerUser)")
        == "removed the 3 oldest log files (48 MiB) of alice/shop: "
        "logs of alice were 260 of 256 MiB (output.maxPerUser)"
    )
    assert summary("a/x", 1, MIB // 2, "why").startswith("removed the oldest log file (0.5 MiB) of a/x: why")


FILES = st.lists(
    st.builds(
        File,
        st.sampled_from(["a/x", "a/y", "a/z"]),
        st.sampled_from(["out", "err"]),
        st.integers(0, 6),
        st.integers(0, 100),
        st.floats(0, NOW),
    ),
    unique_by=lambda file: file[:3],
)
BOUND = st.none() | st.integers(0, 400)


@settings(max_examples=60, deadline=None)
@given(FILES, BOUND, BOUND, st.none() | st.floats(0, NOW))
def test_no_more_goes_than_has_to_and_never_from_the_middle(files, per_bot, per_user, age):
    found = decide(files, Output(max_bytes_per_bot=per_bot, max_bytes_per_user=per_user, max_age_s=age), NOW)
    gone = [removal.file for removal in found]
    left = [file for file in files if file not in gone]
    assert len(set(gone)) == len(gone)
    assert all(file.number > 0 for file in gone)
    for file in gone:
        assert not any(o[:2] == file[:2] and o.number > file.number for o in left)
    for bound, of in ((per_user, left), *((per_bot, [f for f in left if f.bot == b]) for b in ("a/x", "a/y", "a/z"))):
        if bound is not None:
            assert total(of) <= bound or all(file.number == 0 for file in of)
    # The last one that went for a budget was needed.
    if found and found[-1].reason.endswith("maxPerUser)"):
        assert total([*left, gone[-1]]) > per_user
