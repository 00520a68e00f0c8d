"""botd-template.toml: what a template says about its files and about the bots that are made of it.

Pure, like `manifest`: reading the file is the caller's business.
"""

from __future__ import annotations

from botd.contract.errors import invalid
from botd.contract.manifest import NO_NUL, SPEC, check_spec
from botd.contract.schema import check
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botd.contract.schema import Schema

FILE_NAME = "botd-template.toml"
MAX_FILES = 200_000
MAX_BYTES = 4 << 30
PLACEHOLDERS = ("release", "app", "data", "python", "node")
"""In the command and the environment: {release} the release's tree, {app} and {data} the bot's own folders, {python}
the interpreter of the release's virtual environment or the machine's python3, {node} the machine's node."""

_BOT_KEYS = (
    "command",
    "env",
    "labels",
    "probe",
    "stop_signal",
    "stop_grace_s",
    "memory_mb",
    "processes",
    "cpu",
    "port",
    "restart",
)
"""What a bot may have of its template: keys of a bot, as in fleet.toml."""

_PATH: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 1000,
    "pattern": NO_NUL,
    "x-hint": "a path within the template",
}


def _patterns(what: str) -> Schema:
    return {
        "type": "array",
        "maxItems": 1000,
        "items": _PATH,
        "description": what,
        "x-hint": 'write a list of patterns, as in ["assets/**", "*.bin"]',
    }


TEMPLATE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema"],
    "properties": {
        "schema": {"type": "integer", "enum": [1]},
        "files": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "link": _patterns("shared: one link into the release in each bot's folder"),
                "copy": _patterns("copied into each bot's folder"),
                "private": _patterns("the bot's own, in its data folder; never replaced by a release"),
                "ignore": _patterns("left out of the release"),
            },
        },
        "max_files": {
            "type": "integer",
            "minimum": 1,
            "maximum": 5_000_000,
            "default": MAX_FILES,
            "description": "more files and folders than this are refused",
        },
        "max_bytes": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1 << 44,
            "default": MAX_BYTES,
            "description": "more bytes than this are refused",
        },
        **{key: SPEC["properties"][key] for key in _BOT_KEYS},
        "python": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "venv": {**_PATH, "description": "the virtual environment that the source brings"},
                "requirements": {**_PATH, "description": "a virtual environment is made of this file, in .venv"},
                "wheels": {**_PATH, "description": "a folder of wheels to install from, instead of an index"},
                "interpreter": {**_PATH, "description": "what makes the environment; default: python3"},
            },
        },
        "node": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "check": {"type": "boolean", "description": "say which dependencies of package.json are missing"}
            },
        },
    },
}


def check_template(document: object) -> dict[str, Any]:
    """The manifest of a template, defaults filled in, as a new object.

    Raises BotdError(invalid, exit 9) with a path such as `files.link[2]`.
    """
    manifest: dict[str, Any] = check(document, TEMPLATE, "", exit=Exit.INVALID)
    files = manifest.get("files", {})
    seen: dict[str, str] = {}
    for key in ("link", "copy", "private", "ignore"):
        for i, pattern in enumerate(files.get(key, ())):
            where = f"files.{key}[{i}]"
            _check_pattern(pattern, where)
            first = seen.setdefault(pattern, where)
            if first != where:
                raise invalid(where, f"{pattern!r} stands already at {first}", exit=Exit.INVALID)
    python = manifest.get("python", {})
    for key in ("venv", "requirements", "wheels"):
        if key in python:
            _check_path(python[key], f"python.{key}")
    if "venv" in python and "requirements" in python:
        raise invalid("python", "venv and requirements together", hint="give one of them", exit=Exit.INVALID)
    for key in ("wheels", "interpreter"):
        if key in python and "requirements" not in python:
            raise invalid(f"python.{key}", "is of use with requirements only", exit=Exit.INVALID)
    # The rest as in a bot: the defaults have to work on their own, with a command that may be found later.
    check_spec({"command": ["-"], **bot_defaults(manifest)}, exit=Exit.INVALID)
    return manifest


def _check_pattern(pattern: str, where: str) -> None:
    body = pattern.rstrip("/")
    if not body:
        raise invalid(where, f"{pattern!r} means everything", hint="name what is meant", exit=Exit.INVALID)
    if pattern.startswith("!"):
        hint = f"what .botdignore leaves out is taken back there; a file named so is [!]{pattern[1:]}"
        raise invalid(where, f"{pattern!r} takes back, which [files] cannot", hint=hint, exit=Exit.INVALID)
    _check_parts(body.removeprefix("/"), pattern, where)


def _check_path(path: str, where: str) -> None:
    if path.startswith("/"):
        raise invalid(where, f"{path!r} is absolute", hint="write it relative to the template", exit=Exit.INVALID)
    _check_parts(path.rstrip("/"), path, where)


def _check_parts(body: str, given: str, where: str) -> None:
    parts = body.split("/")
    if ".." in parts:
        raise invalid(where, f"{given!r} leads out of the template", exit=Exit.INVALID)
    if "." in parts or "" in parts:
        hint = "write it as the path from the root, without . and double slashes"
        raise invalid(where, f"{given!r} is no plain path", hint=hint, exit=Exit.INVALID)
    if any(ord(c) < 32 or ord(c) == 127 for c in body):
        raise invalid(where, f"{given!r} has a control character in it", exit=Exit.INVALID)


def bot_defaults(manifest: dict[str, Any]) -> dict[str, Any]:
    """Of a manifest: the keys that are defaults of its bots."""
    return {key: manifest[key] for key in _BOT_KEYS if key in manifest}
