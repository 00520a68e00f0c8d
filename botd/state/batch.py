"""Every change of the database, as part of one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from botd.core.bot import BotState, Spec
from botd.crash import crash_point
from botd.state.codec import encode_spec, encode_state
from botd.state.connection import Connection
from botd.state.errors import SQLITE_ERRORS
from botd.state.records import NewEvent, StoredBot

_INSERT_BOT = """
    INSERT INTO desired (id, user, name, wanted, spec, port, source, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_STATE = """
    INSERT INTO observed (id, boot_id, generation, phase, state) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        boot_id = excluded.boot_id, generation = excluded.generation, phase = excluded.phase, state = excluded.state
"""
_ADD_SECRET = "INSERT INTO secrets (id, name, value) VALUES (?, ?, ?)"
_ADD_EVENT = "INSERT INTO events (id, at, kind, text, generation) VALUES (?, ?, ?, ?, ?)"
_BEGIN_REQUEST = """
    INSERT INTO requests (key, at) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at, answer = NULL
"""


@dataclass(slots=True)
class Memory:
    """What the store knows without reading, kept equal to the tables with each commit.

    `secrets`: name -> value as stored, of every bot that has some. `fleet_changed`: which bots there are, or what one
    of them is, has changed since the last snapshot.
    """

    secrets: dict[str, dict[str, bytes]]
    fleet_changed: bool = False


class Batch:
    """`with store.batch() as batch:` everything in the block happens, or nothing of it.

    Committed at the end of the block; an exception out of the block rolls back. An error of the database
    leaves the block as a StoreError. Changes of an existing bot raise LookupError when there is none.
    Outside of the block every method raises RuntimeError.
    """

    __slots__ = ("_connection", "_durable", "_fleet_changed", "_memory", "_open", "_secrets")

    def __init__(self, connection: Connection, memory: Memory, *, durable: bool) -> None:
        self._connection = connection
        self._memory = memory
        self._secrets: dict[str, dict[str, bytes]] = {}
        self._durable = durable
        self._open = False
        self._fleet_changed = False

    def __enter__(self) -> Self:
        connection = self._connection
        if connection.in_transaction:
            raise RuntimeError("a batch is open already: batches do not nest")
        try:
            connection.set_durable(self._durable)
            connection.execute("BEGIN IMMEDIATE")
        except SQLITE_ERRORS as error:
            raise connection.explain(error) from error
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open = False
        if error is None:
            crash_point("botd-batch-open")
            try:
                self._connection.execute("COMMIT")
            except SQLITE_ERRORS as failure:
                self._roll_back()
                raise self._connection.explain(failure) from failure
            self._memory.fleet_changed |= self._fleet_changed
            for bot_id, values in self._secrets.items():
                if values:
                    self._memory.secrets[bot_id] = values
                else:
                    self._memory.secrets.pop(bot_id, None)
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise self._connection.explain(error) from error

    def _roll_back(self) -> None:
        # SQLite has done it by itself after some errors (a full disk, a failed read).
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except SQLITE_ERRORS as failure:
                raise self._connection.explain(failure) from failure

    def run(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        """One statement, for the modules of this package that have tables of their own."""
        if not self._open:
            raise RuntimeError("the batch is not open: use it inside of its `with` block")
        try:
            return self._connection.execute(sql, values)
        except UnicodeDecodeError as error:
            raise self._connection.explain(error) from error

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """The same statement for each row."""
        if not self._open:
            raise RuntimeError("the batch is not open: use it inside of its `with` block")
        try:
            self._connection.executemany(sql, rows)
        except UnicodeDecodeError as error:
            raise self._connection.explain(error) from error

    def fleet_changes(self) -> None:
        """What is changed in this batch belongs to the fleet itself: a new snapshot is due."""
        self._fleet_changed = True

    def _change(self, bot_id: str, sql: str, values: Sequence[Any]) -> None:
        if self.run(sql, values).rowcount != 1:
            raise LookupError(f"no bot {bot_id} is on record")

    # --- bots -------------------------------------------------------------------------------------

    def insert_bot(self, bot: StoredBot, secrets: Mapping[str, str]) -> None:
        """A bot that is not on record yet, with exactly the secrets that its spec names (else ValueError)."""
        spec = bot.spec
        self.run(
            _INSERT_BOT,
            (
                spec.id,
                spec.user,
                spec.name,
                bot.state.wanted,
                encode_spec(spec),
                bot.port,
                bot.source,
                bot.created_at_wall,
            ),
        )
        self._add_secrets(spec, secrets)
        self.save_state(spec.id, bot.state, bot.boot_id)

    def update_spec(self, spec: Spec, secrets: Mapping[str, str] | None) -> None:
        """Replace the spec of an existing bot, and all its secrets unless `secrets` is None."""
        self._change(spec.id, "UPDATE desired SET spec = ? WHERE id = ?", (encode_spec(spec), spec.id))
        self._fleet_changed = True
        if secrets is not None:
            self.run("DELETE FROM secrets WHERE id = ?", (spec.id,))
            self._add_secrets(spec, secrets)

    def _add_secrets(self, spec: Spec, secrets: Mapping[str, str]) -> None:
        if set(secrets) != set(spec.secret_names):
            raise ValueError(f"{spec.id}: the secrets are not those that its specification names")
        values = {name: value.encode("utf-8", "surrogatepass") for name, value in secrets.items()}
        self.run_many(_ADD_SECRET, [(spec.id, name, value) for name, value in values.items()])
        self._secrets[spec.id] = values
        self._fleet_changed = True

    def set_wanted(self, bot_id: str, wanted: bool) -> None:
        self._change(bot_id, "UPDATE desired SET wanted = ? WHERE id = ?", (wanted, bot_id))

    def set_port(self, bot_id: str, port: int | None) -> None:
        """A port belongs to one bot at most: taking another's is an error."""
        self._change(bot_id, "UPDATE desired SET port = ? WHERE id = ?", (port, bot_id))

    def set_source(self, bot_id: str, source: str | None) -> None:
        self._change(bot_id, "UPDATE desired SET source = ? WHERE id = ?", (source, bot_id))

    def save_state(self, bot_id: str, state: BotState, boot_id: str) -> None:
        """What is true of an existing bot now. `state.wanted` is not saved by this: see `set_wanted`."""
        self.run(_SAVE_STATE, (bot_id, boot_id, state.generation, state.phase, encode_state(state)))

    def save_states(self, states: Iterable[tuple[str, BotState]], boot_id: str) -> None:
        """The same for many bots."""
        rows = ((bot_id, boot_id, s.generation, s.phase, encode_state(s)) for bot_id, s in states)
        self.run_many(_SAVE_STATE, rows)

    def delete_bot(self, bot_id: str) -> None:
        """Forget a bot with its state and secrets. Its history stays until it is pruned."""
        self._change(bot_id, "DELETE FROM desired WHERE id = ?", (bot_id,))
        self._secrets[bot_id] = {}
        self._fleet_changed = True

    # --- history, requests, notes -----------------------------------------------------------------

    def add_event(self, bot_id: str | None, at_wall: float, kind: str, text: str, generation: int | None = None) -> int:
        """A line of history; returns its `seq`."""
        (seq,) = self.add_events([NewEvent(bot_id, at_wall, kind, text, generation)])
        return seq

    def add_events(self, events: Sequence[NewEvent]) -> range:
        """Lines of history in this order; returns their `seq`s, which follow upon each other."""
        if not events:
            return range(0)
        self.run_many(_ADD_EVENT, [e if e.text.isascii() else e._replace(text=_storable(e.text)) for e in events])
        (last,) = self.run("SELECT last_insert_rowid()", ()).fetchone()
        return range(last - len(events) + 1, last + 1)

    def begin_request(self, key: str, at_wall: float) -> None:
        """Remember that a call was accepted; one of the same key is forgotten."""
        self.run(_BEGIN_REQUEST, (key, at_wall))

    def finish_request(self, key: str, answer: str) -> None:
        """Its answer, as JSON. No error when the call is no longer remembered: it took that long."""
        self.run("UPDATE requests SET answer = ? WHERE key = ?", (answer, key))

    def set_meta(self, key: str, value: str) -> None:
        """A note of the daemon to itself."""
        self.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )


def _storable(text: str) -> str:
    """A lone surrogate (out of a file name that is no UTF-8) is no text for SQLite: it becomes `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()
