"""Bytes <-> messages: hostile bytes, limits, and lines however they are cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract import framing
from botd.contract.errors import BotdError
from botd.contract.framing import DEPTH_MAX, LINE_MAX, LineSplitter, LineTooLong, decode, encode

LINES = [b'{"a": 1}', b"[]", "\u00e4\u20ac".encode(), b'""']
STREAM = b"".join(line + b"\n" for line in LINES)


def split(*chunks, limit=LINE_MAX):
    splitter = LineSplitter(limit)
    return [line for chunk in chunks for line in splitter.feed(chunk)], splitter.pending


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_cut_at_any_byte_has_the_same_lines(cut):
    assert split(STREAM[:cut], STREAM[cut:]) == (LINES, 0)


def test_a_stream_that_comes_byte_by_byte_has_the_same_lines():
    assert split(*(bytes([byte]) for byte in STREAM)) == (LINES, 0)


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 200)))
def test_however_it_is_cut_nothing_is_lost_and_nothing_added(lines, cuts):
    stream = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[one:two] for one, two in pairwise(edges)]
    assert split(*chunks) == ([line for line in stream.split(b"\n") if line.strip()], 0)


def test_what_has_begun_and_not_ended_is_pending():
    assert split(b'{"a"') == ([], 4)
    assert split(b"1\n22") == ([b"1"], 2)


def test_empty_lines_are_no_messages():
    assert split(b"\n\r\n  \n1\r\n") == ([b"1\r"], 0)


def test_a_line_of_exactly_the_limit_is_one():
    line = b"x" * LINE_MAX
    assert split(line + b"\n") == ([line], 0)
    assert split(line, b"\n") == ([line], 0)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"x" * (LINE_MAX + 1)],
        [b"x" * (LINE_MAX + 1) + b"\n"],
        [b"x" * LINE_MAX, b"x"],
        [b"1\n" + b"x" * (LINE_MAX + 1)],
    ],
)
def test_a_longer_line_ends_it(chunks):
    with pytest.raises(LineTooLong):
        split(*chunks)


def test_the_lines_before_a_line_that_is_too_long_are_told_first():
    told = []
    with pytest.raises(LineTooLong):
        told += LineSplitter(10).feed(b"1\n")
        splitter = LineSplitter(10)
        for line in splitter.feed(b"22\n" + b"x" * 11):
            told.append(line)
    assert told == [b"1", b"22"]


def test_endless_bytes_are_not_kept():
    splitter = LineSplitter(100)
    with pytest.raises(LineTooLong):
        for _ in range(1000):
            list(splitter.feed(b"x" * 60))
    assert splitter.pending <= 160


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line,reason",
    [
        (b"\xff", "not UTF-8: byte 0 of the line"),
        (b'{"a": "\xc3"}', "not UTF-8: byte 7 of the line"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"1 2", "not JSON: Extra data"),
        (b'"\x01"', "not JSON"),
        (b"\x00", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "number out of range: 1e999"),
        (b"-1e999", "number out of range"),
        (b'{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        (b'[{"x": {"a": 1, "a": 1}}]', "duplicate key 'a'"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
        (b"18446744073709551616", "integer over 64 bits"),
        (b"-9223372036854775809", "integer over 64 bits"),
        (b"9" * 100_000, "integer over 64 bits"),
        (b'"\\ud800"', "a lone surrogate in a string"),
        (b'{"\\udc00": 1}', "a lone surrogate in a string"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64"),
        (b"[" * 500_000, "nested deeper than 64"),
        (b'{"a":' * 200_000, "nested deeper than 64"),
    ],
)
def test_what_is_no_message_is_refused_in_words(line, reason):
    with pytest.raises(BotdError) as caught:
        decode(line)
    assert (caught.value.kind, caught.value.code) == ("invalid", -32700)
    assert caught.value.message.startswith(reason)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "line,value",
    [
        (b"18446744073709551615", (1 << 64) - 1),
        (b"-9223372036854775808", -(1 << 63)),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\u0000"', "\0"),
        (b" [1] ", [1]),
        (b"null", None),
        (b"1e-999", 0.0),
    ],
)
def test_what_is_just_inside_is_accepted(line, value):
    assert decode(line) == value


def test_the_deepest_message_that_is_allowed():
    for leaf in (b"", b"1"):
        deep = b"[" * DEPTH_MAX + leaf + b"]" * DEPTH_MAX
        assert decode(deep) == json.loads(deep)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_every_message_comes_back_from_its_line(value):
    line = encode(value)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line[:-1]) == value


@given(st.binary(max_size=200))
def test_no_bytes_bring_anything_but_a_value_or_a_refusal(line):
    try:
        value = decode(line)
    except BotdError as error:
        assert error.code == -32700
    else:
        assert decode(encode(value)) == value


def test_text_that_is_no_unicode_still_travels():
    assert decode(encode({"name": "caf\udce9"})) == {"name": "caf?"}


def test_the_shapes_of_json_rpc():
    assert decode(framing.request(7, "bots.list", {})) == {
        "jsonrpc": "2.0", "id": 7, "method": "bots.list", "params": {},
    }  # fmt: skip
    assert framing.response(7, [1]) == {"jsonrpc": "2.0", "id": 7, "result": [1]}
    assert framing.notification("progress", {}) == {"jsonrpc": "2.0", "method": "progress", "params": {}}
    failure = framing.failure(None, BotdError("denied", "no", hint="ask"))
    assert failure["id"] is None
    assert failure["error"] == {"code": -32002, "message": "no", "data": {"kind": "denied", "hint": "ask", "exit": 5}}
