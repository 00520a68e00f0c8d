"""What was deleted and is kept for its grace age, so that it can be brought back: one row for each deletion.

The row says where a deletion stands, and is written before any folder moves, so that whoever is killed on the way
leaves something to go on from: `kept` (its folders belong in the trash), `back` (they belong to the bot `restored_as`),
`going` (they belong nowhere any more). A row goes last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from botd.contract.vocabulary import is_bot_id
from botd.core.bot import Spec
from botd.state.batch import Batch
from botd.state.codec import decode_spec, encode_spec
from botd.state.store import Store

_PUT = """
    INSERT INTO trash (key, id, body, at) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body
"""

Standing = Literal["kept", "back", "going"]


@dataclass(frozen=True, slots=True)
class Discarded:
    """One deleted bot. Times are seconds since the epoch. `spec` None: its record cannot be read, its data is there."""

    key: str
    id: str
    at_wall: float
    until_wall: float
    """Until when it is kept: a promise, which no later setting shortens."""
    spec: Spec | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    port: int | None = None
    source: str | None = None
    created_at_wall: float = 0.0
    standing: Standing = "kept"
    restored_as: str | None = None

    @property
    def user(self) -> str:
        return self.id.partition("/")[0]

    def going(self) -> Discarded:
        """The same without anything that could be read: what was purged leaves no secret behind."""
        return replace(self, standing="going", spec=None, secrets={})


def put(batch: Batch, item: Discarded) -> None:
    """Record it, or where it stands by now."""
    batch.run(_PUT, (item.key, item.id, encode(item), item.at_wall))
    batch.fleet_changes()


def drop(batch: Batch, key: str) -> None:
    """Forget it; no error when it is not known."""
    batch.run("DELETE FROM trash WHERE key = ?", (key,))
    batch.fleet_changes()


def load(store: Store) -> list[Discarded]:
    """All of them, the oldest first. One that cannot be read is kept for ever: nobody knows what was promised."""
    out = []
    for key, bot_id, body, at in store.rows("SELECT key, id, body, at FROM trash ORDER BY at, key"):
        try:
            out.append(decode(key, bot_id, body, at))
        except ValueError:
            out.append(Discarded(key, bot_id, at, float("inf")))
    return out


def encode(item: Discarded, *, secrets: bool = True) -> str:
    """Its body as JSON; without `secrets`, as it stands beside the data."""
    body: dict[str, Any] = {
        "schema": 1,
        "spec": None if item.spec is None else json.loads(encode_spec(item.spec)),
        "port": item.port,
        "source": item.source,
        "created_at": item.created_at_wall,
        "until": item.until_wall,
        "standing": item.standing,
        "restored_as": item.restored_as,
    }
    if secrets:
        body["secrets"] = dict(item.secrets)
    else:
        body |= {"id": item.id, "at": item.at_wall}
    return json.dumps(body, separators=(",", ":"))


def decode(key: str, bot_id: str, body: str, at_wall: float) -> Discarded:
    """What `encode` wrote. ValueError when it does not read as that."""
    wire = _object(body)
    spec, secrets, restored_as = wire.get("spec"), wire.get("secrets", {}), wire.get("restored_as")
    standing, port, source = wire.get("standing", "kept"), wire.get("port"), wire.get("source")
    if standing not in get_args(Standing) or not is_bot_id(bot_id):
        raise ValueError(bot_id)
    if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
        raise ValueError("secrets")
    if not isinstance(source, str | None) or not isinstance(restored_as, str | None):
        raise ValueError("source")
    if type(port) is not int and port is not None:
        raise ValueError("port")
    return Discarded(
        key,
        bot_id,
        at_wall,
        _number(wire, "until"),
        None if spec is None else decode_spec(bot_id, json.dumps(spec)),
        secrets,
        port,
        source,
        _number(wire, "created_at"),
        standing,
        restored_as if restored_as is None or is_bot_id(restored_as) else None,
    )


def decode_note(key: str, text: str) -> Discarded:
    """What stands beside the data, for a database that does not know it (any more). ValueError."""
    wire = _object(text)
    bot_id = wire.get("id")
    if not isinstance(bot_id, str):
        raise ValueError("id")
    return replace(decode(key, bot_id, text, _number(wire, "at")), secrets={})


def _object(text: str) -> dict[str, Any]:
    try:
        wire = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(wire, dict):
        raise ValueError("is no object")
    return wire


def _number(wire: Mapping[str, Any], key: str) -> float:
    value = wire.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e18:
        raise ValueError(key)
    return float(value)
