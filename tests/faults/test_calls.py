"""Every single call of the database fails once, with the errors it can have, in the middle of a fleet's day.

Whatever was promised is on record afterwards; whatever is on record is what botd believes; nothing is half done.
BOTD_EVERY_CALL=1 tries every error at every call.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from dataclasses import replace

import pytest

from botd.contract.errors import BotdError
from botd.core.bot import ChangedBot, Exit, NewBot, Spec
from botd.core.effects import Acknowledge, Remove, Spawn
from botd.core.events import DeleteRequested, Exited, Running, Spawned, StartRequested, StopRequested
from botd.core.fleet import Fleet
from botd.core.settings import Settings
from botd.engine import Engine
from botd.state.connection import Connection
from botd.state.salvage import salvage
from botd.state.store import Damaged, Store, StoredBot

ERRORS = {
    "disk I/O error": sqlite3.SQLITE_IOERR,
    "database is locked": sqlite3.SQLITE_BUSY,
    "database or disk is full": sqlite3.SQLITE_FULL,
    "database disk image is malformed": sqlite3.SQLITE_CORRUPT,
}
IDS = ("a/one", "a/two", "b/three")


class Fault:
    """Fails at the call of number `at`, counted over the whole day."""

    def __init__(self, monkeypatch, words):
        self.words, self.count, self.at, self.struck = words, 0, 0, False
        for name in ("execute", "executemany"):
            monkeypatch.setattr(Connection, name, self._wrap(getattr(sqlite3.Connection, name)), raising=False)

    def _wrap(self, real):
        def call(connection, sql, *more):
            self.count += 1
            if self.count == self.at:
                self.struck = True
                error = sqlite3.OperationalError(self.words)
                if ERRORS[self.words] == sqlite3.SQLITE_CORRUPT:
                    error = sqlite3.DatabaseError(self.words)
                error.sqlite_errorcode = ERRORS[self.words]
                raise error
            return real(connection, sql, *more)

        return call


class Clock:
    def boottime(self):
        return 100.0

    def wall(self):
        return 1_700_000_000.0


class Keeper:
    """Does what it is asked at once, and remembers which lives it began and which ends it may forget."""

    def __init__(self):
        self.begun, self.acknowledged, self.removed = [], [], []

    def perform(self, bot, effect):
        if isinstance(effect, Spawn):
            assert (bot.id, effect.generation) not in self.begun, "a life was begun twice"
            self.begun.append((bot.id, effect.generation))
        elif isinstance(effect, Acknowledge):
            self.acknowledged.append((bot.id, effect.generation))
        elif isinstance(effect, Remove):
            self.removed.append(bot.id)

    def acknowledge(self, bot_id, generation):
        self.acknowledged.append((bot_id, generation))

    def prepare(self, bot):
        pass


def new(bot_id):
    return NewBot(Spec(bot_id, ("/bin/true",), "/", secret_names=("T",)), {"T": bot_id}, None, None)


class Day:
    """Requests that are refused change nothing; events that happen are believed."""

    def __init__(self, store):
        self.keeper, self.refused = Keeper(), 0
        self.engine = Engine(
            fleet=Fleet(), store=store, clock=Clock(), boot_id="boot", chance=lambda: 0.5,
            settings=Settings(), may_start=lambda: None,
        )  # fmt: skip
        self.engine.performer = self.keeper
        self.promised = {}

    def ask(self, work, **promise):
        try:
            work()
        except BotdError as error:
            assert error.hint and error.kind == "unavailable", error.message
            self.refused += 1
        else:
            self.promised.update(promise)

    def request(self, bot_id, event, wanted):
        if self.engine.fleet.get(bot_id) is not None:
            self.ask(lambda: self.engine.request([(bot_id, event)]), **{bot_id: wanted})

    def happens(self, bot_id, make):
        bot = self.engine.fleet.get(bot_id)
        if bot is not None:
            self.engine.happened([(bot_id, make(bot.state.generation))])

    def run(self):
        for bot_id in IDS:
            self.ask(lambda bot_id=bot_id: self.engine.create([new(bot_id)]), **{bot_id: False})
        for bot_id in IDS:
            self.request(bot_id, StartRequested(), True)
            if (bot := self.engine.fleet.get(bot_id)) is not None and bot.state.phase == "starting":
                self.happens(bot_id, lambda g: Spawned(g, 4711))
                self.happens(bot_id, Running)
        for bot_id in IDS[:2]:
            if (bot := self.engine.fleet.get(bot_id)) is not None and bot.state.phase == "running":
                self.happens(bot_id, lambda g: Exited(g, Exit(3, None, 1.0, 0.5)))
        self.request(IDS[0], StopRequested(), False)
        if (bot := self.engine.fleet.get(IDS[1])) is not None:
            spec = replace(bot.spec, command=("/bin/false",))
            self.ask(lambda: self.engine.change([ChangedBot(spec, {"T": "new"}, None, None, "changed")]))
        self.request(IDS[2], DeleteRequested(), None)
        if (bot := self.engine.fleet.get(IDS[2])) is not None and bot.state.phase == "stopping":
            self.happens(IDS[2], lambda g: Exited(g, Exit(None, 15, 1.0, 0.5)))
        self.engine.note(None, "day", "over")


def record(path):
    store = Store.open(path)
    try:
        return {one.spec.id: (one.spec, one.state, store.secrets(one.spec.id)) for one in store.load()}, store.events()
    finally:
        store.close()


async def one_day(path, fault, at):
    store = Store.open(path)
    day = Day(store)
    fault.count, fault.at, fault.struck = 0, at, False
    day.run()
    fault.at = 0
    calls = fault.count
    if isinstance(store.trouble, Damaged):
        # As `daemon repair` does it.
        bots = {b.id: StoredBot(b.spec, b.state, 0.0, boot_id="boot") for b in day.engine.fleet}
        store.restore(replace(salvage(path), bots=bots, secrets=dict(store.raw_secrets())))
    day.engine.record_backlog()
    believed = {bot.id: (bot.spec, bot.state, store.secrets(bot.id)) for bot in day.engine.fleet}
    store.close()
    return day, calls, believed


@pytest.mark.parametrize("words", ERRORS)
def test_at_every_call(words, monkeypatch):
    fault = Fault(monkeypatch, words)
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
        _, calls, _ = asyncio.run(one_day(f"{folder}/botd.db", fault, 0))
    struck = 0
    # In the short form each call fails with one of the errors, in the long one with every one of them.
    at, step = (0, 1) if os.environ.get("BOTD_EVERY_CALL") else (list(ERRORS).index(words), len(ERRORS))
    while at <= calls:
        with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
            path = f"{folder}/botd.db"
            day, _, believed = asyncio.run(one_day(path, fault, at))
            struck += fault.struck
            on_record, events = record(path)
        # A pid alone is not worth a write: the keeper tells it again.
        for bot_id, (spec, state, secrets) in believed.items():
            assert on_record[bot_id] == (spec, state, secrets), f"call {at}"
        assert on_record.keys() == believed.keys(), f"call {at}"
        for bot_id, wanted in day.promised.items():
            if wanted is None:
                assert bot_id not in on_record or on_record[bot_id][1].then == "delete", f"call {at}"
            else:
                assert on_record[bot_id][1].wanted == wanted, f"call {at}"
        assert len(set(day.keeper.acknowledged)) == len(day.keeper.acknowledged)
        told = {(event.id, event.generation) for event in events if event.kind == "exited"}
        assert all(life in told for life in day.keeper.acknowledged if life[0] in believed), f"call {at}"
        at += step
    assert struck > 80 // step
