"""apply: the smallest set of changes, and nothing secret in telling them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.core.bot import Probe, Spec
from botd.core.plan import FieldChange, Have, Want, differences, plan

SPEC = Spec("alice/shop", ("run",), "/srv", env={"TOKEN": "old-value", "MODE": "a"}, labels={"tier": "free"})
SOURCE = "/srv/fleet.toml"


def have(spec=SPEC, wanted=True, source=SOURCE, alive=True):
    return {spec.id: Have(spec, wanted, source, alive)}


def one(before, want, prune=False):
    (change,) = plan(before, [want], SOURCE, prune=prune)
    return change


def test_what_is_as_it_should_be_is_left_alone():
    change = one(have(), Want(SPEC, enabled=True))
    assert (change.action, change.fields, change.restarts) == ("keep", (), False)


def test_what_is_not_there_is_created():
    assert one({}, Want(SPEC, enabled=True)).action == "create"
    assert one({}, Want(SPEC, enabled=False)).wanted is False


CHANGES = [
    ("command", {"command": ("run", "--fast")}, True),
    ("directory", {"directory": "/opt"}, True),
    ("env", {"env": {"TOKEN": "new-value"}}, True),
    ("port", {"wants_port": True}, True),
    ("labels", {"labels": {"tier": "paid"}}, False),
    ("memory_mb", {"memory_bytes": 256 << 20}, False),
    ("restart", {"restart": "never"}, False),
    ("stop_signal", {"stop_signal": "SIGINT"}, False),
    ("stop_grace_s", {"stop_grace_s": 1.0}, False),
    ("probe", {"probe": Probe("tcp", port=1)}, False),
    ("secrets", {"secret_names": ("TOKEN",)}, True),
]


@pytest.mark.parametrize("field,new,restarts", CHANGES)
def test_only_what_a_life_was_started_with_needs_a_new_one(field, new, restarts):
    change = one(have(), Want(replace(SPEC, **new), enabled=True))
    assert [told.field for told in change.fields] == [field]
    assert (change.action, change.restarts) == (("restart", True) if restarts else ("change", False))


@pytest.mark.parametrize("field,new,restarts", CHANGES)
def test_a_bot_without_a_life_is_not_restarted(field, new, restarts):
    change = one(have(alive=False), Want(replace(SPEC, **new), enabled=True))
    assert (change.action, change.restarts) == ("change", False)


def test_changed_secrets_restart_and_are_not_shown():
    change = one(have(), Want(SPEC, enabled=True, secrets_changed=True))
    assert (change.action, change.fields) == ("restart", (FieldChange("secrets", "***", "*** (changed)"),))


def test_enabled_starts_and_stops():
    assert one(have(wanted=False, alive=False), Want(SPEC, enabled=True)).action == "start"
    stop = one(have(), Want(replace(SPEC, command=("other",)), enabled=False))
    assert (stop.action, stop.restarts, stop.wanted) == ("stop", False, False)


def test_a_bot_of_another_source_is_taken_over_and_said_so():
    change = one(have(source=None), Want(SPEC, enabled=True))
    assert (change.action, change.fields) == ("change", (FieldChange("source", None, SOURCE),))


def test_prune_deletes_only_what_this_source_brought():
    others = have() | {
        "bob/mine": Have(replace(SPEC, id="bob/mine"), True, SOURCE, True),
        "bob/other": Have(replace(SPEC, id="bob/other"), True, "/other.toml", True),
        "bob/hand": Have(replace(SPEC, id="bob/hand"), True, None, True),
    }
    want = [Want(SPEC, enabled=True)]
    assert [(c.id, c.action) for c in plan(others, want, SOURCE, prune=False)] == [("alice/shop", "keep")]
    assert [(c.id, c.action) for c in plan(others, want, SOURCE, prune=True)] == [
        ("alice/shop", "keep"),
        ("bob/mine", "delete"),
    ]


def test_values_of_the_environment_are_never_told():
    told = differences(SPEC, replace(SPEC, env={"TOKEN": "new-value", "NEW": "secret-too"}), secrets_changed=False)
    assert told == [
        FieldChange("env", {"MODE": "***", "TOKEN": "***"}, {"NEW": "***", "TOKEN": "*** (changed)"}),
    ]
    assert not any(value in repr(told) for value in ("old-value", "new-value", "secret-too"))


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), unique_by=lambda pair: pair[0]), st.booleans())
def test_applying_a_plan_leaves_nothing_to_apply(wants, prune):
    """After the changes are made the same manifest has no more of them."""
    bots = have(replace(SPEC, id="x/a", command=("older",))) | have(replace(SPEC, id="x/z"))
    want = [Want(replace(SPEC, id=f"x/{letter}"), enabled) for letter, enabled in wants]
    specs = {one.spec.id: one.spec for one in want}
    for change in plan(bots, want, SOURCE, prune=prune):
        if change.action == "delete":
            del bots[change.id]
        else:
            bots[change.id] = Have(specs[change.id], change.wanted, SOURCE, change.wanted)
    assert {change.action for change in plan(bots, want, SOURCE, prune=prune)} <= {"keep"}
