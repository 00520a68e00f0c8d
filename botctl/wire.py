"""JSON in and out, without the `json` package where that is possible.

`import json` brings `re` and `enum` along and costs as much as starting Python does (11 ms where
Python takes 13), which is most of what a quick command may spend. Its work is done by `_json`, the C
module beneath it, and the few lines here give `_json` what `json.JSONDecoder` and `json.JSONEncoder`
would. Where there is no `_json`, `json` itself serves.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    decode: Callable[[str], Any]
    encode: Callable[[object], str]


class _Settings:
    """What `_json.make_scanner` reads from the decoder that it belongs to: the defaults of `json`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - an attribute that the C code looks up, never ours to change


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is no JSON value")


try:
    import _json
except ImportError:  # another Python than CPython
    import json

    decode = json.loads
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
else:
    # typeshed wants a scanner where the code wants anything with these attributes.
    _scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]
    _chunks = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False)

    def decode(text: str) -> Any:
        """The value of one JSON text. Raises ValueError."""
        text = text.strip(" \t\r\n")
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError(f"not JSON: something follows at character {end}")
        return value

    def encode(value: object) -> str:
        """The shortest JSON text of `value`, on one line. Raises TypeError, ValueError (NaN)."""
        return "".join(_chunks(value, 0))
