"""fleet.toml: from a manifest to specifications, every refusal with its path."""

import copy
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract import manifest
from botd.contract.errors import BotdError
from botd.contract.manifest import SPEC, TOTAL_MAX, expand
from botd.contract.schema import check

BOT = {"id": "alice/shop", "command": ["python3", "bot.py"]}


def fleet(*bots, **more):
    return {"schema": 1, "bot": list(bots), **more}


def refusal(document):
    with pytest.raises(BotdError) as caught:
        expand(document, "/srv/fleet")
    assert (caught.value.kind, caught.value.exit) == ("invalid", 9)
    return caught.value


def test_a_whole_manifest():
    document = tomllib.loads("""
        schema = 1
        [defaults]
        restart = "on-failure"
        labels = { tier = "free", lang = "en" }
        env = { PREFIX = "!" }

        [[bot]]
        id = "alice/shop"
        command = ["python3", "bot.py"]
        directory = "./shop/../shop"
        labels = { tier = "paid" }
        secrets = { APPSTATE = { file = "secrets/appstate.json" } }
        memory_mb = 256
        port = true
        [bot.probe]
        kind = "http"
        url = "http://127.0.0.1:{port}/health"

        [[bot]]
        id = "bob/news"
        command = ["/bin/news"]
        restart = "never"
        enabled = false
    """)
    before = copy.deepcopy(document)
    shop, news = expand(document, "/srv/fleet")
    assert document == before
    assert shop == {
        "id": "alice/shop",
        "command": ["python3", "bot.py"],
        "directory": "/srv/fleet/shop",
        "env": {"PREFIX": "!"},
        "labels": {"tier": "paid", "lang": "en"},
        "secrets": {"APPSTATE": {"file": "/srv/fleet/secrets/appstate.json"}},
        "memory_mb": 256,
        "restart": "on-failure",
        "stop_signal": "SIGTERM",
        "stop_grace_s": 10,
        "port": True,
        "enabled": True,
        "probe": {
            "kind": "http",
            "url": "http://127.0.0.1:{port}/health",
            "timeout_s": 5,
            "failures": 3,
            "start_grace_s": 20,
        },
    }
    assert (news["restart"], news["enabled"], news["directory"]) == ("never", False, "/srv/fleet")


def test_bots_do_not_share_what_they_were_given_as_defaults():
    one, two = expand(
        fleet(BOT, BOT | {"id": "alice/two"}, defaults={"env": {"A": "1"}, "secrets": {"S": {"file": "s"}}}), "/f"
    )
    one["env"]["A"] = "changed"
    one["secrets"]["S"]["file"] = "changed"
    assert (two["env"]["A"], two["secrets"]["S"]["file"]) == ("1", "/f/s")
    assert expand(fleet(BOT), "/f")[0]["env"] == {}


