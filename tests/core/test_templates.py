"""A bot's specification out of its template's release and what is its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract.errors import BotdError
from botd.contract.manifest import DEFAULTS
from botd.core.templates import KEYS, Facts, Place, moved, own_of, resolve

TREE = "/home/templates/m/releases/ab/tree"
PLACE = Place("/home/bots/a/b/app", "/home/bots/a/b/data")


def facts(hash="ab" * 32, **manifest):
    return Facts("m", hash, TREE, {"schema": 1, "command": ["node", "index.js"], **manifest})


words = st.text("abcXYZ09_", min_size=1, max_size=6)
tables = st.dictionaries(words.map(lambda word: f"K{word}"), words, max_size=3)
VALUES = {
    "command": st.lists(words, min_size=1, max_size=3),
    "env": tables,
    "labels": tables,
    "memory_mb": st.integers(1, 512),
    "processes": st.integers(1, 99),
    "cpu": st.sampled_from([0.5, 1.0, 2.0]),
    "restart": st.sampled_from(["always", "on-failure", "never"]),
    "stop_signal": st.sampled_from(["SIGTERM", "SIGINT"]),
    "stop_grace_s": st.integers(0, 60),
    "port": st.booleans(),
    "probe": st.just({"kind": "http", "url": "http://127.0.0.1:80/", "timeout_s": 5, "failures": 3}),
}
settings_of = st.fixed_dictionaries({}, optional=VALUES)


@given(settings_of, settings_of)
def test_own_keys_win_then_the_templates_then_the_defaults(own, template):
    spec = resolve("a/b", own, facts(**template), PLACE)
    wire = spec.to_wire()
    for key in set(KEYS) - {"env", "labels", "probe"}:
        expected = own.get(key, {**DEFAULTS, "command": ["node", "index.js"], **template}.get(key))
        assert wire.get(key) == expected, key
    for table in ("env", "labels"):
        assert wire[table] == {**template.get(table, {}), **own.get(table, {})}
    assert ("probe" in wire) == ("probe" in own or "probe" in template)
    assert (spec.template, spec.release, spec.directory) == ("m", "ab" * 32, PLACE.app)
    assert spec.own == own


@given(settings_of, settings_of, settings_of)
def test_moving_is_resolving_again(own, one, other):
    there = moved(resolve("a/b", own, facts(**one), PLACE, ("S",)), facts("cd" * 32, **other), PLACE)
    assert there == resolve("a/b", own, facts("cd" * 32, **other), PLACE, ("S",))
    assert moved(there, facts(**one), PLACE) == resolve("a/b", own, facts(**one), PLACE, ("S",))


@given(settings_of)
def test_what_is_its_own_is_what_was_given(own):
    given = {"id": "a/b", "template": "m", "enabled": True, "secrets": {"S": "x"}, "env": {}, "labels": {}, **own}
    assert own_of(given) == {key: value for key, value in own.items() if value != {}}


def test_words_in_braces_are_places():
    release = facts(
        command=["{python}", "-u", "{app}/bot.py", "--code={release}"],
        env={"STATE": "{data}/s.db", "NODE": "{node}", "OTHER": "{unknown} {} {{app}}"},
        python={"venv": ".venv"},
    )
    spec = resolve("a/b", {"env": {"MINE": "{data}"}}, release, PLACE)
    assert spec.command == (f"{TREE}/.venv/bin/python", "-u", f"{PLACE.app}/bot.py", f"--code={TREE}")
    assert spec.env == {
        "STATE": f"{PLACE.data}/s.db",
        "NODE": "node",
        "OTHER": f"{{unknown}} {{}} {{{PLACE.app}}}",
        "MINE": PLACE.data,
    }
    assert resolve("a/b", {"command": ["{python}"]}, facts(), PLACE).command == ("python3",)


@pytest.mark.parametrize(
    ("own", "manifest", "told"),
    [
        ({}, {"command": None}, "neither a/b nor its template m says what to run"),
        ({"probe": {"kind": "tcp"}}, {}, "needs the bot's port"),
        ({"port": False}, {"port": True, "probe": {"kind": "tcp"}}, "needs the bot's port"),
    ],
)
def test_what_cannot_be_a_bot_is_refused(own, manifest, told):
    with pytest.raises(BotdError, match=told) as caught:
        resolve("a/b", own, facts(**manifest), PLACE)
    assert caught.value.kind == "invalid" and caught.value.hint


def test_a_probe_of_the_one_and_the_port_of_the_other_make_a_bot():
    assert resolve("a/b", {"port": True}, facts(probe={"kind": "tcp"}), PLACE).wants_port
    assert resolve("a/b", {"probe": {"kind": "tcp"}}, facts(port=True), PLACE).probe is not None
