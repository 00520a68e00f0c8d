"""What is written comes back; a batch happens whole or not at all; secrets stay in their table."""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_bots import RUNNING, bot, specs, states, texts, unhurried, with_secrets

from botd.core.bot import BotState, Spec
from botd.state import connection as connecting
from botd.state.store import NewEvent, Pruned, Store, StoredBot, StoredRequest, StoreError, snapshot_path


def put(store: Store, *bots: StoredBot) -> None:
    with store.batch() as batch:
        for one in bots:
            batch.insert_bot(one, {})


def reopened(store: Store) -> Store:
    store.close()
    return Store.open(store.path)


# --- bots -----------------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.load() == []
    assert store.events() == []
    assert store.ports() == {}


def test_bots_come_back_sorted_and_as_they_were(store: Store) -> None:
    bots = [bot("bob/b", port=20001), bot("alice/z", source="/srv/fleet.toml"), bot("alice/a", BotState())]
    put(store, *bots)
    store = reopened(store)
    assert store.load() == sorted(bots, key=lambda one: one.spec.id)
    store.close()


@settings(unhurried, max_examples=40)
@given(
    specs, states, st.floats(0, 4e9), st.none() | st.integers(1, 65535), st.none() | st.just("/srv/f.toml"), st.data()
)
def test_any_bot_comes_back(store, spec, state, created, port, source, data) -> None:
    stored = StoredBot(spec, state, created, port, source, "boot")
    secrets = {name: data.draw(texts) for name in spec.secret_names}
    with store.batch() as batch:
        batch.insert_bot(stored, secrets)
    try:
        assert store.load() == [stored]
        assert store.secrets(spec.id) == secrets
        assert store.secrets_equal(spec.id, dict(secrets))
    finally:
        with store.batch() as batch:
            batch.delete_bot(spec.id)


def test_what_is_observed_leaves_what_is_wanted_alone(store: Store) -> None:
    put(store, bot())
    with store.batch() as batch:
        batch.set_wanted("alice/shop", False)
        batch.save_state("alice/shop", replace(RUNNING, generation=8), "boot-2")
    (loaded,) = store.load()
    assert loaded.state == replace(RUNNING, generation=8, wanted=False)
    assert loaded.boot_id == "boot-2"


def test_many_states_at_once(store: Store) -> None:
    put(store, bot("a/a"), bot("a/b"))
    with store.batch() as batch:
        batch.save_states([("a/a", replace(RUNNING, pid=1)), ("a/b", replace(RUNNING, pid=2))], "boot-2")
    assert [(one.state.pid, one.boot_id) for one in store.load()] == [(1, "boot-2"), (2, "boot-2")]


def test_a_bot_whose_state_was_never_saved_is_a_new_bot(store: Store) -> None:
    put(store, bot())
    store._connection.execute("DELETE FROM observed")
    (loaded,) = store.load()
    assert loaded.state == BotState(wanted=True)
    assert loaded.boot_id == ""


def test_a_spec_is_replaced_with_its_secrets_or_without(store: Store) -> None:
    first = with_secrets(bot(), "TOKEN")
    with store.batch() as batch:
        batch.insert_bot(first, {"TOKEN": "one"})
        batch.update_spec(replace(first.spec, labels={"tier": "paid"}), None)
    assert store.load()[0].spec.labels == {"tier": "paid"}
    assert store.secrets("alice/shop") == {"TOKEN": "one"}
    with store.batch() as batch:
        batch.update_spec(replace(first.spec, secret_names=("COOKIE", "TOKEN")), {"TOKEN": "two", "COOKIE": "c"})
    assert store.secrets("alice/shop") == {"TOKEN": "two", "COOKIE": "c"}
    assert store.secrets_equal("alice/shop", {"COOKIE": "c", "TOKEN": "two"})
    assert not store.secrets_equal("alice/shop", {"COOKIE": "c", "TOKEN": "one"})
    assert not store.secrets_equal("alice/shop", {"COOKIE": "c"})


