"""fleet.toml: the schema of a bot's specification and the way from a manifest to a list of them.

Pure: reading files (the manifest itself, secrets) is the caller's business. botctl expands the
manifest with the rights of whoever calls it; botd checks every specification again on arrival.
"""

from __future__ import annotations

import os

from botd.contract.errors import invalid
from botd.contract.schema import check
from botd.contract.vocabulary import NAME_RULE, RESTART_MODES, STOP_SIGNALS, USER_RULE, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botd.contract.schema import Schema

ID_PATTERN = r"\A[a-z0-9][a-z0-9._-]{0,31}/[a-z0-9][a-z0-9._-]{0,62}\Z"
NAME_PATTERN = r"\A[a-z0-9][a-z0-9._-]{0,62}\Z"
NO_NUL = r"\A[^\x00]*\Z"
ENV_NAME = r"\A[A-Za-z_][A-Za-z0-9_]*\Z"

# One argument or environment value may be 128 KiB in Linux (MAX_ARG_STRLEN); all of them together
# are kept well under a quarter of the smallest stack, which is what execve(2) allows.
VALUE_MAX = 131_000
TOTAL_MAX = 1 << 20

_TEXT: Schema = {"type": "string", "pattern": NO_NUL, "maxLength": VALUE_MAX, "x-hint": "no NUL bytes"}
_HIDDEN: Schema = {**_TEXT, "writeOnly": True}
"""A value that goes in and never comes out again, not even in the error that refuses it."""

PROBE: Schema = {
    "type": "object",
    "description": "how botd finds out whether the bot is healthy",
    "additionalProperties": False,
    "required": ["kind"],
    "properties": {
        "kind": {"type": "string", "enum": ["http", "tcp"]},
        "url": {
            "type": "string",
            "maxLength": 2048,
            "pattern": r"\Ahttp://(127\.0\.0\.1|localhost|\[::1\])(:(\d{1,5}|\{port\}))?(/[^\s\x00-\x1f]*)?\Z",
            "x-hint": "a loopback address, as in http://127.0.0.1:{port}/health",
            "description": "kind http: GET, healthy when 2xx or 3xx; {port} is the bot's own port",
        },
        "port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "kind tcp; default: PORT"},
        "interval_s": {
            "type": "number",
            "minimum": 0.1,
            "maximum": 86400,
            "description": "default: resourceManagement.healthCheckInterval",
        },
        "timeout_s": {"type": "number", "minimum": 0.05, "maximum": 300, "default": 5},
        "failures": {"type": "integer", "minimum": 1, "maximum": 100, "default": 3},
        "start_grace_s": {"type": "number", "minimum": 0, "maximum": 3600, "default": 20},
    },
}

_TEMPLATE: Schema = {"type": "string", "pattern": NAME_PATTERN, "x-hint": f"a template name is {NAME_RULE}"}
_SETTINGS: dict[str, Schema] = {
    "template": _TEMPLATE,
    "command": {
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": _TEXT,
        "description": "the program and its arguments; never a shell string",
        "x-hint": 'write a list of arguments, as in ["python3", "bot.py"]; for a shell: ["sh", "-c", "..."]',
    },
    "directory": {**_TEXT, "maxLength": 4000, "description": "the working folder"},
    "env": {
        "type": "object",
        "writeOnly": True,
        "maxProperties": 500,
        "propertyNames": {"pattern": ENV_NAME, "maxLength": 200, "x-hint": "letters, digits and _"},
        "additionalProperties": _HIDDEN,
    },
    "labels": {
        "type": "object",
        "maxProperties": 50,
        "propertyNames": {"pattern": r"\A[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z", "maxLength": 63},
        "additionalProperties": {
            "type": "string",
            "pattern": r"\A[^\x00-\x1f,]{0,200}\Z",
            "x-hint": "at most 200 characters, no comma, no control characters",
        },
    },
    "memory_mb": {"type": "integer", "minimum": 1, "maximum": 1_048_576},
    "processes": {
        "type": "integer",
        "minimum": 1,
        "maximum": 4_194_304,
        "description": "the most processes and threads that it may have",
    },
    "cpu": {
        "type": "number",
        "minimum": 0.01,
        "maximum": 1024,
        "description": "processors that it may keep busy, as in 0.5",
    },
    "restart": {"type": "string", "enum": list(RESTART_MODES)},
    "stop_signal": {"type": "string", "enum": list(STOP_SIGNALS)},
    "stop_grace_s": {"type": "number", "minimum": 0, "maximum": 3600},
    "port": {"type": "boolean", "description": "a stable loopback port of its own, in PORT"},
    "enabled": {"type": "boolean", "description": "wanted running"},
    "probe": PROBE,
}

DEFAULTS: dict[str, Any] = {
    "env": {},
    "labels": {},
    "restart": "always",
    "stop_signal": "SIGTERM",
    "stop_grace_s": 10,
    "port": False,
    "enabled": True,
}

_ID: Schema = {
    "type": "string",
    "pattern": ID_PATTERN,
    "x-hint": f"user/name; user is {USER_RULE}; name is {NAME_RULE}",
}

# As it travels: every value resolved, secrets with their contents.
SPEC: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id"],
    "properties": {
        "id": _ID,
        **_SETTINGS,
        "secrets": {
            "type": "object",
            "writeOnly": True,
            "maxProperties": 100,
            "propertyNames": _SETTINGS["env"]["propertyNames"],
            "additionalProperties": _HIDDEN,
        },
    },
}

