"""The table of methods: every row is well formed, and what the contract names is there."""

import json
import re

import pytest

from botd.contract.errors import BotdError
from botd.contract.methods import METHODS, NOTIFICATIONS
from botd.contract.schema import check

TYPES = {"object", "array", "string", "boolean", "integer", "number", "null"}
KNOWN = {
    "type", "enum", "properties", "required", "additionalProperties", "propertyNames", "items", "minItems",
    "maxItems", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern",
    "default", "description", "x-hint", "writeOnly",
}  # fmt: skip


def schemas(schema):
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from schemas(inner)
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_well_formed(method):
    assert re.fullmatch(r"[a-z]+\.[a-z]+", method.name)
    assert method.summary and method.summary[0].islower() and not method.summary.endswith(".")
    assert method.who in ("admin", "user", "viewer", "anyone")
    assert method.params["additionalProperties"] is False
    assert set(method.params["required"]) <= set(method.params["properties"])
    json.dumps([method.params, method.result])
    for schema in (*schemas(method.params), *schemas(method.result)):
        assert set(schema) <= KNOWN, "a word that the checker does not know checks nothing"
        kinds = schema.get("type", [])
        assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES
        re.compile(schema.get("pattern", ""))
        assert set(schema.get("required", ())) <= set(schema.get("properties", {}))
        if "default" in schema:
            check(schema["default"], schema)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_changes_something_can_be_repeated_safely_and_is_not_for_viewers(method):
    assert ("request_id" in method.params["properties"]) == method.mutates
    if method.mutates:
        assert method.who in ("admin", "user")


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "delete", "bulk"])
def test_a_verb_that_changes_bots_names_them(verb):
    assert "select" in METHODS[f"bots.{verb}"].params["required"]


def test_every_method_of_the_contract_is_there():
    bots = "create start stop restart delete list status health recover bulk logs explain wait"
    assert {f"bots.{verb}" for verb in bots.split()} <= set(METHODS)
    others = (
        "rpc.discover daemon.ping daemon.version daemon.shutdown users.resources system.status "
        "system.performance system.cleanup config.show config.reload events.subscribe"
    )
    assert set(others.split()) <= set(METHODS)


def test_streams_have_their_notifications():
    assert {name for name, method in METHODS.items() if method.stream} == {"bots.logs", "events.subscribe"}
    assert {"logs.line", "logs.missed", "events.event", "events.missed", "progress"} <= set(NOTIFICATIONS)


@pytest.mark.parametrize(
    "name,params,reason",
    [
        ("bots.start", {}, "select: is required"),
        ("bots.start", {"select": {}, "selct": 1}, "selct: unknown key"),
        ("bots.start", {"select": {}, "timeout_s": -1}, "timeout_s: must be at least 0"),
        ("bots.start", {"select": {}, "wait": 1}, "wait: must be true or false"),
        ("bots.start", {"select": {}, "request_id": ""}, "request_id: must not be empty"),
        ("bots.start", [], "must be an object"),
        ("bots.bulk", {"select": {}, "op": "explode"}, "op: must be one of start, stop, restart, delete"),
        ("bots.bulk", {"select": {}, "op": "start", "batch": "0"}, "batch: '0' is not allowed"),
        ("bots.bulk", {"select": {}, "op": "start", "batch": "101%"}, "batch: '101%' is not allowed"),
        ("bots.bulk", {"select": {}, "op": "start", "parallel": 0}, "parallel: must be at least 1"),
        ("bots.create", {"spec": {"id": "x"}}, "spec.id: 'x' is not allowed"),
        ("bots.logs", {"select": {}, "stream": "both "}, "stream: must be one of both, stdout, stderr"),
        ("bots.wait", {"select": {}, "for": "ever"}, "for: must be one of running, healthy, stopped"),
        ("bots.list", {"limit": 0}, "limit: must be at least 1"),
    ],
)
def test_wrong_params_are_refused(name, params, reason):
    with pytest.raises(BotdError) as caught:
        check(params, METHODS[name].params)
    assert caught.value.message.startswith(reason)


@pytest.mark.parametrize("batch", ["1", "20", "99999", "1%", "10%", "100%", None])
def test_batches_are_numbers_or_shares(batch):
    assert check({"op": "stop", "select": {}, "batch": batch}, METHODS["bots.bulk"].params)["batch"] == batch


def test_defaults_are_what_the_command_line_promises():
    params = check({"select": {}}, METHODS["bots.stop"].params)
    assert params == {"select": {}, "wait": True, "timeout_s": 60, "dry_run": False, "progress": False}
