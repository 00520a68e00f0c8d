"""One exception for everything that is told to somebody, and its way over the wire and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract.errors import BotdError, invalid, nearest, not_found
from botd.contract.vocabulary import KINDS

DETAILS = st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)
ERRORS = st.builds(
    BotdError,
    st.sampled_from(list(KINDS)),
    st.text(),
    hint=st.text(),
    exit=st.none() | st.integers(0, 255),
    code=st.none() | st.integers(-32099, -32000),
    retry_after_s=st.none() | st.integers(0, 1000) | st.sampled_from([0.5, 1.25]),
    details=st.none() | DETAILS,
)


@given(ERRORS)
def test_an_error_arrives_as_it_left(error):
    arrived = BotdError.from_rpc(json.loads(json.dumps(error.to_rpc())))
    for name in ("kind", "message", "hint", "exit", "code", "retry_after_s", "details"):
        assert getattr(arrived, name) == getattr(error, name)
    assert str(arrived) == error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
FOREIGN = st.fixed_dictionaries(
    {},
    optional={
        "code": JSON,
        "message": JSON,
        "data": JSON
        | st.fixed_dictionaries({}, optional=dict.fromkeys(("kind", "hint", "exit", "retry_after_s", "details"), JSON)),
    },
)


@given(FOREIGN)
def test_whatever_a_foreign_server_says_becomes_an_error(said):
    error = BotdError.from_rpc(said)
    assert error.kind in KINDS
    assert type(error.exit) is int and type(error.code) is int
    assert isinstance(error.message, str) and isinstance(error.hint, str) and isinstance(error.details, dict)
    error.to_rpc()


@pytest.mark.parametrize(
    "kind,code,exit_",
    [
        ("not_found", -32001, 4),
        ("denied", -32002, 5),
        ("limit", -32003, 6),
        ("quota", -32004, 6),
        ("rate_limited", -32005, 6),
        ("conflict", -32006, 1),
        ("invalid", -32007, 2),
        ("timeout", -32008, 124),
        ("unavailable", -32009, 7),
        ("internal", -32010, 1),
    ],
)
def test_the_published_codes_and_statuses_stay(kind, code, exit_):
    error = BotdError(kind, "no")
    assert (error.code, error.exit) == (code, exit_)
    assert len(KINDS) == 10


def test_short_forms():
    error = invalid("bot[2].memory_mb", "must be at least 1", hint="a number of MiB", exit=9)
    assert error.message == "bot[2].memory_mb: must be at least 1"
    assert (error.code, error.exit, error.details) == (-32602, 9, {"path": "bot[2].memory_mb"})
    assert invalid("", "no bot is named").message == "no bot is named"
    assert (not_found("no bot x", hint="h").exit, not_found("no bot x", hint="h").hint) == (4, "h")


def test_the_nearest_word():
    assert nearest("memory", ["memory_mb", "labels"]) == "memory_mb"
    assert nearest("zzz", ["memory_mb", "labels"]) is None
    assert nearest("x", []) is None