def test_secrets_are_exactly_those_that_the_spec_names(store: Store) -> None:
    named = with_secrets(bot(), "TOKEN")
    for wrong in ({}, {"TOKEN": "x", "MORE": "y"}, {"OTHER": "x"}):
        with pytest.raises(ValueError, match="secrets"), store.batch() as batch:
            batch.insert_bot(named, wrong)
    assert store.load() == []


def test_ports_and_sources(store: Store) -> None:
    put(store, bot("a/a", port=20001, source="/one"), bot("a/b", source="/one"), bot("b/c", source="/two"))
    assert store.ports() == {20001: "a/a"}
    assert store.sources("/one") == {"a/a", "a/b"}
    with store.batch() as batch:
        batch.set_source("a/a", None)
        batch.set_source("b/c", "/one")
        batch.set_port("a/a", None)
        batch.set_port("a/b", 20001)
    assert store.ports() == {20001: "a/b"}
    assert store.sources("/one") == {"a/b", "b/c"}
    assert store.sources("/two") == set()
    with pytest.raises(StoreError, match="UNIQUE") as caught, store.batch() as batch:
        batch.set_port("a/a", 20001)
    assert caught.value.kind == "internal"


def test_a_deleted_bot_leaves_its_history_and_nothing_else(store: Store) -> None:
    with store.batch() as batch:
        batch.insert_bot(with_secrets(bot(port=20001), "TOKEN"), {"TOKEN": "s"})
        batch.add_event("alice/shop", 1.0, "created", "created")
    with store.batch() as batch:
        batch.delete_bot("alice/shop")
    assert store.load() == [] and store.ports() == {} and store.secrets("alice/shop") == {}
    for table in ("observed", "secrets"):
        assert store._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert [event.kind for event in store.events(["alice/shop"])] == ["created"]


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.set_wanted("no/body", True),
        lambda batch: batch.set_source("no/body", None),
        lambda batch: batch.set_port("no/body", 1),
        lambda batch: batch.update_spec(Spec("no/body", ("x",), "/"), None),
        lambda batch: batch.delete_bot("no/body"),
    ],
)
def test_a_change_of_nobody_is_an_error_and_undoes_the_batch(store: Store, change) -> None:
    with pytest.raises(LookupError, match="no/body"), store.batch() as batch:
        batch.insert_bot(bot(), {})
        change(batch)
    assert store.load() == []


def test_a_state_of_nobody_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY") as caught, store.batch() as batch:
        batch.save_state("no/body", RUNNING, "boot")
    assert caught.value.kind == "internal"


# --- batches --------------------------------------------------------------------------------------


def test_an_exception_undoes_the_whole_batch(store: Store) -> None:
    put(store, bot())
    with pytest.raises(ZeroDivisionError), store.batch() as batch:
        batch.save_state("alice/shop", replace(RUNNING, pid=1), "boot-2")
        batch.add_event(None, 1.0, "daemon", "never")
        raise ZeroDivisionError
    assert store.load() == [bot()] and store.events() == []
    put(store, bot("next/one"))


def test_an_error_of_the_database_undoes_the_whole_batch(store: Store) -> None:
    put(store, bot())
    with pytest.raises(StoreError, match="UNIQUE"), store.batch() as batch:
        batch.insert_bot(bot("b/new"), {})
        batch.insert_bot(bot(), {})
    assert [one.spec.id for one in store.load()] == ["alice/shop"]


def test_batches_do_not_nest(store: Store) -> None:
    with store.batch() as outer:
        outer.insert_bot(bot(), {})
        with pytest.raises(RuntimeError, match="do not nest"), store.batch():
            pass
        with pytest.raises(RuntimeError, match="between batches"):
            store.snapshot()
    assert len(store.load()) == 1


def test_a_batch_is_of_no_use_outside_of_its_block(store: Store) -> None:
    batch = store.batch()
    with pytest.raises(RuntimeError, match="not open"):
        batch.insert_bot(bot(), {})
    with batch:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        batch.add_events([NewEvent(None, 1.0, "daemon", "late")])
    with store.batch(), pytest.raises(RuntimeError, match="not open"):
        batch.set_meta("a", "b")
    assert store.load() == [] and store.events() == []


