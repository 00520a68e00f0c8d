"""A specification on the wire and back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from botd.contract.manifest import SPEC, expand
from botd.contract.schema import check
from botd.core.bot import Spec, signal_name

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
PROBES = st.one_of(
    st.just({"kind": "http", "url": "http://127.0.0.1:{port}/health", "failures": 2}),
    st.fixed_dictionaries({"kind": st.just("tcp"), "port": st.integers(1, 65535)}),
)
WIRES = st.fixed_dictionaries(
    {"id": st.just("alice/shop"), "command": st.lists(TEXT, min_size=1, max_size=3).map(lambda rest: ["run", *rest])},
    optional={
        "env": st.dictionaries(KEYS, TEXT, max_size=3),
        "labels": st.dictionaries(KEYS, st.sampled_from(["", "free"]), max_size=3),
        "memory_mb": st.integers(1, 1 << 20),
        "restart": st.sampled_from(["always", "on-failure", "never"]),
        "stop_signal": st.sampled_from(["SIGTERM", "SIGINT"]),
        "stop_grace_s": st.integers(0, 3600) | st.floats(0, 3600),
        "port": st.just(True),
        "probe": PROBES,
    },
)


def expanded(bot):
    return expand({"schema": 1, "bot": [bot | ({"port": True} if "probe" in bot else {})]}, "/srv")[0]


@given(WIRES)
def test_a_specification_comes_back_from_the_wire(bot):
    spec = Spec.from_wire(expanded(bot))
    wire = spec.to_wire()
    assert check(wire, SPEC) == wire
    assert Spec.from_wire(wire) == spec


@given(WIRES)
def test_what_is_exported_is_what_was_given(bot):
    given_ = expanded(bot)
    wire = Spec.from_wire(given_).to_wire()
    assert wire == {key: value for key, value in given_.items() if key in wire}
    assert set(given_) - set(wire) <= {"enabled", "secrets"}


def test_secrets_are_known_by_their_names_alone():
    spec = Spec.from_wire(
        {"id": "alice/shop", "command": ["x"], "directory": "/", "secrets": {"TOKEN": "hunter2", "APPSTATE": "{}"}}
    )
    assert spec.secret_names == ("APPSTATE", "TOKEN")
    assert "hunter2" not in repr(spec)
    assert "secrets" not in spec.to_wire()


def test_a_bot_has_a_user_and_a_name():
    spec = Spec("alice/shop", ("x",), "/")
    assert (spec.user, spec.name) == ("alice", "shop")
    assert replace(spec, id="bob/a.b-c").name == "a.b-c"


def test_signals_are_told_by_name():
    assert (signal_name(9), signal_name(200)) == ("SIGKILL", "signal 200")
