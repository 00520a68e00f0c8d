"""What each bot takes on disk, as it was measured last, and where each user stands: a start begins with these figures.

A row is of a bot (its id has a slash) or of a user. None of them is worth waiting for the disk: what is lost is
measured again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from botd.core.quota import Level, Usage
from botd.state.batch import Batch
from botd.state.store import Store

_LEVELS: tuple[Level, ...] = ("within", "near", "over")
_PUT = """
    INSERT INTO usage (id, body, at) VALUES (?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET body = excluded.body, at = excluded.at
"""


class Stored(NamedTuple):
    """`bots`: usage and when it was measured, seconds since the epoch; `levels` of users who are not `within`."""

    bots: dict[str, tuple[Usage, float]]
    levels: dict[str, Level]


def load(store: Store) -> Stored:
    """Everything on record; a row that does not read is left out: it is only a measurement."""
    found = Stored({}, {})
    for key, body, at in store.rows("SELECT id, body, at FROM usage"):
        try:
            values = json.loads(body)
            if "/" in key:
                found.bots[key] = (Usage(max(0, int(values["private"])), max(0, int(values["logs"]))), at)
            elif values["level"] in _LEVELS:
                found.levels[key] = values["level"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


def put(batch: Batch, bots: Mapping[str, tuple[Usage, float]], levels: Mapping[str, Level], at_wall: float) -> None:
    """New figures of these bots, and new levels of these users."""
    batch.run_many(
        _PUT, [(id, json.dumps({"private": use.private, "logs": use.logs}), at) for id, (use, at) in bots.items()]
    )
    batch.run_many(_PUT, [(user, json.dumps({"level": level}), at_wall) for user, level in levels.items()])


def drop(batch: Batch, keys: Iterable[str]) -> None:
    """Forget bots and users that are gone."""
    batch.run_many("DELETE FROM usage WHERE id = ?", [(key,) for key in keys])
