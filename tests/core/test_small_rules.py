"""The small pure rules: batches, the environment, and how things are said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract.vocabulary import PHASES
from botd.core import bulk, environment, explain
from botd.core.bot import Spec
from botd.core.settings import Limits
from botd.core.words import spoken

from .dialogue import Dialogue
from .test_lifecycle import in_phase

SPEC = Spec("alice/shop", ("run",), "/srv")


# --- bulk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch,sizes", [(None, [25]), ("10", [10, 10, 5]), ("100", [25]), ("10%", [2] * 12 + [1]), ("1%", [1] * 25)]
)
def test_batches(batch, sizes):
    assert [len(part) for part in bulk.batches(list(range(25)), batch)] == sizes


@given(st.lists(st.text(max_size=2)), st.sampled_from([None, "1", "3", "7%", "50%", "100%"]))
def test_batches_lose_nobody_and_keep_the_order(ids, batch):
    parts = list(bulk.batches(ids, batch))
    assert [bot_id for part in parts for bot_id in part] == ids
    assert all(parts)


@pytest.mark.parametrize(
    "failures,most,stop,goes_on",
    [
        (0, None, True, True),
        (1, None, True, False),
        (9, None, False, True),
        (2, 2, False, True),
        (3, 2, False, False),
        (0, 0, False, True),
        (1, 0, False, False),
        (1, 5, True, False),
    ],
)
def test_when_a_bulk_stops(failures, most, stop, goes_on):
    assert bulk.may_go_on(failures, max_failures=most, stop_on_error=stop) == goes_on


# --- environment ----------------------------------------------------------------------------------


def build(spec=SPEC, daemon=None, secrets=None, port=None):
    return environment.build(spec, daemon=daemon or {}, secrets=secrets or {}, data="/d", port=port)


def test_the_daemons_environment_is_not_inherited():
    daemon = {
        "PATH": "/bin",
        "LANG": "C",
        "HOME": "/root",
        "AWS_SECRET_ACCESS_KEY": "x",
        "BOTD_HOME": "/f",
        "PORT": "1",
    }
    assert build(daemon=daemon) == {
        "PATH": "/bin",
        "LANG": "C",
        "HOME": "/d",
        "BOT_ID": "alice/shop",
        "BOT_USER": "alice",
        "BOT_NAME": "shop",
        "BOT_DATA": "/d",
    }


def test_a_bot_always_has_a_path():
    assert build()["PATH"] == environment.DEFAULT_PATH


def test_what_a_bot_is_and_has_is_not_for_it_to_say():
    spec = Spec(
        "alice/shop", ("run",), "/", env={"PATH": "/mine", "HOME": "/h", "BOT_ID": "bob/x", "PORT": "1", "A": "1"}
    )
    env = build(spec, daemon={"PATH": "/bin"}, secrets={"A": "2", "BOT_DATA": "/etc"}, port=21000)
    assert (env["PATH"], env["HOME"], env["A"]) == ("/mine", "/h", "2")
    assert (env["BOT_ID"], env["BOT_DATA"], env["PORT"]) == ("alice/shop", "/d", "21000")


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds,said",
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.25, "250 ms"),
        (1, "1.0 s"),
        (119.9, "119.9 s"),
        (120, "2 min 0 s"),
        (250, "4 min 10 s"),
        (3 * 3600 + 12 * 60, "3 h 12 min"),
        (47 * 3600, "47 h 0 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_durations_as_people_say_them(seconds, said):
    assert spoken(seconds) == said


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_is_explained_in_a_sentence(phase):
    d = in_phase(phase)
    said = explain.verdict(SPEC, d.state, d.now + 1.0)
    assert said.startswith("alice/shop ") and said.endswith(".")
    assert (d.state.reason in said) or phase in ("running", "starting")
    assert all("botctl" in line for line in explain.advice(SPEC, d.state, Limits()))


def test_explanations_name_the_wait_the_row_and_the_remedy():
    d = Dialogue().come_up().crash()
    assert explain.verdict(SPEC, d.state, d.now + 0.25) == (
        "alice/shop is down and will be tried again in 750 ms: exited with code 1; restart 1 of 3."
    )
    d.retry()
    said = explain.verdict(SPEC, d.state, d.now + 5.0)
    assert all(part in said for part in ("5.0 s", "1 restart in a row", "exited with code 1"))
    failed = in_phase("failed")
    assert any("botctl recover alice/shop" in line for line in explain.advice(SPEC, failed.state, Limits()))
    assert explain.advice(SPEC, in_phase("starting").state, Limits()) == []
