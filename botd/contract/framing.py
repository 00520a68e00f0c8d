"""Bytes <-> JSON-RPC messages: one a line, UTF-8, strict. No sockets here.

Refused with the field's path where there is one: invalid UTF-8, NaN and Infinity, duplicate keys,
lone surrogates, integers over 64 bits, nesting over 64, a line over 1 MiB.
"""

from __future__ import annotations

import json

from botd.contract.errors import BotdError
from botd.contract.vocabulary import RpcCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LINE_MAX = 1 << 20
DEPTH_MAX = 64
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


class LineTooLong(Exception):
    """More than LINE_MAX bytes without a newline: the connection cannot be trusted any further."""


class LineSplitter:
    """Cuts a byte stream into lines. Holds at most LINE_MAX bytes plus one read."""

    __slots__ = ("_buffer", "_scanned", "limit")

    def __init__(self, limit: int = LINE_MAX) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self.limit = limit

    @property
    def pending(self) -> int:
        """Bytes of a line that has begun and not ended."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The complete lines so far, without their newlines. Raises LineTooLong."""
        self._buffer += data
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._scanned)) >= 0:
            if end > self.limit:
                raise LineTooLong
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            self._scanned = 0
            if line.strip():
                yield line
        self._scanned = len(buffer)
        if len(buffer) > self.limit:
            raise LineTooLong


def _refuse(reason: str) -> BotdError:
    return BotdError("invalid", reason, code=RpcCode.PARSE_ERROR)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _refuse(f"duplicate key {key[:100]!r}")
            seen.add(key)
    return out


def _integer(text: str) -> int:
    if len(text) > 20 or not _INT_MIN <= (value := int(text)) <= _INT_MAX:
        raise _refuse(f"integer over 64 bits: {text[:24]}...")
    return value


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _refuse(f"number out of range: {text[:24]}")
    return value


def _constant(text: str) -> Any:
    raise _refuse(f"{text} is not JSON")


_decode = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_int=_integer, parse_float=_number, parse_constant=_constant
).decode


def decode(line: bytes) -> Any:
    """The JSON value of one line from outside. Raises BotdError(invalid) with the parse error's code."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refuse(f"not UTF-8: byte {error.start} of the line") from None
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise _refuse(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _refuse(f"nested deeper than {DEPTH_MAX}") from None
    _check_depth(value)
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_depth(value: Any) -> None:
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _refuse(f"nested deeper than {DEPTH_MAX}")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _refuse("a lone surrogate in a string") from None


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def encode(message: object) -> bytes:
    """One message as a line. Text that is no Unicode (a file name, say) travels with `?` in its place."""
    return _encode(message).encode("utf-8", "replace") + b"\n"


def request(id: int | str, method: str, params: dict[str, Any]) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def response(id: object, result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id: object, error: BotdError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": error.to_rpc()}


def notification(method: str, params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}
