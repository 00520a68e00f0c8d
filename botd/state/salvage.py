"""What can be saved of a damaged database: every row that still reads, the last snapshot for what does not.

Rows are found page by page (pages.py) and taken only when the codec can read them. Nothing here writes to the
damaged file or locks it.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from botd.contract.vocabulary import is_bot_id, is_name
from botd.core.bot import BotState, Spec
from botd.state.codec import decode_spec, decode_state, encode_spec, encode_state
from botd.state.connection import Connection, check, connect, create_private, remove
from botd.state.errors import SQLITE_ERRORS, snapshot_path
from botd.state.pages import Pages, Row, Value
from botd.state.records import StoredBot, StoredEvent
from botd.state.schema import migrate

log = logging.getLogger("botd.state")

EVENTS_KEPT = 100_000

_KEYS: Mapping[str, tuple[int, ...]] = {
    "templates": (0,),
    "releases": (0, 1),
    "rolls": (0,),
    "usage": (0,),
    "trash": (0,),
}
"""Tables that are written back as they were found: which of their columns are the key. The last is a time."""
_FROM_SNAPSHOT = ("templates", "releases", "trash")
"""Those of which the snapshot may complete what is lost. An old step of a roll must never be taken again, and what
somebody uses is measured anew."""

_Rows = dict[tuple[Value, ...], tuple[Value, ...]]


@dataclass(slots=True)
class Salvage:
    """`bots` by id, with whatever else was found.

    `uncertain`: ids whose row of observation is lost, or that only the snapshot knew: their state says stopped, life 0.
    `lost`: what is certainly not there any more, in words.
    """

    bots: dict[str, StoredBot] = field(default_factory=dict)
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)
    requests: list[tuple[str, float, str | None]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    tables: dict[str, _Rows] = field(default_factory=lambda: {table: {} for table in _KEYS})
    """Rows by key, of the tables in `_KEYS`."""
    uncertain: set[str] = field(default_factory=set)
    from_snapshot: set[str] = field(default_factory=set)
    snapshot_at_wall: float | None = None
    lost: list[str] = field(default_factory=list)

    def summary(self, moment: Callable[[float], str]) -> dict[str, Any]:
        """How many of what, and from where: as `daemon.repair` reports it. `moment` writes a time."""
        taken = self.snapshot_at_wall if self.from_snapshot else None
        return {
            "bots": len(self.bots),
            "from_snapshot": sorted(self.from_snapshot),
            "snapshot_at": None if taken is None else moment(taken),
            "state_unknown": sorted(self.uncertain - self.from_snapshot),
            "adopted": [],
            "events": len(self.events),
            "lost": self.lost,
        }


def salvage(path: str) -> Salvage:
    """Everything that can be told of the fleet on record at `path`. Never raises: at worst it is empty."""
    found, whole = _Found(), set[str]()
    try:
        pages = Pages(path)
        for row in pages.rows():
            found.take(row)
        whole = _whole(pages, "desired", *_FROM_SNAPSHOT)
    except OSError as error:
        log.warning("%s cannot be read at all: %s", path, error.strerror or error)
    saved = found.salvage()
    good = snapshot_path(path)
    try:
        older = _Found()
        for row in Pages(good).rows():
            older.take(row)
        saved.snapshot_at_wall = os.stat(good).st_mtime
    except OSError:
        older = None
    if older is not None:
        _complete(saved, found, older, whole="desired" in whole)
        for table in _FROM_SNAPSHOT:
            if table not in whole:
                saved.tables[table] = older.tables[table] | saved.tables[table]
    _settle_ports(saved)
    named = found.named | found.observed.keys() | found.secrets.keys()
    if older is not None and "desired" not in whole:
        named |= older.named
    for bot_id in sorted(named - saved.bots.keys()):
        if is_bot_id(bot_id) and not found.deleted(bot_id):
            saved.lost.append(f"{bot_id}: its specification")
    for bot_id, bot in sorted(saved.bots.items()):
        missing = set(bot.spec.secret_names) - saved.secrets.get(bot_id, {}).keys()
        if missing:
            saved.lost.append(f"{bot_id}: the values of its secrets {', '.join(sorted(missing))}")
    return saved


class _Found:
    """Rows by table, recognised by the number and the types of their columns."""

    def __init__(self) -> None:
        self.desired: dict[str, tuple[Spec, bool, int | None, str | None, float]] = {}
        self.observed: dict[str, tuple[int, str, str, str]] = {}
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.events: dict[int, StoredEvent] = {}
        self.requests: dict[str, tuple[float, str | None]] = {}
        self.meta: dict[str, str] = {}
        self.tables: dict[str, _Rows] = {table: {} for table in _KEYS}
        self.named: set[str] = set()

    def take(self, row: Row) -> None:
        try:
            match row.values:
                case (
                    str() as bot_id,
                    str(),
                    str(),
                    int() as wanted,
                    str() as spec,
                    port,
                    source,
                    (int() | float()) as at,
                ):
                    self.named.add(bot_id) if is_bot_id(bot_id) else None
                    self._desired(bot_id, wanted, spec, port, source, at)
                case (str() as bot_id, str() as boot, int() as generation, str() as phase, str() as state):
                    self._observed(bot_id, boot, generation, phase, state)
                case (None, bot_id, (int() | float()) as at, str() as kind, str() as text, generation):
                    self._event(row.rowid, bot_id, at, kind, text, generation)
                case (str() as bot_id, str() as name, bytes() as value):
                    value.decode("utf-8", "surrogatepass")
                    self.secrets.setdefault(bot_id, {})[name] = value
                case (str() as key, (int() | float()) as at, (str() | None) as answer):
                    self.requests[key] = (float(at), answer)
                case (str() as key, str() as value):
                    self.meta[key] = value
                case (str() as name, str() as release, (str() | None), (str() | None), (int() | float())):
                    _check(is_name(name) and _is_hash(release))
                    self._keep("templates", row.values)
                case (str() as name, str() as release, str() as body, int(), int(), (int() | float())):
                    _check(is_name(name) and _is_hash(release))
                    self._keep("releases", row.values, body)
                case (None, str(), str(), str() as body, (int() | float())):
                    self._keep("rolls", (row.rowid, *row.values[1:]), body)
                case (str(), str() as body, (int() | float())):
                    self._keep("usage", row.values, body)
                case (str(), str(), str() as body, (int() | float())):
                    self._keep("trash", row.values, body)
        except ValueError:
            pass  # it has the shape of a row and does not read as one: that is what was damaged

    def _keep(self, table: str, values: tuple[Value, ...], body: str = "{}") -> None:
        """The newest row of its key, if its body is a JSON object."""
        _check(isinstance(json.loads(body), dict))
        key = tuple(values[i] for i in _KEYS[table])
        known = self.tables[table].get(key)
        if known is None or known[-1] <= values[-1]:  # type: ignore[operator]  # times, as was just matched
            self.tables[table][key] = values

    def _desired(self, bot_id: str, wanted: int, spec: str, port: Value, source: Value, at: float) -> None:
        if not is_bot_id(bot_id) or not isinstance(port, int | None) or not isinstance(source, str | None):
            raise ValueError(bot_id)
        self.desired[bot_id] = (decode_spec(bot_id, spec), bool(wanted), port, source, float(at))

    def _observed(self, bot_id: str, boot: str, generation: int, phase: str, state: str) -> None:
        decode_state(state, wanted=False, generation=generation, phase=phase)
        known = self.observed.get(bot_id)
        if is_bot_id(bot_id) and (known is None or known[0] < generation):
            self.observed[bot_id] = (generation, boot, phase, state)

    def _event(self, seq: int, bot_id: Value, at: float, kind: str, text: str, generation: Value) -> None:
        if seq > 0 and isinstance(bot_id, str | None) and isinstance(generation, int | None):
            self.events[seq] = StoredEvent(seq, bot_id, float(at), kind, text, generation)

    def bot(self, bot_id: str) -> StoredBot:
        """What is known of one of `desired`."""
        spec, wanted, port, source, at = self.desired[bot_id]
        if bot_id not in self.observed:
            return StoredBot(spec, BotState(wanted=wanted), at, port, source)
        generation, boot, phase, text = self.observed[bot_id]
        state = decode_state(text, wanted=wanted, generation=generation, phase=phase)
        return StoredBot(spec, state, at, port, source, boot)

    def salvage(self) -> Salvage:
        out = Salvage(bots={bot_id: self.bot(bot_id) for bot_id in sorted(self.desired)}, meta=self.meta)
        out.uncertain = self.desired.keys() - self.observed.keys()
        out.secrets = {bot_id: self.secrets[bot_id] for bot_id in self.desired.keys() & self.secrets.keys()}
        out.events = [self.events[seq] for seq in sorted(self.events)][-EVENTS_KEPT:]
        out.requests = [(key, at, answer) for key, (at, answer) in self.requests.items()]
        out.tables = self.tables
        return out

    def deleted(self, bot_id: str) -> bool:
        """Whether the history ends with its deletion."""
        told = [e for e in self.events.values() if e.text == f"{bot_id} was deleted" or e.id == bot_id]
        return bool(told) and max(told).kind == "deleted"


def _complete(saved: Salvage, found: _Found, older: _Found, *, whole: bool) -> None:
    """What the snapshot knows and the damaged file does not tell any more, and does not say to be gone."""
    for bot_id in older.desired:
        if bot_id not in saved.bots and (not whole or bot_id in found.named) and not found.deleted(bot_id):
            bot = older.bot(bot_id)
            # What it was at that time is no news. What runs is taken over, whatever its number.
            saved.bots[bot_id] = replace(bot, state=BotState(wanted=bot.state.wanted), boot_id="")
            saved.uncertain.add(bot_id)
            saved.from_snapshot.add(bot_id)
    for bot_id, bot in saved.bots.items():
        have, had = saved.secrets.get(bot_id, {}), older.secrets.get(bot_id, {})
        for name in bot.spec.secret_names:
            if name not in have and name in had:
                saved.secrets.setdefault(bot_id, have)[name] = had[name]
    known = {event.seq for event in saved.events}
    saved.events = sorted([*saved.events, *(e for seq, e in older.events.items() if seq not in known)])[-EVENTS_KEPT:]
    asked = {key for key, _, _ in saved.requests}
    saved.requests += [(key, at, answer) for key, (at, answer) in older.requests.items() if key not in asked]
    saved.meta = {**older.meta, **saved.meta}


def _settle_ports(saved: Salvage) -> None:
    """A port is one bot's. What the snapshot remembers of it may be old, and what was read may be a flipped bit."""
    taken: set[int] = set()
    for bot_id in sorted(saved.bots, key=lambda bot_id: (bot_id in saved.from_snapshot, bot_id)):
        bot = saved.bots[bot_id]
        if bot.port is None:
            continue
        if bot.port in taken or not 0 < bot.port < 65536:
            saved.bots[bot_id] = replace(bot, port=None)
            saved.lost.append(f"{bot_id}: its port")
        else:
            taken.add(bot.port)


