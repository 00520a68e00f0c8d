"""Checks a JSON value against the subset of JSON Schema that the contract is written in.

The schemas are the single source: `rpc.discover` and `config schema` print them, this module
enforces them. An error names the path, the reason and, for an unknown key, the nearest known one.

A value whose schema is `writeOnly` (a secret) is never repeated in an error.

Understood: type (one or a list), enum, properties, required, additionalProperties (false or a
schema), propertyNames (pattern, maxLength), items, minItems, maxItems, maxProperties, minimum,
maximum, exclusiveMinimum, minLength, maxLength, pattern. `default` fills what is missing.
"""

from __future__ import annotations

import re

from botd.contract.errors import invalid, nearest
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_SPOKEN = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}


def check(value: Any, schema: Schema, path: str = "", *, exit: int = Exit.USAGE) -> Any:
    """`value` with defaults filled in, as a new object. Raises BotdError(invalid) with `exit`."""
    return _Checker(exit).check(value, schema, path)


class _Checker:
    def __init__(self, exit: int) -> None:
        self._exit = exit

    def _fail(self, path: str, reason: str, hint: str = "") -> Exception:
        return invalid(path, reason, hint=hint, exit=self._exit)

    def check(self, value: Any, schema: Schema, path: str) -> Any:
        kind = schema.get("type")
        if kind is not None and not _is_type(value, kind):
            given = "" if schema.get("writeOnly") else f", not {_shown(value)}"
            raise self._fail(path, f"must be {_spoken(kind)}{given}", schema.get("x-hint", ""))
        if "enum" in schema and value not in schema["enum"]:
            self._refuse_word(value, schema["enum"], path)
        if isinstance(value, dict):
            return self._object(value, schema, path)
        if isinstance(value, list):
            return self._array(value, schema, path)
        if isinstance(value, str):
            self._string(value, schema, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._number(value, schema, path)
        return value

    def _refuse_word(self, value: Any, words: list[Any], path: str) -> None:
        known = [str(word) for word in words]
        near = nearest(value, known) if isinstance(value, str) else None
        hint = f"did you mean {near!r}?" if near else ""
        raise self._fail(path, f"must be one of {', '.join(known)}, not {_shown(value)}", hint)

    def _object(self, value: dict[str, Any], schema: Schema, path: str) -> dict[str, Any]:
        properties: dict[str, Schema] = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        most = schema.get("maxProperties", 10_000)
        if len(value) > most:
            raise self._fail(path, f"{len(value)} entries, at most {most}")
        for key in schema.get("required", ()):
            if key not in value:
                raise self._fail(_join(path, key), "is required")
        out: dict[str, Any] = {}
        for key, inner in value.items():
            where = _join(path, key)
            if "propertyNames" in schema:
                self._string(key, schema["propertyNames"], where)
            if key in properties:
                out[key] = self.check(inner, properties[key], where)
            elif others is False:
                near = nearest(key, properties)
                hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(properties))}"
                raise self._fail(where, "unknown key", hint)
            else:
                out[key] = self.check(inner, others, where) if isinstance(others, dict) else inner
        for key, inner_schema in properties.items():
            if key not in out and "default" in inner_schema:
                out[key] = inner_schema["default"]
        return out

    def _array(self, value: list[Any], schema: Schema, path: str) -> list[Any]:
        if len(value) < schema.get("minItems", 0):
            raise self._fail(path, "must not be empty", schema.get("x-hint", ""))
        most = schema.get("maxItems", 100_000)
        if len(value) > most:
            raise self._fail(path, f"{len(value)} entries, at most {most}")
        items = schema.get("items")
        if items is None:
            return list(value)
        return [self.check(item, items, f"{path}[{i}]") for i, item in enumerate(value)]

    def _string(self, value: str, schema: Schema, path: str) -> None:
        if len(value) < schema.get("minLength", 0):
            raise self._fail(path, "must not be empty")
        most = schema.get("maxLength", 1 << 20)
        if len(value) > most:
            raise self._fail(path, f"{len(value)} characters, at most {most}")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            given = "what is given" if schema.get("writeOnly") else _shown(value)
            raise self._fail(path, f"{given} is not allowed", str(schema.get("x-hint", schema["pattern"])))

    def _number(self, value: float, schema: Schema, path: str) -> None:
        if value != value:
            raise self._fail(path, "is not a number")
        low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
        if low is not None and value < low:
            raise self._fail(path, f"must be at least {low}, not {value}")
        if above is not None and value <= above:
            raise self._fail(path, f"must be more than {above}, not {value}")
        if high is not None and value > high:
            raise self._fail(path, f"must be at most {high}, not {value}")


def _is_type(value: Any, kind: str | list[str]) -> bool:
    if isinstance(kind, list):
        return any(_is_type(value, one) for one in kind)
    if isinstance(value, bool):
        # In Python True is an int; in JSON it is not.
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _spoken(kind: str | list[str]) -> str:
    return _SPOKEN[kind] if isinstance(kind, str) else " or ".join(_SPOKEN[one] for one in kind)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, (dict, list)):
        return _SPOKEN["object" if isinstance(value, dict) else "array"]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _join(path: str, key: str) -> str:
    shown = key if len(key) <= 80 else key[:77] + "..."
    return f"{path}.{shown}" if path else shown
