"""The grammar of selectors: what a person types, what travels, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract import selector
from botd.contract.errors import BotdError
from botd.contract.vocabulary import HEALTH, PHASES, is_name, is_user

# --- strategies: everything that can be said ------------------------------------------------------

FIRST = "abcdefghijklmnopqrstuvwxyz0123456789"
NAMES = st.builds("{}{}".format, st.sampled_from(FIRST), st.text(FIRST + "._-", max_size=62))
USERS = NAMES.map(lambda name: name[:32])
PATTERNS = st.builds("{}{}".format, st.text(FIRST + "._-[]!", max_size=20), st.sampled_from("*?"))
IDS = st.one_of(NAMES, PATTERNS, st.builds("{}/{}".format, USERS | PATTERNS, NAMES | PATTERNS))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters=",="), min_size=1, max_size=10)
CLAUSES = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "user": USERS | PATTERNS,
        "phase": st.sampled_from(PHASES),
        "health": st.sampled_from(HEALTH),
        "template": NAMES,
        "labels": st.dictionaries(WORDS, WORDS | st.just(""), min_size=1, max_size=3),
    },
).filter(bool)
SELECTIONS = st.just({"all": True}) | st.fixed_dictionaries({"any": st.lists(CLAUSES, max_size=5)})


@given(CLAUSES)
def test_what_is_said_in_words_means_the_same_when_parsed(clause):
    assert selector.parse([selector.describe({"any": [clause]})]) == {"any": [clause]}


@given(SELECTIONS)
def test_what_is_well_formed_travels_unchanged(selection):
    checked = selector.check(selection)
    assert checked == selection
    assert selector.check(checked) == checked


@given(st.lists(CLAUSES, min_size=1, max_size=4))
def test_what_botctl_parses_botd_accepts(clauses):
    parsed = selector.parse([selector.describe({"any": [clause]}) for clause in clauses])
    assert selector.check(parsed) == parsed


@given(st.text(max_size=30))
def test_any_text_is_a_selection_or_a_refusal_with_a_way_out(text):
    try:
        parsed = selector.parse([text])
    except BotdError as error:
        assert (error.kind, error.exit) == ("invalid", 2)
        assert error.message.startswith("selector")
    else:
        assert selector.check(parsed) == parsed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["all", "any", "id", "user", "labels", "x"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_any_json_is_a_selection_or_a_refusal(value):
    try:
        checked = selector.check(value)
    except BotdError as error:
        assert error.exit == 2
    else:
        assert checked == value
        assert "all" in checked or all(clause and clause.get("labels") != {} for clause in checked["any"])


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument,clause",
    [
        ("alice/shop", {"id": "alice/shop"}),
        ("shop", {"id": "shop"}),
        ("alice/*", {"id": "alice/*"}),
        ("*/shop-??", {"id": "*/shop-??"}),
        ("[a-c]*/shop", {"id": "[a-c]*/shop"}),
        ("user:alice", {"user": "alice"}),
        ("user:al*", {"user": "al*"}),
        ("phase:failed", {"phase": "failed"}),
        ("health:unhealthy", {"health": "unhealthy"}),
        ("template:messenger", {"template": "messenger"}),
        ("label:tier=free", {"labels": {"tier": "free"}}),
        ("label:url=http://x:1/?a=b", {"labels": {"url": "http://x:1/?a=b"}}),
        ("label:empty=", {"labels": {"empty": ""}}),
        ("user:alice,phase:failed", {"user": "alice", "phase": "failed"}),
        ("label:a=1,shop,label:b=2", {"labels": {"a": "1", "b": "2"}, "id": "shop"}),
        ("user:alice,user:alice", {"user": "alice"}),
    ],
)
def test_one_argument(argument, clause):
    assert selector.parse([argument]) == {"any": [clause]}


def test_several_arguments_are_a_union():
    assert selector.parse(["alice/a", "user:bob"]) == {"any": [{"id": "alice/a"}, {"user": "bob"}]}


def test_all_is_said_in_so_many_words():
    assert selector.parse([], every=True) == {"all": True}
    with pytest.raises(BotdError, match="--all and a selector together"):
        selector.parse(["x"], every=True)
    with pytest.raises(BotdError, match="no bot is named") as caught:
        selector.parse([])
    assert "--all" in caught.value.hint


def test_the_constant_cannot_be_changed_through_a_selection():
    selector.parse([], every=True)["all"] = False
    selector.check({"all": True})["all"] = False
    assert selector.ALL == {"all": True}


@pytest.mark.parametrize(
    "argument,message,hint",
    [
        ("", "selector: an empty term", "single commas"),
        ("user:alice,", "selector 'user:alice,': an empty term", "single commas"),
        (",", "an empty term", ""),
        ("phase:fialed", "'fialed' is no phase", "did you mean phase:failed?"),
        ("phase:x", "'x' is no phase", "one of: stopped, starting"),
        ("health:heathy", "'heathy' is no health", "did you mean health:healthy?"),
        ("usr:alice", "unknown key 'usr' in 'usr:alice'", "did you mean user:alice?"),
        ("zzz:alice", "unknown key 'zzz'", "known keys: user, phase, health, template, label"),
        ("label:tier", "'label:tier' is no label term", "label:KEY=VALUE"),
        ("label:=free", "is no label term", "label:KEY=VALUE"),
        ("user:Alice", "'Alice' is no user name", ""),
        ("user:", "'' is no user name", ""),
        ("user:" + "*" * 64, "is no user name", ""),
        ("template:a b", "'a b' is no template name", "1 to 63 of"),
        ("Shop", "'Shop' is no bot id", "an id is user/name"),
        ("alice/", "'alice/' is no bot id", "an id is user/name"),
        ("/shop", "'/shop' is no bot id", ""),
        ("a/b/c", "'a/b/c' is no bot id", ""),
        ("../etc", "'../etc' is no bot id", ""),
        ("alice/" + "x" * 64, "is no bot id", ""),
        ("*" * 64, "is no bot id", ""),
        ("-rf", "'-rf' is no bot id", ""),
        ("shop\n", "is no bot id", ""),
        ("шоп", "is no bot id", ""),
        ("user:alice,user:bob", "user is given twice", "use two arguments"),
        ("a,b", "id is given twice", "use two arguments"),
        ("label:a=1,label:a=2", "a is given twice", "use two arguments"),
    ],
)
def test_a_bad_argument_is_told_what_is_wrong(argument, message, hint):
    with pytest.raises(BotdError) as caught:
        selector.parse([argument])
    error = caught.value
    assert (error.kind, error.exit, error.code) == ("invalid", 2, -32602)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    "value,message",
    [
        (None, "select: must be an object"),
        ([], "select: must be an object"),
        ({}, "select: must be"),
        ({"all": False}, "select: must be"),
        ({"all": 1}, "select: must be"),
        ({"all": True, "any": []}, "select: must be"),
        ({"any": {}}, "select: must be"),
        ({"any": [], "x": 1}, "select: must be"),
        ({"any": [{}]}, "select.any[0]: must be an object with at least one condition"),
        ({"any": [{"id": "a"}, 5]}, "select.any[1]: must be an object"),
        ({"any": [{"id": 5}]}, "select.any[0].id: must be a string"),
        ({"any": [{"id": "A/b"}]}, "select.any[0].id: 'A/b' is no bot id"),
        ({"any": [{"labels": {}}]}, "select.any[0].labels: must map"),
        ({"any": [{"labels": {"a": 1}}]}, "select.any[0].labels: must map"),
        ({"any": [{"labels": "a=1"}]}, "select.any[0].labels: must map"),
        ({"any": [{"phase": "gone"}]}, "select.any[0]: 'gone' is no phase"),
        ({"any": [{"name": "x"}]}, "select.any[0]: unknown condition 'name'"),
        ({"any": [{"id": "a"}] * 10_001}, "select.any: 10001 clauses, at most 10000"),
    ],
)
def test_what_comes_over_the_wire_is_checked_again(value, message):
    with pytest.raises(BotdError) as caught:
        selector.check(value)
    assert caught.value.message.startswith(message)
    assert caught.value.exit == 2


def test_ids_from_standard_input_are_ids_and_nothing_else():
    assert selector.from_ids(["alice/a", "b"]) == {"any": [{"id": "alice/a"}, {"id": "b"}]}
    with pytest.raises(BotdError, match="standard input: 'user:alice' is no bot id"):
        selector.from_ids(["user:alice"])


def test_a_long_selection_is_described_briefly():
    many = selector.from_ids([f"alice/b{number}" for number in range(8)])
    assert selector.describe(many) == "alice/b0 alice/b1 alice/b2 alice/b3 alice/b4 and 3 more"
    assert selector.describe(selector.ALL) == "--all"


@given(st.text(max_size=40))
def test_names_are_made_of_a_few_letters(text):
    good = bool(text) and text[0] in FIRST and set(text) <= set(FIRST + "._-")
    assert is_user(text) == (good and len(text) <= 32)
    assert is_name(text) == good
