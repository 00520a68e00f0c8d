"""From nothing, from every old file, and never from a newer or a foreign one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import state_v1
import state_v2

from botd.contract.errors import BotdError
from botd.state import connection as connection_module
from botd.state import schema, templates
from botd.state.connection import connect
from botd.state.errors import NewerSchema
from botd.state.store import Store, StoreError

DATA = Path(__file__).parent / "data"


def from_text(path: str, name: str) -> None:
    script = (DATA / name).read_text()
    if not schema.STRICT:
        script = script.replace(" STRICT", "")
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def layout(path: str) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    version = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return [*rows, ("user_version", str(version[0]))]


@pytest.mark.parametrize("name", sorted(file.name for file in DATA.glob("*.sql")))
def test_an_old_database_opens_with_everything_in_it(path: str, name: str) -> None:
    from_text(path, name)
    store = Store.open(path)
    assert store.load() == state_v1.BOTS
    assert store.secrets("alice/shop") == state_v1.SECRETS
    assert [tuple(event)[1:] for event in store.events()] == [tuple(event) for event in state_v1.EVENTS]
    assert [event.seq for event in store.events()] == [1, 2, 3]
    finished, begun = store.find_request("0:finished", 0), store.find_request("0:begun", 0)
    assert finished is not None and finished.answer == '{"ok":true}'
    assert begun is not None and begun.answer is None
    assert store.meta("note") == "kept"
    with store.batch() as batch:
        assert batch.add_event(None, 1.0, "daemon", "botd started") == 4
    store.close()


def test_the_tables_of_the_second_schema_open_with_everything_in_them(path: str) -> None:
    from_text(path, "v2.sql")
    store = Store.open(path)
    assert templates.templates(store) == {"messenger": state_v2.MESSENGER}
    assert templates.releases(store, "messenger") == templates.releases(store) == state_v2.RELEASES
    assert templates.releases(store, "other") == []
    for table, row in (("rolls", state_v2.ROLL), ("usage", state_v2.USAGE), ("trash", state_v2.TRASH)):
        assert store.rows(f"SELECT * FROM {table}") == [row]
    store.close()


def test_an_old_database_has_no_templates(path: str) -> None:
    from_text(path, "v1.sql")
    store = Store.open(path)
    assert templates.templates(store) == {} and templates.releases(store) == []
    store.close()


def test_templates_come_change_and_go(path: str) -> None:
    store = Store.open(path)
    state_v2.fill(store)
    store.snapshot()
    newest = state_v2.MESSENGER._replace(release=state_v2.OLD, previous=None, updated_at=1_800_000_000.0)
    with store.batch(durable=True) as batch:
        templates.put(batch, newest)
        templates.put_release(batch, state_v2.RELEASES[0]._replace(files=1))  # what is on record stays
        templates.drop_release(batch, "messenger", state_v2.NEW)
    assert store.snapshot_due
    assert templates.templates(store) == {"messenger": newest}
    assert templates.releases(store) == state_v2.RELEASES[:1]
    with store.batch() as batch:
        templates.drop(batch, "messenger")
        with pytest.raises(LookupError):
            templates.drop(batch, "messenger")
    assert templates.templates(store) == {} and templates.releases(store) == []
    store.close()


@pytest.mark.parametrize("name", sorted(file.name for file in DATA.glob("*.sql")))
def test_an_old_database_becomes_the_same_as_a_new_one(folder: str, path: str, name: str) -> None:
    from_text(path, name)
    for each in (path, f"{folder}/new.db"):
        Store.open(each).close()
    assert [(n, " ".join(sql.split())) for n, sql in layout(path)] == [
        (n, " ".join(sql.split())) for n, sql in layout(f"{folder}/new.db")
    ]


def test_a_file_of_a_newer_botd_is_refused_and_left_alone(path: str) -> None:
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match="written by a newer botd") as caught:
        Store.open(path)
    assert "upgrade botd" in caught.value.hint
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"])
def test_a_database_of_another_program_is_refused_and_left_alone(path: str, mark: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(mark)
    connection.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match="belongs to another program"):
        Store.open(path)
    assert Path(path).read_bytes() == before


def test_a_migration_happens_whole_or_not_at_all(path: str) -> None:
    Store.open(path).close()
    before = layout(path)
    connection = connect(path)
    spoilt = [*schema.MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE TABLE desired (x)")]
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        schema.migrate(connection, path, spoilt)
    connection.close()
    assert layout(path) == before


def test_migrations_go_on_from_where_a_file_stands(path: str) -> None:
    Store.open(path).close()
    connection = connect(path)
    more = [*schema.MIGRATIONS, ("CREATE TABLE second (x)",), ("INSERT INTO second VALUES (3)",)]
    known = len(schema.MIGRATIONS)
    assert schema.migrate(connection, path, more) == known
    assert schema.migrate(connection, path, more) == known + 2
    assert connection.execute("SELECT x FROM second").fetchall() == [(3,)]
    connection.close()


def test_a_library_without_strict_tables_holds_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [[statement.replace(" STRICT", "") for statement in one] for one in schema.MIGRATIONS]
    monkeypatch.setattr(schema.migrate, "__defaults__", (plain,))
    store = Store.open(path)
    assert not any("STRICT" in str(row) for row in store._connection.execute("SELECT sql FROM sqlite_master"))
    state_v1.fill(store)
    assert store.load() == state_v1.BOTS
    store.close()


def test_every_statement_of_the_schema_is_accepted_as_an_error_free_script() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        assert schema.migrate(connection, ":memory:") == 0
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def test_a_refusal_is_an_error_of_the_contract(path: str) -> None:
    Path(path).write_bytes(b"")
    with pytest.raises(BotdError) as caught:
        Store.open(path)
    assert caught.value.kind == "unavailable"
    assert caught.value.hint


@pytest.fixture
def one_more(monkeypatch: pytest.MonkeyPatch) -> tuple[schema.Migration, ...]:
    """A botd with one migration more."""
    more = (*schema.MIGRATIONS, ("CREATE TABLE novelty (x)",))
    monkeypatch.setattr(connection_module, "MIGRATIONS", more)
    monkeypatch.setattr(schema.migrate, "__defaults__", (more,))
    monkeypatch.setattr(schema.check_owner, "__defaults__", (len(more),))
    return more


def test_before_a_migration_the_database_is_kept_and_can_be_put_back(path: str, one_more: object) -> None:
    known = len(schema.MIGRATIONS)
    with pytest.MonkeyPatch.context() as former:
        former.setattr(connection_module, "MIGRATIONS", schema.MIGRATIONS)
        former.setattr(schema.migrate, "__defaults__", (schema.MIGRATIONS,))
        former.setattr(schema.check_owner, "__defaults__", (known,))
        store = Store.open(path)
        state_v1.fill(store)
        store.close()
        assert not Path(f"{path}.v{known}").exists()
    Store.open(path).close()  # migrated
    kept = Path(f"{path}.v{known}")
    assert kept.stat().st_mode & 0o777 == 0o600
    with pytest.MonkeyPatch.context() as former:
        former.setattr(connection_module, "MIGRATIONS", schema.MIGRATIONS)
        former.setattr(schema.migrate, "__defaults__", (schema.MIGRATIONS,))
        former.setattr(schema.check_owner, "__defaults__", (known,))
        with pytest.raises(NewerSchema) as caught:
            Store.open(path)
        assert (caught.value.version, caught.value.known) == (known + 1, known)
        assert str(kept) in caught.value.hint
        connection_module.restore_former(path, known)
        assert not kept.exists()
        store = Store.open(path)
        assert store.load() == state_v1.BOTS
        store.close()
        with pytest.raises(StoreError):
            connection_module.restore_former(path, known)  # there is no copy any more: nothing is touched
        assert Store.open(path).load() == state_v1.BOTS
