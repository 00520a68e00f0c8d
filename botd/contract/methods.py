"""Every JSON-RPC method: its params and result as JSON Schema, whether it changes something, who may call it.

One table, read by the server's dispatch, by `rpc.discover` and by the tests.
"""

from __future__ import annotations

from botd.contract.manifest import MANIFEST, SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.contract.schema import Schema
    from botd.contract.vocabulary import Who


class Method:
    """One row. `who` is the least role that may call it; `stream` marks calls that keep sending."""

    __slots__ = ("mutates", "name", "params", "result", "stream", "summary", "who")

    def __init__(
        self,
        name: str,
        summary: str,
        params: dict[str, Schema],
        result: Schema,
        *,
        who: Who,
        required: tuple[str, ...] = (),
        mutates: bool = False,
        stream: bool = False,
    ) -> None:
        if mutates:
            params = {**params, "request_id": _REQUEST_ID}
        self.name = name
        self.summary = summary
        self.params: Schema = {
            "type": "object",
            "properties": params,
            "required": list(required),
            "additionalProperties": False,
        }
        self.result = result
        self.who: Who = who
        self.mutates = mutates
        self.stream = stream


_OBJECT: Schema = {"type": "object"}
_LIST: Schema = {
    "type": "object",
    "required": ["schema", "items"],
    "properties": {"schema": {"type": "integer"}, "items": {"type": "array", "items": _OBJECT}},
}
_SELECT: Schema = {"type": "object", "description": "a typed selection: {all: true} or {any: [clause, ...]}"}
_REQUEST_ID: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "description": "the same id again within ten minutes returns the first answer and does nothing twice",
}
_ID: Schema = SPEC["properties"]["id"]
_BOOL: Schema = {"type": "boolean", "default": False}
_TIMEOUT: Schema = {"type": "number", "minimum": 0, "maximum": 86400, "default": 60, "description": "seconds"}
_ACTION: dict[str, Schema] = {
    "select": _SELECT,
    "wait": {"type": "boolean", "default": True, "description": "answer when the outcome is known"},
    "timeout_s": _TIMEOUT,
    "dry_run": _BOOL,
    "progress": {**_BOOL, "description": "send a `progress` notification for each bot as it settles"},
}
_PURGE: Schema = {**_BOOL, "description": "remove data and logs at once, too"}
_DISCARDED: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
_DISCARDED_ONES: Schema = {
    "type": ["array", "null"],
    "items": _DISCARDED,
    "maxItems": 10_000,
    "default": None,
    "description": "ids, or keys of single deletions; null: all",
}
_DISCARDED_BY: Schema = {"type": ["string", "null"], "maxLength": 32, "default": None}
_WHEN: Schema = {"type": ["number", "null"], "description": "seconds since the epoch", "default": None}
_POSITION: Schema = {"type": "string", "pattern": r"\A[0-9a-f]{1,16}\.[0-9a-f]{1,16}\.[0-9a-f]{1,16}\+?\Z"}
_TEMPLATE: Schema = MANIFEST["properties"]["template"]["items"]["properties"]["name"]
_PATH: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4000,
    "pattern": r"\A/[^\x00]*\Z",
    "x-hint": "a whole path",
}
_ADD: dict[str, Schema] = {
    "name": _TEMPLATE,
    "path": {**_PATH, "description": "a folder or an archive, read with the rights of botd"},
    "manifest": {**_PATH, "type": ["string", "null"], "default": None, "description": "null: botd-template.toml in it"},
    "dry_run": {**_BOOL, "description": "only say which release it would be"},
    "progress": {**_BOOL, "description": "send `progress` notifications: bytes done of all"},
}
_APPLY: dict[str, Schema] = {
    "source": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "which manifest this is"},
    "bots": {"type": "array", "maxItems": 10_000, "items": SPEC},
    "prune": {**_BOOL, "description": "delete what an earlier apply of the same source brought"},
}

