"""The checker of the contract's schemas: every word it understands, every refusal with its path."""

import pytest

from botd.contract.errors import BotdError
from botd.contract.schema import check


def refusal(value, schema, path=""):
    with pytest.raises(BotdError) as caught:
        check(value, schema, path)
    assert (caught.value.kind, caught.value.exit) == ("invalid", 2)
    return caught.value


TYPES = {
    "object": {},
    "array": [],
    "string": "",
    "boolean": True,
    "integer": 1,
    "number": 1.5,
    "null": None,
}


@pytest.mark.parametrize("wanted", TYPES)
@pytest.mark.parametrize("given", TYPES)
def test_types(wanted, given):
    value = TYPES[given]
    if given == wanted or (given, wanted) == ("integer", "number"):
        assert check(value, {"type": wanted}) == value
    else:
        assert refusal(value, {"type": wanted}, "a.b").message.startswith("a.b: must be ")


def test_true_is_no_number_and_1_is_not_true():
    assert refusal(True, {"type": "integer"}, "n").message == "n: must be a whole number, not true"
    assert refusal(True, {"type": "number"}, "n").message == "n: must be a number, not true"
    assert refusal(1, {"type": "boolean"}, "b").message == "b: must be true or false, not 1"
    assert refusal(1.0, {"type": "integer"}, "n").message == "n: must be a whole number, not 1.0"


def test_one_of_several_types():
    schema = {"type": ["string", "null"]}
    assert check(None, schema) is None
    assert refusal([], schema, "x").message == "x: must be a string or null, not a list"


@pytest.mark.parametrize(
    "value,schema,message",
    [
        ("x", {"enum": ["always", "never"]}, "p: must be one of always, never, not 'x'"),
        (1, {"enum": ["a"]}, "p: must be one of a, not 1"),
        (0, {"minimum": 1}, "p: must be at least 1, not 0"),
        (3, {"maximum": 2}, "p: must be at most 2, not 3"),
        (0, {"exclusiveMinimum": 0}, "p: must be more than 0, not 0"),
        (float("nan"), {"type": "number"}, "p: is not a number"),
        ("", {"minLength": 1}, "p: must not be empty"),
        ("abc", {"maxLength": 2}, "p: 3 characters, at most 2"),
        ("b", {"pattern": r"\Aa\Z"}, r"p: 'b' is not allowed"),
        ("a\n", {"pattern": r"\Aa\Z"}, r"p: 'a\n' is not allowed"),
        ([], {"minItems": 1}, "p: must not be empty"),
        ([1, 2], {"maxItems": 1}, "p: 2 entries, at most 1"),
        ([1, "x"], {"items": {"type": "integer"}}, "p[1]: must be a whole number, not 'x'"),
        ({"a": {"b": 1}}, {"properties": {"a": {"properties": {"b": {"type": "string"}}}}}, "p.a.b: must be a string"),
        ({}, {"required": ["id"]}, "p.id: is required"),
        ({"x": 1}, {"additionalProperties": False}, "p.x: unknown key"),
        ({"x": 1}, {"additionalProperties": {"type": "string"}}, "p.x: must be a string, not 1"),
        ({"1x": "v"}, {"propertyNames": {"pattern": r"\A[a-z]"}}, "p.1x: '1x' is not allowed"),
        ({"a": 1, "b": 2}, {"maxProperties": 1}, "p: 2 entries, at most 1"),
        ("x" * 100, {"type": "integer"}, "p: must be a whole number, not '" + "x" * 57 + "...'"),
    ],
)
def test_every_word_refuses_with_path_and_reason(value, schema, message):
    assert refusal(value, schema, "p").message.startswith(message)


@pytest.mark.parametrize(
    "value,schema",
    [
        (1, {"minimum": 1}),
        (2, {"maximum": 2}),
        (0.1, {"exclusiveMinimum": 0}),
        ("ab", {"maxLength": 2, "minLength": 2}),
        ([1], {"minItems": 1, "maxItems": 1}),
        ({"a": 1}, {"maxProperties": 1}),
        (True, {"minimum": 5}),
    ],
)
def test_the_bounds_themselves_are_inside(value, schema):
    assert check(value, schema) == value


@pytest.mark.parametrize("value", [{str(n): n for n in range(10_001)}, [0] * 100_001, "x" * ((1 << 20) + 1)])
def test_where_a_schema_says_nothing_there_is_a_bound_all_the_same(value):
    assert "at most" in refusal(value, {}, "p").message


def test_an_unknown_key_is_told_the_nearest_or_all():
    schema = {"properties": {"memory_mb": {}, "labels": {}}, "additionalProperties": False}
    assert refusal({"memory": 1}, schema).hint == "did you mean memory_mb?"
    assert refusal({"zzz": 1}, schema).hint == "known: labels, memory_mb"
    long = refusal({"k" * 5000: 1}, schema)
    assert len(long.message) < 120


def test_a_misspelt_word_is_told_the_nearest():
    assert refusal("alway", {"enum": ["always", "never"]}).hint == "did you mean 'always'?"


def test_a_schema_may_bring_its_own_words():
    assert refusal("x", {"type": "array", "x-hint": "write a list"}).hint == "write a list"
    assert refusal("x", {"pattern": "y", "x-hint": "only y"}).hint == "only y"
    assert refusal([], {"minItems": 1, "x-hint": "name one"}).hint == "name one"


def test_what_is_write_only_is_not_repeated():
    schema = {"type": "string", "pattern": "y", "writeOnly": True, "x-hint": "only y"}
    assert refusal(12345, schema, "p").message == "p: must be a string"
    assert refusal("12345", schema, "p").message == "p: what is given is not allowed"
    assert "12345" not in refusal("12345", {"maxLength": 2, "writeOnly": True}, "p").message


def test_defaults_are_filled_in_and_the_value_is_left_alone():
    schema = {"properties": {"a": {"default": 1}, "b": {"properties": {"c": {"default": None}}}}}
    given = {"b": {}}
    assert check(given, schema) == {"b": {"c": None}, "a": 1}
    assert given == {"b": {}}
    assert check({"a": 5}, schema) == {"a": 5}


def test_the_exit_status_is_the_callers():
    with pytest.raises(BotdError) as caught:
        check(1, {"type": "string"}, "x", exit=9)
    assert caught.value.exit == 9
