"""Messages that are nearly right, and some that are nothing at all; the same ones for the same seed."""

from __future__ import annotations

import json
import random

from botd.contract.methods import METHODS

ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64 - 1, 1e308, -0.0, 0.1, "", "x", "\0", "é" * 50, "😀",
    "x" * 5000, "../../etc/passwd", "alice/../bob", "*", [], [[]], {}, {"": None}, {"any": []}, {"all": 1},
    [{"id": "a/b"}] * 2000, {"any": [{"id": "*/" + "*" * 200}]}, "%s%n", "' OR 1=1 --", "\u202e", "-1", "NaN",
]  # fmt: skip
RAW = [
    b"NaN", b"-Infinity", b"1e999", b"9" * 40, b"-" + b"9" * 25, b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff\xfe"',
    b'"\xc3"',
    b"[" * 200 + b"]" * 200, b'{"a":1,"a":2}', b"[1,2", b"'x'", b"\x00", b"01", b"+1", b"0x10", b"nul", b"", b'"\t"',
    b"[" * 70 + b"]" * 70, b"{" * 300, b'"' + b"\xf0\x9f\x98" + b'"', b"1" * 4000,
]  # fmt: skip
PLACEHOLDER = "\x01here\x01"

HARMLESS = {name for name, method in METHODS.items() if not method.mutates and not method.stream}
"""What a valid message may ask for without changing anything that is compared afterwards."""
# These may say nothing for long, or fill the connection with what was not asked for.
LEFT_OUT = {"bots.wait", "daemon.shutdown", "daemon.upgrade", "events.subscribe", "bots.logs"}


class Fuzzer:
    """`next` gives (line, id or None when none is to be expected)."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.names = sorted(METHODS)

    def value(self, schema: object, depth: int = 0) -> object:
        """Something that fits, more or less."""
        chance = self.chance
        if not isinstance(schema, dict) or depth > 5:
            return chance.choice(ODD)
        if "enum" in schema:
            return chance.choice(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self.value(chance.choice(schema[key]), depth + 1)
        kind = schema.get("type")
        kind = chance.choice(kind) if isinstance(kind, list) else kind
        if kind == "object":
            known = schema.get("properties", {})
            return {
                name: self.value(inner, depth + 1)
                for name, inner in known.items()
                if name in schema.get("required", ()) or chance.random() < 0.5
            }
        if kind == "array":
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(chance.choice((0, 1, 1, 2, 5)))]
        plain = {
            "string": lambda: chance.choice(("alice/one", "fuzz/none", "x", "1s", "*")),
            "integer": lambda: chance.randint(0, 100),
            "number": lambda: chance.random() * 10,
            "boolean": lambda: chance.random() < 0.5,
            "null": lambda: None,
        }
        return plain.get(kind, lambda: chance.choice(ODD))()

    def params(self, name: str) -> dict:
        found = self.value({"type": "object", **METHODS[name].params})
        assert isinstance(found, dict)
        # A message that happens to be right must not change what is compared: it means nobody, and waits for nothing.
        if METHODS[name].mutates:
            found = {**found, "no such parameter": 1}
        if "timeout_s" in METHODS[name].params.get("properties", {}):
            found["timeout_s"] = 0
        return found

    def next(self) -> bytes:
        chance = self.chance
        name = chance.choice([name for name in self.names if name not in LEFT_OUT])
        message: object = {
            "jsonrpc": "2.0",
            "id": chance.randint(0, 1 << 30),
            "method": name,
            "params": self.params(name),
        }
        way = chance.randrange(10)
        if way == 0:
            return self.garbage()
        if way <= 3:
            message = self.spoil(message)
        elif way == 4:
            message = [message, self.spoil(message), 1, [], [message]][: chance.randint(0, 5)] * chance.randint(1, 3)
        elif way == 5:
            return self.raw(message)
        line = json.dumps(message, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        if way == 6:
            line = self.flip(line)
        return line.replace(b"\n", b" ")

    def spoil(self, value: object) -> object:
        """Something else in one place."""
        chance = self.chance
        if isinstance(value, dict) and value and chance.random() < 0.8:
            key = chance.choice(sorted(value))
            out = dict(value)
            if chance.random() < 0.2:
                del out[key]
            elif chance.random() < 0.2:
                out[key + "x"] = out.pop(key)
            else:
                out[key] = self.spoil(out[key])
            return out
        if isinstance(value, list) and value and chance.random() < 0.7:
            at = chance.randrange(len(value))
            return [*value[:at], self.spoil(value[at]), *value[at + 1 :]]
        return chance.choice(ODD)

    def raw(self, message: object) -> bytes:
        """What json.dumps would not write, in one place."""
        assert isinstance(message, dict)
        target = dict(message)
        params = dict(target["params"])
        where = self.chance.choice(["id", "method", "params", "inside"])
        if where == "inside":
            params["x"] = PLACEHOLDER
            target["params"] = params
        else:
            target[where] = PLACEHOLDER
        line = json.dumps(target).encode()
        return line.replace(json.dumps(PLACEHOLDER).encode(), self.chance.choice(RAW)).replace(b"\n", b" ")

    def flip(self, line: bytes) -> bytes:
        out = bytearray(line)
        for _ in range(self.chance.randint(1, 4)):
            at = self.chance.randrange(len(out))
            what = self.chance.randrange(3)
            if what == 0:
                out[at] = self.chance.randrange(256)
            elif what == 1:
                del out[at:]
                out += b" "
            else:
                out[at:at] = self.chance.choice(RAW)
        return bytes(out)

    def garbage(self) -> bytes:
        if self.chance.random() < 0.5:
            return self.chance.choice(RAW)
        return self.chance.randbytes(self.chance.choice((1, 3, 20, 200, 3000))).replace(b"\n", b"\0")