_RELEASE: Schema = {
    "type": ["string", "null"],
    "pattern": r"\A[0-9a-f]{6,64}\Z",
    "x-hint": "the first 6 or more digits of its hash",
    "default": None,
}
_BATCH: Schema = {
    "pattern": r"\A([1-9][0-9]{0,4}|([1-9][0-9]?|100)%)\Z",
    "x-hint": "a number of bots or a percentage, as in 20 or 10%",
}
_ROLL: dict[str, Schema] = {
    "batch": {"type": "string", **_BATCH, "default": "10%"},
    "canary": {
        "type": "integer",
        "minimum": 0,
        "maximum": 10_000,
        "default": 1,
        "description": "how many bots go first; 0: a whole batch",
    },
    "max_failures": {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 0},
    "gate_timeout_s": {
        "type": "number",
        "minimum": 1,
        "maximum": 86400,
        "default": 120,
        "description": "within which the bots of a batch have to run well, seconds",
    },
    "pause_s": {
        "type": "number",
        "minimum": 0,
        "maximum": 86400,
        "default": 0,
        "description": "how long a batch is watched before the next one moves, seconds",
    },
    "keep_done": {**_BOOL, "description": "a roll that is taken back leaves finished batches on the new release"},
}

_TABLE = (
    Method("rpc.discover", "every method with the schemas of its params and result", {}, _OBJECT, who="anyone"),
    Method("daemon.ping", "answers, cheaply", {}, _OBJECT, who="anyone"),
    Method("daemon.version", "versions of botd and the protocol", {}, _OBJECT, who="anyone"),
    Method("daemon.status", "pids, versions, uptime, mechanisms in force, warnings", {}, _OBJECT, who="viewer"),
    Method(
        "daemon.shutdown",
        "end botd; bots run on under the keeper unless they are to be stopped too",
        {"bots": {**_BOOL, "description": "stop every bot and the keeper first"}, "timeout_s": _TIMEOUT},
        _OBJECT,
        who="admin",
        mutates=True,
    ),
    Method(
        "daemon.repair",
        "check the database; put a damaged one right with what can be read, the snapshot and what runs",
        {"check": {**_BOOL, "description": "only look"}},
        _OBJECT,
        who="admin",
        mutates=True,
    ),
    Method(
        "daemon.upgrade",
        "replace botd and the keeper by the code installed now; bots run on. Answered before botd is replaced: "
        "`upgrade` of daemon.status says how it ended",
        {
            "python": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": 4000,
                "default": None,
                "description": "an interpreter or a virtual environment, by its whole path; null: botd's own",
            },
            "timeout_s": {**_TIMEOUT, "minimum": 1, "default": 10, "description": "for the new one to serve, seconds"},
        },
        _OBJECT,
        who="admin",
        mutates=True,
    ),
    Method(
        "bots.create",
        "add a bot; it starts when `start` is set",
        {"spec": SPEC, "start": _BOOL, "wait": _ACTION["wait"], "timeout_s": _TIMEOUT},
        _LIST,
        who="user",
        required=("spec",),
        mutates=True,
    ),
    *(
        Method(f"bots.{verb}", text, {**_ACTION, **more}, _LIST, who="user", required=("select",), mutates=True)
        for verb, text, more in (
            ("start", "want these bots running", {}),
            ("stop", "want these bots stopped", {}),
            ("restart", "end the current life of these bots and start a new one", {}),
            ("delete", "stop these bots and put them in the trash", {"purge": _PURGE}),
        )
    ),
    Method(
        "bots.undelete",
        "bring a deleted bot back, stopped unless `start` is set",
        {
            "id": {**_DISCARDED, "description": "its id, or the key of one deletion"},
            "as": {**_ID, "type": ["string", "null"], "default": None, "description": "under this id"},
            "start": _BOOL,
            "wait": _ACTION["wait"],
            "timeout_s": _TIMEOUT,
        },
        _LIST,
        who="user",
        required=("id",),
        mutates=True,
    ),
    Method(
        "bots.recover",
        "start every bot again that failed or waits for its next attempt",
        _ACTION,
        _LIST,
        who="user",
        mutates=True,
    ),
    Method(
        "bots.bulk",
        "one verb over many bots, a batch at a time, each bot with its own verdict",
        {
            **{key: value for key, value in _ACTION.items() if key != "wait"},
            "op": {"type": "string", "enum": ["start", "stop", "restart", "delete"]},
            "parallel": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 50},
            "batch": {"type": ["string", "null"], **_BATCH, "default": None},
            "max_failures": {"type": ["integer", "null"], "minimum": 0, "default": None},
            "on_error": {"type": "string", "enum": ["stop", "continue"], "default": "continue"},
        },
        _LIST,
        who="user",
        required=("op", "select"),
        mutates=True,
    ),
    Method(
        "bots.list",
        "bots, a page at a time",
        {
            "select": _SELECT,
            "fields": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "maxItems": 64,
                "default": None,
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 2000, "default": 1000},
            "after": {"type": ["string", "null"], "maxLength": 128, "default": None},
        },
        _LIST,
        who="viewer",
    ),
    Method(
        "bots.status",
        "everything about some bots",
        {"select": _SELECT},
        _LIST,
        who="viewer",
        required=("select",),
    ),
    Method("bots.health", "health of some or all bots with a summary", {"select": _SELECT}, _LIST, who="viewer"),
    Method(
        "bots.explain",
        "why a bot is in its phase: its history as a causal timeline",
        {"id": {"type": "string", "maxLength": 128}},
        _OBJECT,
        who="viewer",
        required=("id",),
    ),
    Method(
        "bots.logs",
        "lines of output; with `follow` also those to come, as `logs.line` notifications",
        {
            "select": _SELECT,
            "lines": {"type": ["integer", "null"], "minimum": 0, "maximum": 100_000, "default": 100},
            "since": _WHEN,
            "until": _WHEN,
            "grep": {"type": ["string", "null"], "maxLength": 1000, "default": None},
            "stream": {"type": "string", "enum": ["both", "stdout", "stderr"], "default": "both"},
            "follow": _BOOL,
            "resumable": {**_BOOL, "description": "say positions: in the answer, and with each line as `next`"},
            "resume": {
                "type": ["object", "null"],
                "maxProperties": 200,
                "default": None,
                "description": "with `follow`: the positions to go on from, by bot and stream",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"stdout": _POSITION, "stderr": _POSITION},
                },
            },
        },
        _LIST,
        who="viewer",
        required=("select",),
        stream=True,
    ),
    Method(
        "bots.wait",
        "answer when every selected bot is in the wanted condition",
        {
            "select": _SELECT,
            "for": {"type": "string", "enum": ["running", "healthy", "stopped"]},
            "timeout_s": _TIMEOUT,
            "progress": _ACTION["progress"],
        },
        _LIST,
        who="viewer",
        required=("select", "for"),
    ),
    Method(
        "fleet.diff",
        "what apply would change",
        {
            **_APPLY,
            "expect": {
                "type": "array",
                "maxItems": 1000,
                "items": _TEMPLATE,
                "default": [],
                "description": "templates that will have been added by then",
            },
        },
        _LIST,
        who="user",
        required=("source", "bots"),
    ),
    Method(
        "fleet.apply",
        "make the fleet as the manifest says, touching only what differs",
        {**_APPLY, "wait": _ACTION["wait"], "timeout_s": _TIMEOUT, "progress": _ACTION["progress"]},
        _LIST,
        who="user",
        required=("source", "bots"),
        mutates=True,
    ),
    Method(
        "fleet.export",
        "specifications that apply reads, without secrets",
        {"select": _SELECT},
        _LIST,
        who="user",
    ),
    Method(
        "templates.add",
        "a new template with its first release; the same one again changes nothing",
        _ADD,
        _OBJECT,
        who="admin",
        required=("name", "path"),
        mutates=True,
    ),
    Method(
        "templates.update",
        "a new release of a template, in force for new bots; those that are there keep theirs",
        {
            **_ADD,
            "create": {**_BOOL, "description": "add the template when there is none"},
            "hold": {**_BOOL, "description": "put it on record only; templates.roll puts it in force"},
        },
        _OBJECT,
        who="admin",
        required=("name", "path"),
        mutates=True,
    ),
    Method("templates.list", "every template, its release in force and its bots", {}, _LIST, who="viewer"),
    Method(
        "templates.show",
        "a template: releases, settings, bots; the files of a release by class, and why",
        {
            "name": _TEMPLATE,
            "release": {**_RELEASE, "description": "null: the one in force"},
        },
        _OBJECT,
        who="viewer",
        required=("name",),
    ),
    Method(
        "templates.roll",
        "move the bots of a template to a release in batches, each through a gate; taken back when that goes wrong. "
        "Answered when it has begun",
        {
            "name": _TEMPLATE,
            "to": {**_RELEASE, "description": "null: the one in force"},
            **_ROLL,
        },
        _OBJECT,
        who="admin",
        required=("name",),
        mutates=True,
    ),
    Method(
        "templates.rollback",
        "put the former release in force again, and move the bots back to it as templates.roll does",
        {"name": _TEMPLATE, **_ROLL},
        _OBJECT,
        who="admin",
        required=("name",),
        mutates=True,
    ),
    Method(
        "templates.rolls",
        "the last rolls of one template or of all, newest first",
        {
            "name": {**_TEMPLATE, "type": ["string", "null"], "default": None},
            "wait": {**_BOOL, "description": "with `name`: answer when no roll of it is open"},
            "progress": {**_BOOL, "description": "while waiting, send a `progress` notification for each step"},
        },
        _LIST,
        who="viewer",
    ),
    Method(
        "templates.abort",
        "take the open roll of a template back",
        {"name": _TEMPLATE, "keep_done": {**_BOOL, "description": "finished batches keep the new release"}},
        _OBJECT,
        who="admin",
        required=("name",),
        mutates=True,
    ),
    Method(
        "templates.remove",
        "forget a template that no bot uses, with all its releases",
        {"name": _TEMPLATE},
        _OBJECT,
        who="admin",
        required=("name",),
        mutates=True,
    ),
    Method(
        "users.resources",
        "what each user has and may have",
        {"user": {"type": ["string", "null"], "maxLength": 32, "default": None}},
        _LIST,
        who="viewer",
    ),
    Method(
        "trash.list",
        "deleted bots that can be brought back",
        {"ids": _DISCARDED_ONES, "user": _DISCARDED_BY},
        _LIST,
        who="viewer",
    ),
    Method(
        "trash.empty",
        "remove deleted bots for good",
        {"ids": _DISCARDED_ONES, "user": _DISCARDED_BY, "dry_run": _BOOL},
        _LIST,
        who="user",
        mutates=True,
    ),
    Method("system.status", "the machine, the fleet by phase, the daemon", {}, _OBJECT, who="viewer"),
    Method("system.performance", "latencies, rates, recovery statistics", {}, _OBJECT, who="viewer"),
    Method(
        "system.storage",
        "what is used by what, what sharing saves, who has most, what a clean-up would free",
        {"verify": {**_BOOL, "description": "walk through every bot's folder first, and say which figures were wrong"}},
        _OBJECT,
        who="viewer",
    ),
    Method(
        "system.cleanup",
        "remove what nothing needs any more, each with its reason",
        {"dry_run": _BOOL},
        _LIST,
        who="admin",
        mutates=True,
    ),
    Method("config.show", "the configuration in force and where it came from", {}, _OBJECT, who="viewer"),
    Method(
        "config.reload",
        "read the configuration again; a bad one changes nothing",
        {},
        _OBJECT,
        who="admin",
        mutates=True,
    ),
    Method(
        "events.list",
        "the last events",
        {
            "select": _SELECT,
            "lines": {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 50},
            "after": {"type": ["integer", "null"], "minimum": 0, "default": None, "description": "a seq"},
        },
        _LIST,
        who="viewer",
    ),
    Method(
        "events.subscribe",
        "events from now on, as `events.event` notifications; a slow reader gets `events.missed`",
        {"select": _SELECT, "lines": {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 0}},
        _LIST,
        who="viewer",
        stream=True,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _TABLE}

NOTIFICATIONS = {
    "progress": "one bot of a running call has settled: {call, done, total, item}; of templates.add and update: bytes; "
    "of templates.rolls: a roll",
    "events.event": "{subscription, event}",
    "events.missed": "{subscription, missed}",
    "logs.line": "{subscription, id, stream, at, line, raw?, next?}",
    "logs.missed": "{subscription, id, missed, more}: so many lines were left out, and `more` that nobody could count",
    "logs.note": "{subscription, id, text}: something that could not be read or followed",
    "logs.ended": "{subscription, id, left}: the bot was deleted; `left` others are still followed",
}
