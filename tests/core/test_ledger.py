"""The books of storage: whatever happens, sums are those of the figures, and what is not on record is known."""

from hypothesis import given
from hypothesis import strategies as st

from botd.core.ledger import Ledger
from botd.core.quota import Big, Usage

BOTS = ["alice/a", "alice/b", "bob/a"]
steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "remove", "record", "let", "suspect", "near", "within"]),
        st.sampled_from(BOTS),
        st.integers(0, 2),
        st.integers(0, 1),
    ),
    max_size=60,
)


@given(steps)
def test_sums_and_records_after_any_walk(walk):
    ledger, on_record = Ledger(), {}
    for now, (what, bot, private, logs) in enumerate(walk):
        user = bot.partition("/")[0]
        if what == "enter":
            ledger.enter(bot, Usage(private, logs), float(now), float(now))
        elif what == "remove":
            ledger.remove(bot)
        elif what == "let":
            ledger.let_grow([bot])
        elif what == "suspect" and bot in ledger.figures:
            ledger.suspect(bot)
        elif what in ("near", "within"):
            ledger.stands(user, what)
        elif what == "record":
            for key in ledger.gone:
                on_record.pop(key, None)
            for key in ledger.changed:
                on_record[key] = ledger.figures[key].usage if "/" in key else ledger.levels[key]
            ledger.recorded()
            # Nobody measures the same again for nothing: an equal figure is no change.
            assert on_record == {key: it.usage for key, it in ledger.figures.items()} | ledger.levels
        for user in ("alice", "bob"):
            mine = [it.usage.total for bot, it in ledger.figures.items() if bot.startswith(f"{user}/")]
            assert ledger.of_user(user) == sum(mine)
    assert ledger.users() <= {"alice", "bob"}


def test_growth_counts_from_the_base():
    ledger = Ledger()
    ledger.recall("alice/a", Usage(100, 0), 0.0, 0.0)
    assert ledger.changed == set()
    figure, grown = ledger.enter("alice/a", Usage(160, 20), 60.0, 60.0)
    assert (grown, figure.base, figure.rate) == (80, 100, 80.0)
    ledger.let_grow(["alice/a", "alice/unknown"])
    assert figure.base == 180
    figure, grown = ledger.enter("alice/a", Usage(100, 20), 60.1, 60.1)
    assert (grown, figure.base, figure.rate) == (-60, 180, 80.0)  # too short a time for a rate
    ledger.suspect("alice/a")
    figure, _ = ledger.enter("alice/a", Usage(150, 20), 70.0, 70.0)
    assert (figure.base, figure.witnessed) == (120, True)


def test_the_biggest():
    ledger = Ledger()
    for number, bot in enumerate(BOTS):
        ledger.enter(bot, Usage(number, 1), 0.0, 0.0)
    assert ledger.biggest(BOTS, 2) == [Big("bob/a", 3), Big("alice/b", 2)]
    assert ledger.biggest(["carol/unknown"]) == []
