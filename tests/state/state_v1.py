"""Writes data/v1.sql, the database of the first botd, as it must open for ever.

    python tests/state/state_v1.py > tests/state/data/v1.sql

Run once for each schema version, with the botd of that version; the result is checked in and never
written again. (The dump of `sqlite3` leaves the numbers in the header out, so they are added.)
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable

from state_bots import RUNNING

from botd.core.bot import BotState, Deadline, Exit, Probe, Recovery, Spec
from botd.state.store import NewEvent, Store, StoredBot

SHOP = StoredBot(
    Spec(
        "alice/shop",
        ("python3", "-u", "bot.py"),
        "/srv/alice/shop",
        env={"PREFIX": "!", "GREETING": "grüß dich"},
        secret_names=("APPSTATE", "TOKEN"),
        labels={"tier": "free"},
        memory_bytes=256 << 20,
        restart="on-failure",
        stop_signal="SIGINT",
        stop_grace_s=2.5,
        wants_port=True,
        probe=Probe("http", "http://127.0.0.1:{port}/health", None, 30.0, 5.0, 3, 20.0),
        template="messenger",
        release="0123abcd",
    ),
    RUNNING,
    1_699_999_999.25,
    port=20001,
    source="/srv/fleet.toml",
    boot_id="6d1f2c3e-boot",
)
NEWS = StoredBot(
    Spec("bob/news", ("node", "index.js"), "/srv/bob/news"),
    BotState(
        phase="backoff",
        wanted=True,
        generation=4,
        since=77.125,
        attempts=3,
        restarts=3,
        deadline=Deadline("retry", 78.125),
        reason="killed by SIGSEGV; again",
        last_exit=Exit(None, 11, 1_700_000_100.0, 0.5, "memory"),
        outage_at=70.0,
        recovery=Recovery(3, 1, 2, 1.5, 1.5),
    ),
    1_700_000_000.0,
    boot_id="6d1f2c3e-boot",
)
IDLE = StoredBot(Spec("carol/idle", ("sleep", "inf"), "/"), BotState(), 1_700_000_001.0)
BOTS = [SHOP, NEWS, IDLE]
SECRETS = {"APPSTATE": '[{"key": "c_user"}]', "TOKEN": "placeholder-value"}
EVENTS = [
    NewEvent(None, 1_699_999_000.0, "daemon", "botd started", None),
    NewEvent("alice/shop", 1_700_000_000.5, "exited", "exited with code 3 after 12.5 s", 6),
    NewEvent("alice/shop", 1_700_000_001.0, "started", "life 7 started, pid 4242", 7),
]


def fill(store: Store) -> None:
    with store.batch(durable=True) as batch:
        batch.insert_bot(SHOP, SECRETS)
        batch.insert_bot(NEWS, {})
        batch.insert_bot(IDLE, {})
        batch.add_events(EVENTS)
        batch.begin_request("0:finished", 1_700_000_000.0)
        batch.finish_request("0:finished", '{"ok":true}')
        batch.begin_request("0:begun", 1_700_000_001.0)
        batch.set_meta("note", "kept")


def dump(fill: Callable[[Store], None] = fill) -> str:
    folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
    try:
        store = Store.open(f"{folder}/botd.db")
        fill(store)
        store.close()
        connection = sqlite3.connect(f"{folder}/botd.db")
        header = [
            f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        lines = [*header, *connection.iterdump()]
        connection.close()
        return "\n".join(lines)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    print(dump())