def _check(good: bool) -> None:
    if not good:
        raise ValueError


def _is_hash(text: str) -> bool:
    return len(text) == 64 and _HEX.issuperset(text)


_HEX = frozenset("0123456789abcdef")


def _whole(pages: Pages, *tables: str) -> set[str]:
    """Which of them SQLite walks without stumbling: what is not in such a one was deleted."""
    copy, out = sqlite3.connect(":memory:"), set[str]()
    try:
        # In memory: no lock is taken, and no file beside the damaged one touched.
        copy.deserialize(pages.image())
        copy.text_factory = bytes
        for table in tables:
            try:
                copy.execute(f"SELECT count(*), sum(length({_LONG[table]})) FROM {table} NOT INDEXED").fetchone()
                out.add(table)
            except SQLITE_ERRORS:
                continue
    except (*SQLITE_ERRORS, AttributeError, OverflowError):  # a library may be built without deserialize
        return out
    finally:
        copy.close()
    return out


_LONG = {"desired": "spec", "templates": "source", "releases": "manifest", "trash": "body"}
"""The column that may be on pages of its own."""


def write(saved: Salvage, path: str) -> None:
    """A new, complete and checked database at `path` (mode 0600), on the disk when this returns.

    Raises sqlite3.Error or OSError, and then leaves nothing behind.
    """
    create_private(path)
    try:
        connection = connect(path)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection, path)
            fill(connection, saved)
            check(connection)
        finally:
            connection.close()
    except BaseException:
        remove(path, f"{path}-journal")
        raise