def test_only_a_durable_batch_waits_for_the_disk(store: Store) -> None:
    def level() -> int:
        return store._connection.execute("PRAGMA synchronous").fetchone()[0]

    plain, durable = store.batch(), store.batch(durable=True)
    with durable:
        assert level() == 2
    with plain:
        assert level() == 1
    with store.batch(durable=True):
        assert level() == 2


# --- history and requests -------------------------------------------------------------------------


def numbered(store: Store, *ids: str | None) -> None:
    with store.batch() as batch:
        batch.add_events([NewEvent(bot_id, float(i), "kind", f"line {i}", i) for i, bot_id in enumerate(ids)])


def test_history_is_the_newest_lines_in_their_order(store: Store) -> None:
    numbered(store, "a/a", "a/b", None, "a/a", "c/c")

    def seqs(*args: object) -> list[int]:
        return [event.seq for event in store.events(*args)]

    assert seqs() == [1, 2, 3, 4, 5]
    assert seqs(None, None, 2) == [4, 5]
    assert seqs(None, 3, 100) == [4, 5]
    assert seqs(["a/a"]) == [1, 4]
    assert seqs({"a/a", "c/c"}, None, 2) == [4, 5]
    assert seqs(["a/a", "c/c"], 1) == [4, 5]
    assert seqs([]) == [] and seqs(["no/body"]) == []
    assert tuple(store.events(["c/c"])[0]) == (5, "c/c", 4.0, "kind", "line 4", 4)


def test_numbers_of_lines_grow_and_are_never_used_twice(store: Store) -> None:
    with store.batch() as batch:
        assert batch.add_event(None, 1.0, "daemon", "one") == 1
        assert batch.add_events([NewEvent("a/a", 1.0, "k", "t"), NewEvent("a/b", 1.0, "k", "t", 3)]) == range(2, 4)
        assert batch.add_events([]) == range(0)
        assert batch.add_event(None, 1.0, "daemon", "four") == 4
    store._connection.execute("DELETE FROM events")
    store = reopened(store)
    with store.batch() as batch:
        assert batch.add_event(None, 1.0, "daemon", "five") == 5
    store.close()


@pytest.mark.parametrize("text", ["grüß dich", "\udcff.py", "tab\there", "nul\x00byte", "🤖"])
def test_any_text_can_be_history(store: Store, text: str) -> None:
    with store.batch() as batch:
        batch.add_event("a/a", 1.0, "kind", text)
    assert store.events()[0].text == text.replace("\udcff", "\\udcff")


def test_requests(store: Store) -> None:
    assert store.find_request("0:k", 0.0) is None
    with store.batch() as batch:
        batch.begin_request("0:k", 100.0)
    assert store.find_request("0:k", 100.0) == StoredRequest(100.0, None)
    with store.batch() as batch:
        batch.finish_request("0:k", '{"ok":true}')
        batch.finish_request("0:unknown", "{}")
    assert store.find_request("0:k", 50.0) == StoredRequest(100.0, '{"ok":true}')
    assert store.find_request("0:k", 100.5) is None
    assert store.find_request("0:unknown", 0.0) is None
    with store.batch() as batch:
        batch.begin_request("0:k", 800.0)
    assert store.find_request("0:k", 700.0) == StoredRequest(800.0, None)


def test_notes(store: Store) -> None:
    assert store.meta("key") is None
    for value in ("one", "two"):
        with store.batch() as batch:
            batch.set_meta("key", value)
    store = reopened(store)
    assert store.meta("key") == "two"
    store.close()


# --- upkeep ---------------------------------------------------------------------------------------


def test_prune_keeps_the_newest_of_each_bot_and_of_all(store: Store) -> None:
    numbered(store, *["a/a"] * 5, *[None] * 4, "b/b", "b/b")
    with store.batch() as batch:
        batch.begin_request("0:old", 10.0)
        batch.begin_request("0:new", 20.0)
    assert store.prune(requests_before_wall=15.0, events_per_bot=3) == Pruned(events=3, requests=1)
    assert [event.seq for event in store.events()] == [3, 4, 5, 7, 8, 9, 10, 11]
    assert store.find_request("0:old", 0) is None and store.find_request("0:new", 0) is not None
    assert store.prune(requests_before_wall=0.0, events_in_all=4) == Pruned(events=4, requests=0)
    assert [event.seq for event in store.events()] == [8, 9, 10, 11]
    assert store.prune(requests_before_wall=0.0, events_in_all=0) == Pruned(events=3, requests=0)
    assert store.prune(requests_before_wall=0.0) == Pruned(0, 0)