# As it stands in the file.
_BOT_IN_FILE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id"],
    "properties": {
        "id": _ID,
        **_SETTINGS,
        "secrets": {
            "type": "object",
            "writeOnly": True,
            "maxProperties": 100,
            "propertyNames": _SETTINGS["env"]["propertyNames"],
            "additionalProperties": {
                "type": "object",
                "writeOnly": True,
                "additionalProperties": False,
                "required": ["file"],
                "x-hint": 'write { file = "secrets/NAME" }: secrets are never written into the manifest',
                "properties": {"file": {**_TEXT, "maxLength": 4000}},
            },
        },
    },
}

MANIFEST: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema"],
    "properties": {
        "schema": {"type": "integer", "enum": [1]},
        "defaults": {
            "type": "object",
            "additionalProperties": False,
            "properties": {k: v for k, v in _BOT_IN_FILE["properties"].items() if k != "id"},
        },
        "template": {
            "type": "array",
            "maxItems": 1000,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "path"],
                "properties": {
                    "name": _TEMPLATE,
                    "path": {**_TEXT, "maxLength": 4000, "description": "its folder or archive"},
                    "manifest": {**_TEXT, "maxLength": 4000, "description": "default: botd-template.toml in it"},
                },
            },
        },
        "bot": {"type": "array", "maxItems": 10_000, "items": _BOT_IN_FILE},
    },
}


def expand(document: object, base: str) -> list[dict[str, Any]]:
    """The specifications that a parsed manifest describes, defaults applied, folders absolute under `base`.

    Those of a bot with a template have only what the file says: its template fills in the rest.

    Secrets still name their files: {"secrets": {"TOKEN": {"file": "/abs/path"}}}. Raises
    BotdError(invalid, exit 9) with a path such as `bot[2].memory_mb`.
    """
    manifest = check(document, MANIFEST, "", exit=Exit.INVALID)
    defaults = manifest.get("defaults", {})
    bots = [_merge(defaults, bot) for bot in manifest.get("bot", [])]
    seen: dict[str, int] = {}
    for i, bot in enumerate(bots):
        first = seen.setdefault(bot["id"], i)
        if first != i:
            raise invalid(f"bot[{i}].id", f"{bot['id']} stands already at bot[{first}]", exit=Exit.INVALID)
        if "template" not in bot:
            bot["directory"] = _absolute(bot.get("directory", "."), base)
        for secret in bot.get("secrets", {}).values():
            secret["file"] = _absolute(secret["file"], base)
        check_spec(bot, f"bot[{i}]", exit=Exit.INVALID)
    return bots


def templates(document: dict[str, Any], base: str) -> list[dict[str, str]]:
    """The templates of a manifest that `expand` took: {"name", "path", "manifest"?}, paths absolute under `base`.

    Raises BotdError(invalid, exit 9) when a name stands there twice.
    """
    out: dict[str, dict[str, str]] = {}
    for i, one in enumerate(document.get("template", ())):
        if one["name"] in out:
            raise invalid(f"template[{i}].name", f"{one['name']} stands there twice", exit=Exit.INVALID)
        paths = {key: _absolute(one[key], base) for key in ("path", "manifest") if key in one}
        out[one["name"]] = {"name": one["name"], **paths}
    return list(out.values())


def _merge(defaults: dict[str, Any], bot: dict[str, Any]) -> dict[str, Any]:
    if "template" in bot or "template" in defaults:
        # What its template says stands between these and what is set for every bot anyway. A bot that names one does
        # not want the program of the others.
        others = ("command", "directory") if "template" in bot else ("directory",)
        merged = {**{key: value for key, value in defaults.items() if key not in others}, **bot}
    else:
        merged = {**DEFAULTS, **defaults, **bot}
    for table in ("env", "labels", "secrets"):
        # Tables are joined, the bot's own entry wins: a default label is not lost by adding one.
        joined = {**defaults.get(table, {}), **bot.get(table, {})}
        merged[table] = {k: dict(v) if isinstance(v, dict) else v for k, v in joined.items()}
    return merged


def _absolute(path: str, base: str) -> str:
    return os.path.normpath(os.path.join(base, os.path.expanduser(path)))


def check_spec(spec: dict[str, Any], path: str = "", *, exit: int = Exit.USAGE) -> None:
    """What a schema cannot say: combinations that can never work. Raises BotdError(invalid)."""

    def where(key: str) -> str:
        return f"{path}.{key}" if path else key

    if "command" not in spec and "template" not in spec:
        raise invalid(where("command"), "is required (or a template that brings one)", exit=exit)
    if "command" in spec and not spec["command"][0].strip():
        raise invalid(where("command[0]"), "the program has no name", exit=exit)
    probe = spec.get("probe")
    if probe is not None and "template" not in spec:  # its template may bring the port: looked at once it is known
        if probe["kind"] == "http" and "url" not in probe:
            raise invalid(where("probe.url"), "is required for kind http", exit=exit)
        needs_port = "{port}" in probe.get("url", "") or (probe["kind"] == "tcp" and "port" not in probe)
        if needs_port and not spec.get("port"):
            raise invalid(where("probe"), "needs the bot's port", hint="add port = true", exit=exit)
    total = sum(len(v.encode("utf-8", "replace")) for v in _exec_strings(spec))
    if total > TOTAL_MAX:
        raise invalid(
            where("env"),
            f"arguments, environment and secrets are {total} bytes, at most {TOTAL_MAX}",
            exit=exit,
        )


def _exec_strings(spec: dict[str, Any]) -> list[str]:
    out = list(spec.get("command", []))
    for table in (spec.get("env", {}), spec.get("secrets", {})):
        for key, value in table.items():
            out.append(key)
            if isinstance(value, str):
                out.append(value)
    return out
