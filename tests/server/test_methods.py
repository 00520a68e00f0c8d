"""Every method as rpc.discover describes it; repeating a request; waiting; the event stream."""

from __future__ import annotations

import re

import pytest
from fleet_house import ALL, ids, until

from botd.contract.errors import BotdError
from botd.contract.methods import METHODS
from botd.contract.schema import check

KEYWORDS = {
    "type", "enum", "properties", "required", "additionalProperties", "propertyNames", "items", "minItems", "maxItems",
    "maxProperties", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "default",
    "description", "x-hint", "writeOnly",
}  # fmt: skip
TYPES = {"object", "array", "string", "boolean", "integer", "number", "null"}

MINIMAL = {
    "bots.create": {"spec": {"id": "min/new", "command": ["/bin/true"]}},
    "bots.start": {"select": ids("min/a"), "wait": False},
    "bots.stop": {"select": ids("min/a")},
    "bots.restart": {"select": ids("min/a"), "wait": False},
    "bots.delete": {"select": ids("min/a")},
    "bots.bulk": {"op": "stop", "select": ids("min/a")},
    "bots.status": {"select": ids("min/a")},
    "bots.explain": {"id": "min/a"},
    "bots.logs": {"select": ids("min/a")},
    "bots.wait": {"select": ids("min/a"), "for": "stopped"},
    "fleet.diff": {"source": "s", "bots": []},
    "fleet.apply": {"source": "s", "bots": []},
}
ENDS_THE_DAEMON = "daemon.shutdown"


def minimal(fleet, name, folder):
    """The least call of a method; of those about templates, with a template of two releases."""
    if name == "bots.undelete":
        fleet.rpc("trash.empty")
        fleet.rpc("bots.delete", select=ids("min/a"))
        return {"id": "min/a"}
    if not name.startswith("templates."):
        return MINIMAL.get(name, {})
    for word in ("one", "two"):
        (folder / "bot.py").write_text(f"print({word!r})\n")
        if name != "templates.add":
            fleet.rpc("templates.update", name="min", path=str(folder), create=True)
        if name == "templates.abort" and word == "one":
            for bot_id in ("min/b", "min/c"):
                fleet.rpc("bots.create", spec={"id": bot_id, "template": "min"})
    if name == "templates.abort":
        fleet.rpc("templates.roll", name="min", pause_s=3600)
    if name in ("templates.add", "templates.update"):
        return {"name": "added" if name == "templates.add" else "min", "path": str(folder)}
    return {} if name == "templates.list" else {"name": "min"}


def schemas(schema):
    """A schema and every schema inside it."""
    yield schema
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key])
    for inner in schema.get("properties", {}).values():
        yield from schemas(inner)


def test_discover_lists_exactly_the_methods_of_the_contract(fleet):
    found = fleet.rpc("rpc.discover")["methods"]
    assert {method["name"] for method in found} == set(METHODS)
    for method in found:
        ours = METHODS[method["name"]]
        assert method["params"] == ours.params
        assert method["result"] == ours.result
        assert method["summary"]
        assert method["x-who"] in ("admin", "user", "viewer", "anyone")
        assert ("request_id" in method["params"]["properties"]) == method["x-mutates"]


def test_every_schema_uses_only_words_that_the_checker_enforces(fleet):
    for method in fleet.rpc("rpc.discover")["methods"]:
        for schema in (*schemas(method["params"]), *schemas(method["result"])):
            assert set(schema) <= KEYWORDS, (method["name"], set(schema) - KEYWORDS)
            kinds = schema.get("type", [])
            assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES
            assert set(schema.get("required", ())) <= set(schema.get("properties", ()))
            if "pattern" in schema:
                re.compile(schema["pattern"])
            if "default" in schema:
                check(schema["default"], schema)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {ENDS_THE_DAEMON}))
def test_every_method_answers_its_least_call_as_its_schema_says(fleet, name, tmp_path):
    fleet.create("min/a", "sleep", start=False)
    result = fleet.rpc(name, **minimal(fleet, name, tmp_path))
    check(result, METHODS[name].result, "result")
    if name not in ("daemon.ping", "config.reload"):
        assert result["schema"] == 1
    if METHODS[name].required if hasattr(METHODS[name], "required") else METHODS[name].params["required"]:
        error = fleet.refused(name)
        assert error.code == -32602


