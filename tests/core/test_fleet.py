"""The fleet: counts, selections and what is due next."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botd.contract import selector
from botd.core.bot import BotState, Deadline, Probe, Spec
from botd.core.fleet import Bot, Fleet, rules_of


def bot(bot_id, phase="stopped", deadline=None, **spec):
    made = Spec(bot_id, ("true",), "/", **spec)
    return Bot(made, BotState(phase=phase, deadline=deadline), rules_of(made), created_at_wall=0.0)


def fleet_of(*bots):
    fleet = Fleet()
    for one in bots:
        fleet.add(one)
    return fleet


FLEET = fleet_of(
    bot("alice/shop", "running", labels={"tier": "free"}),
    bot("alice/shop-01", "failed", labels={"tier": "free", "lang": "en"}),
    bot("alice/news", template="messenger"),
    bot("bob/shop", "failed", labels={"tier": "paid"}),
    bot("bob/shop-02", "backoff"),
    bot("al/ice", "running"),
)


@pytest.mark.parametrize(
    "arguments,found",
    [
        ("alice/shop", "alice/shop"),
        ("shop", "bob/shop"),
        ("sho?", "bob/shop"),
        ("*", "bob/shop bob/shop-02"),
        ("alice/*", "alice/news alice/shop alice/shop-01"),
        ("al*/*", "al/ice alice/news alice/shop alice/shop-01"),
        ("*/shop-??", "alice/shop-01 bob/shop-02"),
        ("*/shop", "alice/shop bob/shop"),
        ("[ab]*/shop", "alice/shop bob/shop"),
        ("user:alice", "alice/news alice/shop alice/shop-01"),
        ("user:b*", "bob/shop bob/shop-02"),
        ("phase:failed", "alice/shop-01 bob/shop"),
        ("user:alice,phase:failed", "alice/shop-01"),
        ("user:bob,alice/*", ""),
        ("health:unhealthy", "alice/shop-01 bob/shop bob/shop-02"),
        ("health:stopped", "alice/news"),
        ("template:messenger", "alice/news"),
        ("label:tier=free", "alice/shop alice/shop-01"),
        ("label:tier=free,label:lang=en", "alice/shop-01"),
        ("label:tier=", ""),
        ("alice/shop,phase:failed", ""),
        ("alice/nobody", ""),
        ("user:nobody", ""),
        ("alice/shop bob/* alice/shop", "alice/shop bob/shop bob/shop-02"),
    ],
)
def test_a_selection_means_these_bots(arguments, found):
    assert FLEET.resolve(selector.parse(arguments.split()), caller="bob") == found.split()


def test_all_means_all_in_order():
    assert FLEET.resolve(selector.ALL, caller="bob") == sorted(FLEET.bots)


def test_a_pattern_of_the_user_does_not_reach_over_the_slash():
    assert FLEET.resolve(selector.parse(["a*ice"]), caller="al") == []
    assert FLEET.resolve({"any": [{"id": "a*ice/*"}]}, caller="x") == ["alice/news", "alice/shop", "alice/shop-01"]


IDS = st.builds("{}/{}".format, st.sampled_from(["a", "b", "ab"]), st.sampled_from(["x", "y", "xy", "x-1"]))


@given(
    st.sets(IDS),
    st.sampled_from(["a", "b", "ab", "a*", "*", "?", None]),
    st.sampled_from(["*/x", "a/*", "a*/x?", "x", "?/?", "ab/xy", None]),
)
def test_no_short_cut_changes_what_is_found(ids, user, pattern):
    """Every way to narrow the search finds what looking at each bot would find."""
    from fnmatch import fnmatchcase

    fleet = fleet_of(*map(bot, ids))
    clause = {key: value for key, value in (("user", user), ("id", pattern)) if value}
    if not clause:
        return
    full = pattern if pattern is None or "/" in pattern else f"b/{pattern}"

    def matches(bot_id):
        owner, _, name = bot_id.partition("/")
        if user is not None and not fnmatchcase(owner, user):
            return False
        return full is None or (fnmatchcase(owner, full.split("/")[0]) and fnmatchcase(name, full.split("/")[1]))

    assert fleet.resolve({"any": [clause]}, caller="b") == sorted(filter(matches, ids))


def test_counts_are_kept():
    fleet = fleet_of(bot("alice/a", "running"), bot("alice/b"), bot("bob/a"))
    assert (fleet.count_of("alice"), fleet.count_of("bob"), fleet.count_of("carol"), len(fleet)) == (2, 1, 0, 3)
    assert dict(fleet.phases) == {"running": 1, "stopped": 2}
    fleet.set_state(fleet.bots["bob/a"], BotState(phase="running"))
    assert (fleet.phases["running"], fleet.phases["stopped"]) == (2, 1)
    fleet.remove("alice/a")
    fleet.remove("alice/b")
    assert (fleet.count_of("alice"), len(fleet), fleet.phases["running"], fleet.phases["stopped"]) == (0, 1, 1, 0)
    assert "alice" not in fleet.of_user
    assert fleet.get("alice/a") is None


def test_a_new_specification_brings_its_rules():
    fleet = fleet_of(bot("alice/a"))
    one = fleet.bots["alice/a"]
    changed = replace(one.spec, restart="never", stop_signal="SIGINT", stop_grace_s=1.0, probe=Probe("tcp", port=1))
    fleet.set_spec(one, changed)
    assert (one.rules.restart, one.rules.stop_signal, one.rules.stop_grace_s, one.rules.probed) == (
        "never",
        "SIGINT",
        1.0,
        True,
    )


# --- deadlines ------------------------------------------------------------------------------------


def waiting(fleet, bot_id, at, kind="retry"):
    one = fleet.bots[bot_id]
    fleet.set_state(one, replace(one.state, deadline=None if at is None else Deadline(kind, at)))


def test_the_nearest_deadline_is_told():
    fleet = fleet_of(bot("a/a"), bot("a/b"), bot("a/c"))
    assert fleet.next_deadline() is None
    waiting(fleet, "a/a", 30.0)
    waiting(fleet, "a/b", 10.0)
    assert fleet.next_deadline() == 10.0
    waiting(fleet, "a/b", None)
    assert fleet.next_deadline() == 30.0
    fleet.remove("a/a")
    assert fleet.next_deadline() is None


def test_a_bot_that_is_added_with_a_deadline_is_remembered():
    assert fleet_of(bot("a/a", "backoff", Deadline("retry", 5.0))).next_deadline() == 5.0


def test_what_is_due_is_told_once_and_in_time():
    fleet = fleet_of(bot("a/a"), bot("a/b"), bot("a/c"))
    for bot_id, at in (("a/a", 3.0), ("a/b", 1.0), ("a/c", 9.0)):
        waiting(fleet, bot_id, at)
    assert fleet.due(0.5) == []
    assert fleet.due(3.0) == [("a/b", Deadline("retry", 1.0)), ("a/a", Deadline("retry", 3.0))]
    assert fleet.due(3.0) == []
    assert fleet.next_deadline() == 9.0


def test_a_deadline_that_was_moved_counts_where_it_stands_now():
    fleet = fleet_of(bot("a/a"))
    waiting(fleet, "a/a", 1.0)
    waiting(fleet, "a/a", 50.0)
    assert fleet.due(10.0) == []
    waiting(fleet, "a/a", 1.0)
    assert fleet.due(10.0) == [("a/a", Deadline("retry", 1.0))]


def test_a_state_that_is_taken_back_has_its_deadline_back():
    """What could not be committed is undone: the deadline that had passed must pass again."""
    fleet = fleet_of(bot("a/a"))
    waiting(fleet, "a/a", 1.0)
    old = fleet.bots["a/a"].state
    assert len(fleet.due(2.0)) == 1
    fleet.set_state(fleet.bots["a/a"], replace(old, phase="starting", deadline=None))
    fleet.set_state(fleet.bots["a/a"], old)
    assert fleet.due(2.0) == [("a/a", Deadline("retry", 1.0))]


def test_an_id_that_is_used_again_does_not_inherit_a_deadline():
    fleet = fleet_of(bot("a/a"))
    waiting(fleet, "a/a", 1.0)
    fleet.remove("a/a")
    fleet.add(bot("a/a"))
    assert fleet.next_deadline() is None


def test_memory_of_old_deadlines_does_not_grow():
    fleet = fleet_of(bot("a/a"), bot("a/b"))
    for at in range(10_000):
        waiting(fleet, "a/a", float(at))
    waiting(fleet, "a/b", 5.0)
    assert len(fleet._heap) < 100
    assert fleet.next_deadline() == 5.0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 20))),
        st.tuples(st.just("due"), st.integers(0, 20)),
        st.tuples(st.just("renew"), st.integers(0, 4)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS)
def test_deadlines_behave_like_a_search_through_all_bots(steps):
    fleet, model = fleet_of(*(bot(f"a/{n}") for n in range(5))), {}
    for step in steps:
        match step:
            case "set", n, at:
                # As the lifecycle does: a deadline that has been told is never set again unchanged.
                waiting(fleet, f"a/{n}", at)
                model[f"a/{n}"] = at
            case "due", now:
                due = fleet.due(float(now))
                assert sorted(due) == sorted(
                    (bot_id, Deadline("retry", at)) for bot_id, at in model.items() if at is not None and at <= now
                )
                for bot_id, _ in due:
                    waiting(fleet, bot_id, None)
                    model[bot_id] = None
            case "renew", n:
                fleet.remove(f"a/{n}")
                fleet.add(bot(f"a/{n}"))
                model[f"a/{n}"] = None
        assert fleet.next_deadline() == min((at for at in model.values() if at is not None), default=None)


def test_ids_that_are_named_and_missing_are_told_one_by_one():
    fleet = Fleet()
    selection = {"any": [{"id": "shop"}, {"id": "bob/*"}, {"user": "eve"}, {"id": "bob/x"}, {"id": "alice/shop"}]}
    assert fleet.missing(selection, "alice") == ["alice/shop", "bob/x"]
    assert fleet.missing({"all": True}, "alice") == []