def test_sizes_and_checkpoint(store: Store) -> None:
    put(store, *(bot(f"a/b{i}") for i in range(200)))
    before = store.sizes()
    assert before.wal_bytes > 100_000
    store.checkpoint()
    after = store.sizes()
    assert after.database_bytes > before.database_bytes
    # What was folded in is written over by the next batch: the log does not grow.
    put(store, bot("c/c"))
    assert store.sizes().wal_bytes == before.wal_bytes


def test_a_snapshot_is_a_whole_private_store_of_its_own(store: Store, path: str) -> None:
    put(store, bot())
    assert store.snapshot() == snapshot_path(path)
    put(store, bot("later/one"))
    copy = snapshot_path(path)
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600
    assert sorted(os.listdir(os.path.dirname(path))) == ["botd.db", "botd.db-wal", "botd.db.snapshot"]
    other = Store.open(copy)
    assert other.load() == [bot()]
    other.close()
    store.snapshot()
    other = Store.open(copy)
    assert len(other.load()) == 2
    other.close()


def test_the_files_are_never_open_to_others(folder: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.extend(stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) for name in os.listdir(folder))

    def connect(*args: Any, **named: Any) -> sqlite3.Connection:
        look()
        connection = real(*args, **named)
        connection.set_trace_callback(lambda statement: look())
        return connection

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    before = os.umask(0)
    try:
        store = Store.open(path)
        put(store, bot())
        store.snapshot()
        look()
        store.close()
    finally:
        os.umask(before)
    assert len(seen) > 20 and set(seen) == {0o600}


def test_a_file_that_was_copied_here_is_closed_to_others(store: Store, path: str) -> None:
    store.close()
    os.chmod(path, 0o644)
    Path(f"{path}-wal").touch()
    os.chmod(f"{path}-wal", 0o666)
    store = Store.open(path)
    put(store, bot())
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in (path, f"{path}-wal")} == {0o600}
    store.close()


def test_only_one_at_a_time(store: Store, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "BUSY_TIMEOUT_S", 0.0)
    with pytest.raises(StoreError, match="locked by another process"):
        Store.open(path)
    put(store, bot())
    store.close()
    again = Store.open(path)
    assert len(again.load()) == 1
    again.close()


def test_closing_twice_is_fine_and_leaves_one_file(store: Store, folder: str) -> None:
    put(store, bot())
    store.close()
    store.close()
    assert os.listdir(folder) == ["botd.db"]
    again = Store.open(store.path)
    put(again, bot("b/b"))
    assert sorted(os.listdir(folder)) == ["botd.db", "botd.db-wal"]
    again.close()
    assert os.listdir(folder) == ["botd.db"]


def test_secrets_are_in_their_table_and_nowhere_else(store: Store, path: str) -> None:
    secret = "hunter2-the-secret"
    with store.batch() as batch:
        batch.insert_bot(with_secrets(bot(), "TOKEN"), {"TOKEN": secret})
        batch.add_event("alice/shop", 1.0, "created", "created with the secret TOKEN")
    for table in ("meta", "desired", "observed", "events", "requests"):
        assert secret not in repr(store._connection.execute(f"SELECT * FROM {table}").fetchall())
    assert secret not in repr(store.load()) and secret not in repr(store.events())
    with pytest.raises(StoreError) as caught, store.batch() as batch:
        batch.insert_bot(with_secrets(bot(), "TOKEN"), {"TOKEN": secret})
    assert secret not in repr(caught.value.to_rpc())
    with store.batch() as batch:
        batch.delete_bot("alice/shop")
    store.close()
    # Deleted is gone from the disk, not only from the tables.
    assert secret.encode() not in Path(path).read_bytes()