def test_shutdown_answers_before_it_ends(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/a", "sleep")
    assert fleet.down()["bots_left"] == 1


# --- request_id -----------------------------------------------------------------------------------------


def test_the_same_request_id_does_nothing_twice(fleet):
    fleet.create("alice/a", "sleep")
    first = fleet.rpc("bots.restart", select=ids("alice/a"), request_id="r-1")
    pid = fleet.pids()["alice/a"]
    again = fleet.rpc("bots.restart", select=ids("alice/a"), request_id="r-1")
    assert again == first
    assert fleet.pids()["alice/a"] == pid
    other = fleet.rpc("bots.restart", select=ids("alice/a"), request_id="r-2")
    assert other["items"][0]["pid"] != pid
    # The id belongs to its method: another verb with the same id is another request.
    assert fleet.rpc("bots.stop", select=ids("alice/a"), request_id="r-1")["items"][0]["result"] == "stopped"


def test_a_refusal_is_repeated_as_it_was(fleet):
    fleet.create("alice/a", "sleep", start=False)
    spec = {"id": "alice/a", "command": ["/bin/true"]}
    first = fleet.refused("bots.create", spec=spec, request_id="refused-1")
    fleet.rpc("bots.delete", select=ids("alice/a"))
    again = fleet.refused("bots.create", spec=spec, request_id="refused-1")
    assert again.to_rpc() == first.to_rpc()
    assert fleet.bots() == {}


def test_the_same_request_id_at_the_same_time_is_one_request(fleet):
    fleet.create("alice/a", "sleep")
    with fleet.connect() as one, fleet.connect() as two:
        call = (
            b'{"jsonrpc":"2.0","id":1,"method":"bots.restart","params":{"select":{"all":true},"request_id":"same"}}\n'
        )
        one.send(call)
        two.send(call)
        answers = one.line()["result"], two.line()["result"]
    assert answers[0] == answers[1]
    assert fleet.bot("alice/a")["generation"] == 2


def test_who_hangs_up_and_asks_again_gets_the_first_answer(fleet):
    fleet.create("alice/a", "term-after 0.3")
    before = fleet.pids()["alice/a"]
    call = b'{"jsonrpc":"2.0","id":1,"method":"bots.restart","params":{"select":{"all":true},"request_id":"dropped"}}\n'
    with fleet.connect() as wire:
        wire.send(call)
        fleet.until_phase("alice/a", "stopping")
    result = fleet.rpc("bots.restart", select=ALL, request_id="dropped")
    assert result["items"][0]["result"] == "restarted"
    assert result["items"][0]["pid"] not in (None, before)
    assert fleet.bot("alice/a")["generation"] == 2


def test_a_second_asker_is_answered_when_the_first_hangs_up(fleet):
    fleet.create("alice/a", "term-after 0.5")
    call = b'{"jsonrpc":"2.0","id":1,"method":"bots.restart","params":{"select":{"all":true},"request_id":"shared"}}\n'
    one, two = fleet.connect(), fleet.connect()
    with two:
        one.send(call)
        fleet.until_phase("alice/a", "stopping")
        two.send(call)
        one.close()
        assert two.line()["result"]["items"][0]["result"] == "restarted"


def test_a_request_id_outlives_kill_nine(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/a", "sleep")
    first = fleet.rpc("bots.restart", select=ALL, request_id="kept")
    pid = fleet.pids()["alice/a"]
    fleet.kill_daemon()
    assert fleet.persist("bots.restart", select=ALL, request_id="kept") == first
    assert fleet.pids()["alice/a"] == pid


def test_a_request_that_died_with_botd_says_so_and_is_not_done_again(make_fleet):
    fleet = make_fleet().up()
    fleet.create("alice/a", "term-after 1")
    call = b'{"jsonrpc":"2.0","id":1,"method":"bots.restart","params":{"select":{"all":true},"request_id":"cut"}}\n'
    pid = fleet.daemon_pid
    with fleet.connect() as wire:
        wire.send(call)
        fleet.until_phase("alice/a", "stopping")
        fleet.hang_up()
        from fleet_house import kill

        kill(pid)
    fleet.until_bot("alice/a", lambda bot: bot["generation"] == 2 and bot["phase"] == "running")
    error = fleet.refused("bots.restart", select=ALL, request_id="cut")
    assert error.kind == "conflict"
    assert "new request_id" in error.hint
    assert fleet.bot("alice/a")["generation"] == 2


# --- waiting --------------------------------------------------------------------------------------------


def test_wait_tells_each_bot_as_it_settles_and_times_out_with_124(fleet):
    fleet.create("alice/up", "sleep")
    fleet.create("alice/down", "sleep", start=False)
    result = fleet.rpc("bots.wait", select=ALL, timeout_s=0.05, **{"for": "running"})
    verdicts = {item["id"]: item for item in result["items"]}
    assert verdicts["alice/up"]["ok"]
    assert verdicts["alice/down"]["error"]["exit"] == 124
    assert verdicts["alice/down"]["error"]["kind"] == "timeout"
    assert fleet.bot("alice/down")["desired"] == "stopped"  # waiting asks for nothing


def test_wait_ends_early_on_a_certain_failure(fleet):
    fleet.create("alice/bad", ["/no/such/program"], wait=False)
    [item] = fleet.rpc("bots.wait", select=ALL, timeout_s=60, **{"for": "running"})["items"]
    assert not item["ok"]
    assert "/no/such/program" in item["reason"]


def test_wait_for_a_bot_that_is_deleted_meanwhile(fleet):
    fleet.create("alice/a", "sleep", start=False)
    with fleet.connect() as wire:
        wire.send(
            b'{"jsonrpc":"2.0","id":1,"method":"bots.wait","params":{"select":{"all":true},"for":"running","timeout_s":60}}\n'
            b'{"jsonrpc":"2.0","id":2,"method":"daemon.ping"}\n'
        )
        assert wire.line()["id"] == 2
        fleet.rpc("bots.delete", select=ALL)
        [item] = wire.line()["result"]["items"]
    assert (item["result"], item["phase"], item["error"]["kind"]) == ("gone", None, "not_found")


def test_healthy_needs_the_probe_to_say_so(fleet):
    probe = {"kind": "http", "url": "http://127.0.0.1:{port}/", "interval_s": 0.1, "timeout_s": 1, "failures": 1}
    fleet.create("alice/web", "until serve-now + serve", port=True, probe={**probe, "start_grace_s": 60}, wait=False)
    [item] = fleet.rpc("bots.wait", select=ALL, timeout_s=0.3, **{"for": "healthy"})["items"]
    assert item["error"]["exit"] == 124
    fleet.touch("alice/web", "serve-now")
    assert fleet.wait("healthy")["items"][0]["ok"]
    fleet.data("alice/web", "health").write_text("unhealthy")
    fleet.until_bot(
        "alice/web", lambda bot: bot["health"] == "unhealthy" or bot["generation"] > 1, "the probe's verdict"
    )


# --- events ---------------------------------------------------------------------------------------------


def test_subscribers_see_what_they_chose_and_bots_made_later(fleet):
    with fleet.connect() as everything, fleet.connect() as chosen:
        number = everything.rpc("events.subscribe")["subscription"]
        chosen.rpc("events.subscribe", select={"any": [{"user": "bob"}]})
        fleet.create("alice/a", "sleep", start=False)
        fleet.create("bob/b", "sleep", start=False)
        seen = [everything.notice(), everything.notice()]
        assert [one["params"]["event"]["id"] for one in seen] == ["alice/a", "bob/b"]
        assert {one["params"]["subscription"] for one in seen} == {number}
        assert {one["method"] for one in seen} == {"events.event"}
        assert chosen.notice()["params"]["event"]["id"] == "bob/b"
        assert everything.rpc("daemon.ping")  # calls go on beside the stream
    seqs = [event["seq"] for event in fleet.events()]
    assert seqs == sorted(set(seqs))


def test_the_past_can_come_first(fleet):
    fleet.create("alice/a", "sleep", start=False)
    with fleet.connect() as wire:
        past = wire.rpc("events.subscribe", lines=1)["items"]
        assert past[-1]["kind"] == "created"
        after = wire.rpc("events.list", after=past[-1]["seq"])["items"]
        assert after == []


def test_a_subscriber_that_does_not_read_is_told_how_much_it_missed(make_fleet):
    """Its daemon holds no more than a bounded amount for it, and nobody else notices."""
    fleet = make_fleet().up()
    bots = [{"id": f"u{i % 4}/n{i:03}", "command": ["/bin/sleep", "600"], "enabled": False} for i in range(180)]
    fleet.rpc("fleet.apply", source="s", bots=bots)
    with fleet.connect() as deaf, fleet.connect() as busy:
        deaf.rpc("events.subscribe")
        before = fleet.rpc("system.status")["daemon"]["memory_bytes"]
        rounds = 0
        first = fleet.events()[-1]["seq"]
        # A change of labels is an event for each bot and starts nothing.
        while rounds * len(bots) < 9_000:
            busy.rpc("fleet.apply", source="s", bots=[{**bot, "labels": {"round": str(rounds)}} for bot in bots])
            rounds += 1
        last = fleet.events()[-1]["seq"]
        assert fleet.rpc("system.status")["daemon"]["memory_bytes"] - before < 32 << 20
        seen, missed, newest = 0, 0, first
        while newest < last:
            notice = deaf.notice()
            if notice["method"] == "events.missed":
                missed += notice["params"]["missed"]
                newest += notice["params"]["missed"]
            else:
                seen += 1
                assert notice["params"]["event"]["seq"] > newest or not missed
                newest = max(newest, notice["params"]["event"]["seq"])
            if seen + missed < last - first and newest < last and not _more(deaf):
                # It is told of what it missed with the next event that it can be told of.
                fleet.rpc("bots.create", spec={"id": f"bob/tick{rounds}", "command": ["/bin/true"]})
                rounds += 1
        assert missed > 0
        assert seen + missed >= last - first
    assert fleet.rpc("daemon.ping")


def _more(wire):
    import select

    return b"\n" in wire._buffer or bool(select.select([wire.sock], [], [], 0.2)[0])


def test_a_subscription_ends_with_its_connection(fleet):
    for _ in range(50):
        with fleet.connect() as wire:
            wire.rpc("events.subscribe")
    fleet.create("alice/a", "sleep", start=False)
    assert "Traceback" not in fleet.daemon_log()
    with pytest.raises(BotdError):
        fleet.rpc("events.subscribe", lines=-1)
    assert until(lambda: fleet.rpc("daemon.ping"), "an answer")