def test_folders_are_meant_from_the_manifest(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    for given_, meant in ((".", "/f"), ("x", "/f/x"), ("../x", "/x"), ("/abs", "/abs"), ("~/x", "/home/alice/x")):
        assert expand(fleet(BOT | {"directory": given_}), "/f")[0]["directory"] == meant


def test_an_empty_fleet_is_one():
    assert expand({"schema": 1}, "/f") == []


def probed(**probe):
    return BOT | {"probe": probe}


@pytest.mark.parametrize(
    "document,path,reason",
    [
        ([], "", "must be an object, not a list"),
        ({}, "schema", "is required"),
        ({"schema": 2}, "schema", "must be one of 1, not 2"),
        ({"schema": True}, "schema", "must be a whole number, not true"),
        ({"schema": "1"}, "schema", "must be a whole number"),
        (fleet(bots=[]), "bots", "unknown key"),
        ({"schema": 1, "bot": {}}, "bot", "must be a list, not an object"),
        (fleet({}), "bot[0].id", "is required"),
        (fleet(BOT, BOT), "bot[1].id", "alice/shop stands already at bot[0]"),
        (fleet(BOT | {"id": "shop"}), "bot[0].id", "'shop' is not allowed"),
        (fleet(BOT | {"id": "Alice/shop"}), "bot[0].id", "'Alice/shop' is not allowed"),
        (fleet(BOT | {"id": "alice/shop\n"}), "bot[0].id", "is not allowed"),
        (fleet(BOT | {"id": "../etc"}), "bot[0].id", "is not allowed"),
        (fleet({"id": "alice/shop"}), "bot[0].command", "is required"),
        (fleet(BOT | {"command": "python3 bot.py"}), "bot[0].command", "must be a list, not 'python3 bot.py'"),
        (fleet(BOT | {"command": []}), "bot[0].command", "must not be empty"),
        (fleet(BOT | {"command": [""]}), "bot[0].command[0]", "the program has no name"),
        (fleet(BOT | {"command": ["a", 1]}), "bot[0].command[1]", "must be a string, not 1"),
        (fleet(BOT | {"command": ["a\0b"]}), "bot[0].command[0]", "is not allowed"),
        (fleet(BOT | {"command": ["x"] * 1001}), "bot[0].command", "1001 entries, at most 1000"),
        (fleet(BOT | {"command": ["x" * 131_001]}), "bot[0].command[0]", "131001 characters, at most 131000"),
        (fleet(BOT | {"directory": "a\0"}), "bot[0].directory", "is not allowed"),
        (fleet(BOT | {"env": {"A": 1}}), "bot[0].env.A", "must be a string"),
        (fleet(BOT | {"env": {"1A": "x"}}), "bot[0].env.1A", "is not allowed"),
        (fleet(BOT | {"env": {"A=B": "x"}}), "bot[0].env.A=B", "is not allowed"),
        (fleet(BOT | {"env": ["A=1"]}), "bot[0].env", "must be an object"),
        (fleet(BOT | {"labels": {"a": "x,y"}}), "bot[0].labels.a", "is not allowed"),
        (fleet(BOT | {"labels": {"-a": "x"}}), "bot[0].labels.-a", "is not allowed"),
        (fleet(BOT | {"memory_mb": 0}), "bot[0].memory_mb", "must be at least 1, not 0"),
        (fleet(BOT | {"memory_mb": 1 << 40}), "bot[0].memory_mb", "must be at most 1048576"),
        (fleet(BOT | {"memory_mb": "256"}), "bot[0].memory_mb", "must be a whole number"),
        (fleet(BOT | {"memory": 256}), "bot[0].memory", "unknown key"),
        (fleet(BOT | {"restart": "allways"}), "bot[0].restart", "must be one of always, on-failure, never"),
        (fleet(BOT | {"stop_signal": "SIGKILL"}), "bot[0].stop_signal", "must be one of SIGTERM"),
        (fleet(BOT | {"stop_grace_s": -1}), "bot[0].stop_grace_s", "must be at least 0"),
        (fleet(BOT | {"stop_grace_s": float("nan")}), "bot[0].stop_grace_s", "is not a number"),
        (fleet(BOT | {"stop_grace_s": float("inf")}), "bot[0].stop_grace_s", "must be at most 3600"),
        (fleet(BOT | {"port": 8080}), "bot[0].port", "must be true or false, not 8080"),
        (fleet(BOT | {"enabled": "yes"}), "bot[0].enabled", "must be true or false"),
        (fleet(BOT | {"secrets": {"T": "hunter2"}}), "bot[0].secrets.T", "must be an object"),
        (fleet(BOT | {"secrets": {"T": {}}}), "bot[0].secrets.T.file", "is required"),
        (fleet(BOT | {"secrets": {"T": {"file": "x", "mode": 1}}}), "bot[0].secrets.T.mode", "unknown key"),
        (fleet(probed()), "bot[0].probe.kind", "is required"),
        (fleet(probed(kind="httpx")), "bot[0].probe.kind", "must be one of http, tcp"),
        (fleet(probed(kind="http")), "bot[0].probe.url", "is required for kind http"),
        (fleet(probed(kind="http", url="http://example.com/")), "bot[0].probe.url", "is not allowed"),
        (fleet(probed(kind="http", url="http://127.0.0.1.evil/")), "bot[0].probe.url", "is not allowed"),
        (fleet(probed(kind="http", url="http://127.0.0.1@evil/")), "bot[0].probe.url", "is not allowed"),
        (fleet(probed(kind="http", url="http://127.0.0.1/a b")), "bot[0].probe.url", "is not allowed"),
        (fleet(probed(kind="http", url="http://127.0.0.1:{port}/")), "bot[0].probe", "needs the bot's port"),
        (fleet(probed(kind="tcp")), "bot[0].probe", "needs the bot's port"),
        (fleet(probed(kind="tcp", port=70000)), "bot[0].probe.port", "must be at most 65535"),
        (fleet(probed(kind="tcp", port=80, interval_s=0)), "bot[0].probe.interval_s", "must be at least 0.1"),
        (fleet(BOT, defaults={"id": "a/b"}), "defaults.id", "unknown key"),
        (fleet(BOT, defaults={"restart": 1}), "defaults.restart", "must be a string"),
        (fleet(BOT, template=[{"name": "m"}]), "template[0].path", "is required"),
        (fleet(BOT, template=[{"name": "No", "path": "."}]), "template[0].name", "is not allowed"),
        (fleet(BOT, template=[{"name": "m", "path": ".", "color": 1}]), "template[0].color", "unknown key"),
        (fleet(BOT | {"command": ["x" * 100_000] * 11}), "bot[0].env", "arguments, environment and secrets are"),
    ],
)
def test_every_mistake_is_told_with_its_path(document, path, reason):
    error = refusal(document)
    assert error.details["path"] == path
    assert reason in error.message
    assert error.message.startswith(f"{path}: " if path else "must")
    assert "hunter2" not in error.message


@pytest.mark.parametrize(
    "more",
    [
        {"env": {"A": 12345678}},
        {"env": {"A": "12345678\0"}},
        {"env": "12345678"},
        {"env": ["12345678"]},
        {"secrets": {"T": "12345678"}},
        {"secrets": "12345678"},
    ],
)
def test_a_value_that_may_be_a_secret_is_not_repeated_in_its_refusal(more):
    error = refusal(fleet(BOT | more))
    assert "12345678" not in str(error.to_rpc())


def test_hints_say_what_to_write():
    assert refusal(fleet(BOT | {"memory": 1})).hint == "did you mean memory_mb?"
    assert '["python3", "bot.py"]' in refusal(fleet(BOT | {"command": "x"})).hint
    assert "user/name" in refusal(fleet(BOT | {"id": "x"})).hint
    assert "file = " in refusal(fleet(BOT | {"secrets": {"T": "x"}})).hint
    assert refusal(fleet(probed(kind="tcp"))).hint == "add port = true"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/health", "http://localhost:80", "http://[::1]:8080/x?y=1", "http://127.0.0.1/"],
)
def test_a_loopback_url_is_accepted(url):
    bot = BOT | {"probe": {"kind": "http", "url": url}, "port": True}
    assert expand(fleet(bot), "/f")[0]["probe"]["url"] == url


def test_all_strings_together_are_measured_in_bytes():
    fits = BOT | {"env": {f"V{n}": "\u20ac" * 40_000 for n in range(8)}}
    assert expand(fleet(fits), "/f")
    error = refusal(fleet(BOT | {"env": {f"V{n}": "\u20ac" * 40_000 for n in range(9)}}))
    assert f"at most {TOTAL_MAX}" in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*SPEC["properties"], "kind", "file", "x"]), inner, max_size=4)
    ),
)


@given(JSON, st.sampled_from(sorted(manifest.MANIFEST["properties"])))
def test_no_document_brings_anything_but_bots_or_a_refusal(value, key):
    for document in (value, {"schema": 1, key: value}, {"schema": 1, key: [value]}, fleet(BOT, **{key: value})):
        try:
            bots = expand(document, "/f")
        except BotdError as error:
            assert error.exit == 9
        else:
            assert all(bot["id"] and bot["command"] for bot in bots if "template" not in bot)


def test_what_is_expanded_is_accepted_on_arrival():
    bot = expand(fleet(BOT | {"secrets": {"T": {"file": "t"}}}), "/f")[0]
    bot["secrets"] = {"T": "its contents"}
    assert check(bot, SPEC) == bot
