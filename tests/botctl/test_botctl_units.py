"""The small things everything stands on: sizes, durations, times, cells, JSON without `json`."""

import calendar
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botctl import wire
from botctl.moments import moment
from botctl.render import units
from botctl.render.command_line import command_line
from botctl.render.terminal import clean, clean_colored, cut, width_of
from botd.contract.errors import BotdError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_wire_says_what_json_says(value):
    text = wire.encode(value)
    assert "\n" not in text
    assert wire.decode(text) == json.loads(text) == value
    assert wire.decode(f" {json.dumps(value)}\r\n") == value


@pytest.mark.parametrize("text", ["", " ", "{", "[1] 2", "nul", "'a'", '{"a":}', '"\x01"'])
def test_wire_refuses_what_is_not_json(text):
    with pytest.raises(ValueError):
        wire.decode(text)


def test_wire_writes_only_json():
    for value in (float("nan"), {1, 2}, object()):
        with pytest.raises((ValueError, TypeError)):
            wire.encode(value)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1K"),
        (12_595, "12.3K"),
        (1024 * 1024 - 1, "1.0M"),
        (256 << 20, "256M"),
        (1_610_612_736, "1.5G"),
        (-2048, "-2K"),
        (None, "-"),
        (True, "-"),
        ("12", "-"),
        (float("nan"), "-"),
    ],
)
def test_size(count, shown):
    assert units.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0ms"),
        (0.0004, "0.4ms"),
        (0.34, "340ms"),
        (0.9999, "1s"),
        (4.24, "4.2s"),
        (9.97, "10s"),
        (59.4, "59s"),
        (59.9, "1m00s"),
        (192, "3m12s"),
        (18180, "5h03m"),
        (172_799, "47h59m"),
        (1_051_200, "12d4h"),
        (-5, "0s"),
        (None, "-"),
    ],
)
def test_duration(seconds, shown):
    assert units.duration(seconds) == shown


@given(st.integers(0, 4_102_444_800))
def test_epoch_agrees_with_the_library(seconds):
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    assert units.epoch(f"{text}Z") == calendar.timegm(time.gmtime(seconds))
    assert units.epoch(f"{text}.25Z") == seconds + 0.25


@pytest.mark.parametrize("text", [None, 5, "", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "x" * 30 + "Z"])
def test_what_is_no_time_is_none(text):
    assert units.epoch(text) is None
    assert units.local(text) == "-"


NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("30s", NOW - 30), ("1h30m", NOW - 5400), ("1.5h", NOW - 5400), ("2d", NOW - 172_800), ("@12.5", 12.5)],
)
def test_moments(text, wanted):
    assert moment(text, "--since", NOW) == wanted


def test_moments_of_the_calendar():
    assert moment("2026-01-02T03:04:05Z", "--since", NOW) == units.epoch("2026-01-02T03:04:05Z")
    assert moment("2026-01-02 03:04", "--since", NOW) == time.mktime((2026, 1, 2, 3, 4, 0, 0, 0, -1))


@pytest.mark.parametrize("text", ["", "1", "h", "1x", "1..5h", ".h", "@", "@nan", "@-1", "2026-13-01", "-1h", "٣s"])
def test_moments_that_are_none(text):
    with pytest.raises(BotdError) as caught:
        moment(text, "--since", NOW)
    assert caught.value.exit == 2
    assert "--since" in caught.value.message


@given(st.text())
def test_nothing_clean_can_move_a_cursor(text):
    for cleaned in (clean(text), clean_colored(text, color=False)):
        assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in cleaned)
        assert not set(cleaned) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2028")


@given(st.lists(st.sampled_from(["\x1b[", "31m", "0;1m", "2J", "m", "\x1b", "]0;t\x07", "text", ";", "9" * 5])))
def test_only_colours_survive_where_colours_are_shown(parts):
    shown = clean_colored("".join(parts), color=True)
    for sequence in shown.split("\x1b")[1:]:
        body = sequence.removeprefix("[")
        assert body != sequence
        assert body.lstrip("0123456789;").startswith("m")


@given(st.text(), st.integers(1, 30))
def test_cut_fits(text, width):
    assert width_of(cut(clean(text), width, "…")) <= width


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("●", 1)])
def test_width(text, width):
    assert width_of(text) == width


@given(st.lists(st.text()))
def test_a_command_line_means_the_same_words(words):
    import shlex

    assert shlex.split(command_line(words)) == words
