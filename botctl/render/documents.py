"""What programs read: one JSON document, JSON lines, or names."""

from __future__ import annotations

from botctl import wire
from botd.contract import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from botctl.invocation import Invocation
    from botctl.render.terminal import Terminal


def document(out: Terminal, value: dict[str, Any]) -> None:
    """One JSON document: indented where a person looks at it, on one line where a program reads it."""
    value = {"schema": SCHEMA, **value}
    if out.is_tty:
        import json

        out.line(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        out.line(wire.encode(value))


def printed(invocation: Invocation, result: dict[str, Any], *, key: str = "id") -> bool:
    """Print `result` when -o asks for something else than a table; says whether it did.

    A result without `items` is a single object: `jsonl` prints it on one line, `name` its `key`.
    """
    out, output = invocation.out, invocation.output
    if output == "json":
        document(out, result)
    elif output == "jsonl":
        out.write("".join(wire.encode(item) + "\n" for item in items_of(result, default=[result])))
    elif output == "name":
        names = [item.get(key) for item in items_of(result, default=[result])]
        out.write("".join(f"{name}\n" for name in names if name is not None))
    else:
        return False
    return True


def items_of(result: dict[str, Any], default: list[Any] | None = None) -> list[dict[str, Any]]:
    """The objects of a listing, tolerant of a daemon that sends something else."""
    items = result.get("items", default)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