def fill(connection: Connection, saved: Salvage) -> None:
    """Put everything into an empty database of the newest schema, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement, rows in _rows(saved):
        connection.executemany(statement, rows)
    connection.execute("COMMIT")


def _rows(saved: Salvage) -> Iterable[tuple[str, Iterable[tuple[Any, ...]]]]:
    bots = saved.bots.values()
    yield (
        "INSERT INTO desired (id, user, name, wanted, spec, port, source, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (b.spec.id, b.spec.user, b.spec.name, b.state.wanted, encode_spec(b.spec), b.port, b.source,
             b.created_at_wall)
            for b in bots
        ),
    )  # fmt: skip
    yield (
        "INSERT INTO observed (id, boot_id, generation, phase, state) VALUES (?, ?, ?, ?, ?)",
        ((b.spec.id, b.boot_id, b.state.generation, b.state.phase, encode_state(b.state)) for b in bots),
    )
    yield (
        "INSERT INTO secrets (id, name, value) VALUES (?, ?, ?)",
        (
            (bot_id, name, value)
            for bot_id, named in saved.secrets.items()
            if bot_id in saved.bots
            for name, value in named.items()
        ),
    )
    yield "INSERT INTO events (seq, id, at, kind, text, generation) VALUES (?, ?, ?, ?, ?, ?)", saved.events
    yield "INSERT INTO requests (key, at, answer) VALUES (?, ?, ?)", saved.requests
    yield "INSERT INTO meta (key, value) VALUES (?, ?)", saved.meta.items()
    for table, found in saved.tables.items():
        if found:
            holes = ", ".join("?" * len(next(iter(found.values()))))
            yield f"INSERT INTO {table} VALUES ({holes})", found.values()
