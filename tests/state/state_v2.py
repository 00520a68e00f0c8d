"""Writes data/v2.sql: what state_v1 has, and a row of each table that came with the second schema.

    python tests/state/state_v2.py > tests/state/data/v2.sql

Run once, with the botd of that version; the result is checked in and never written again.
"""

from __future__ import annotations

import state_v1

from botd.state import templates
from botd.state.store import Store

OLD, NEW = "0a" * 32, "1b" * 32
MESSENGER = templates.StoredTemplate("messenger", NEW, OLD, "/srv/messenger", 1_700_000_003.5)
RELEASES = [
    templates.StoredRelease("messenger", OLD, {"command": ["node", "index.js"]}, 3000, 35_000_000, 1_700_000_002.0),
    templates.StoredRelease("messenger", NEW, {"command": ["node", "grüß"]}, 3001, 35_000_001, 1_700_000_003.5),
]
ROLL = (7, "messenger", "moving", '{"batch":1}', 1_700_000_004.0)
USAGE = ("alice/shop", '{"bytes":4096}', 1_700_000_005.0)
TRASH = ("a1b2c3", "bob/gone", '{"bytes":17}', 1_700_000_006.0)


def fill(store: Store) -> None:
    state_v1.fill(store)
    with store.batch(durable=True) as batch:
        for release in RELEASES:
            templates.put_release(batch, release)
        templates.put(batch, MESSENGER)
        batch.run("INSERT INTO rolls VALUES (?, ?, ?, ?, ?)", ROLL)
        batch.run("INSERT INTO usage VALUES (?, ?, ?)", USAGE)
        batch.run("INSERT INTO trash VALUES (?, ?, ?, ?)", TRASH)


if __name__ == "__main__":
    print(state_v1.dump(fill))
