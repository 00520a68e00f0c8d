"""The tables, as numbered migrations: `PRAGMA user_version` counts those that a file has been through.

A migration that was ever released is never edited; a change is a new one at the end of the list.
What is wanted (`desired`) and what is (`observed`) are apart: the first is written when a user was told
so, the second whenever a bot changes, and neither can overwrite the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from botd.crash import crash_point
from botd.state.errors import NewerSchema, StoreError

APPLICATION_ID = int.from_bytes(b"botd", "big")
"""Marks a file as ours (`PRAGMA application_id`): another program's database is never touched."""

# STRICT came with SQLite 3.37. Older libraries hold the same data, only less strictly.
STRICT = " STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""

Migration = Sequence[str]

_V1: Migration = (
    f"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL){STRICT}",
    f"""
    CREATE TABLE desired (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        name TEXT NOT NULL,
        wanted INTEGER NOT NULL,
        spec TEXT NOT NULL,
        port INTEGER UNIQUE,
        source TEXT,
        created_at REAL NOT NULL
    ){STRICT}
    """,
    "CREATE INDEX desired_source ON desired (source) WHERE source IS NOT NULL",
    f"""
    CREATE TABLE observed (
        id TEXT PRIMARY KEY REFERENCES desired (id) ON DELETE CASCADE,
        boot_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        phase TEXT NOT NULL,
        state TEXT NOT NULL
    ){STRICT}
    """,
    f"""
    CREATE TABLE secrets (
        id TEXT NOT NULL REFERENCES desired (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (id, name)
    ){STRICT}
    """,
    # History outlives its bot: it refers to the id, not to the row.
    f"""
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        text TEXT NOT NULL,
        generation INTEGER
    ){STRICT}
    """,
    "CREATE INDEX events_of_bot ON events (id, seq)",
    f"CREATE TABLE requests (key TEXT PRIMARY KEY, at REAL NOT NULL, answer TEXT){STRICT}",
    "CREATE INDEX requests_at ON requests (at)",
)

# Releases themselves are folders, complete without these rows: here is which of them is in force, and what people
# list. Nothing refers to a row by a foreign key: what was salvaged of one table must not need another. A `body` is
# JSON, an object, and belongs to the module of that name.
_V2: Migration = (
    f"""
    CREATE TABLE templates (
        name TEXT PRIMARY KEY,
        release TEXT NOT NULL,
        previous TEXT,
        source TEXT,
        updated_at REAL NOT NULL
    ){STRICT}
    """,
    f"""
    CREATE TABLE releases (
        template TEXT NOT NULL,
        hash TEXT NOT NULL,
        manifest TEXT NOT NULL,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        added_at REAL NOT NULL,
        PRIMARY KEY (template, hash)
    ){STRICT}
    """,
    f"""
    CREATE TABLE rolls (
        id INTEGER PRIMARY KEY,
        template TEXT NOT NULL,
        state TEXT NOT NULL,
        body TEXT NOT NULL,
        at REAL NOT NULL
    ){STRICT}
    """,
    f"CREATE TABLE usage (id TEXT PRIMARY KEY, body TEXT NOT NULL, at REAL NOT NULL){STRICT}",
    f"CREATE TABLE trash (key TEXT PRIMARY KEY, id TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL){STRICT}",
)

MIGRATIONS: tuple[Migration, ...] = (
    _V1,
    _V2,
)


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the file to the newest schema; returns the version it had before.

    Each migration is one transaction together with its number: a crash leaves the file before or after it.
    Raises StoreError for a file of a newer botd or of another program, sqlite3.Error for anything else.
    """
    before = check_owner(connection, path, len(migrations))
    for number, statements in enumerate(migrations[before:], before + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
                crash_point("botd-migration-step")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
            crash_point("botd-migration-committed")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return before


def check_owner(connection: sqlite3.Connection, path: str, newest: int = len(MIGRATIONS)) -> int:
    """The version of the file. Raises StoreError for a file of a newer botd or of another program."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or version or application):
        raise StoreError(path, "belongs to another program", "set BOTD_HOME to a folder of botd's own")
    if version > newest:
        raise NewerSchema(path, int(version), newest)
    return int(version)
