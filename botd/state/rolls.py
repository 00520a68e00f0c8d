"""Rolls on record: a row for each roll, and one for each batch of an open one.

A batch is written when its bots are moved, in the transaction that changes their specifications, and once more when
they are moved back. So a step of a roll costs what its batch costs, however large the fleet is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from botd.core.gate import Mark
from botd.core.roll import PHASES, Options, Roll
from botd.state.batch import Batch
from botd.state.store import Store

log = logging.getLogger("botd.state")

KEPT = 20
"""How many rolls of a template that are over are remembered."""

_BATCH = "batch"
"""What stands in the column of the phase in a row that is a batch."""
_SHIFT = 32
"""Batch n of roll r has the key (r << 32) + n, so that a roll is a small number that a person can say."""

_SAVE = """
    INSERT INTO rolls (id, template, state, body, at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body, at = excluded.at
"""
_PRUNE = """
    DELETE FROM rolls WHERE template = ?1 AND id < 1 << 32 AND id <= (
        SELECT id FROM rolls WHERE template = ?1 AND id < 1 << 32 ORDER BY id DESC LIMIT 1 OFFSET ?2
    )
"""


@dataclass(frozen=True, slots=True)
class StoredRoll:
    """`batches`: the marks of each batch that was moved, by number; empty for a roll that is over."""

    roll: Roll
    batches: dict[int, dict[str, Mark]] = field(default_factory=dict)


def save(batch: Batch, roll: Roll, at_wall: float) -> None:
    """What a roll is now. One that is over loses its batches, and the oldest of its template are forgotten."""
    batch.run(_SAVE, (roll.id, roll.template, roll.phase, json.dumps(_encoded(roll)), at_wall))
    if not roll.open:
        first = roll.id << _SHIFT
        batch.run("DELETE FROM rolls WHERE id BETWEEN ? AND ?", (first, first + (1 << _SHIFT) - 1))
        batch.run(_PRUNE, (roll.template, KEPT))


def save_batch(batch: Batch, roll: Roll, number: int, marks: Mapping[str, Mark], at_wall: float) -> None:
    """The bots of a batch as they were when they were moved."""
    body = {"marks": {id: [m.former, m.generation, m.restarts, m.was] for id, m in marks.items()}}
    batch.run(_SAVE, ((roll.id << _SHIFT) + number, roll.template, _BATCH, json.dumps(body), at_wall))


def next_id(store: Store) -> int:
    [(last,)] = store.rows("SELECT max(id) FROM rolls WHERE id < 1 << 32")
    return 1 + (last or 0)


def open_rolls(store: Store) -> list[StoredRoll]:
    """Every roll that is not over, oldest first."""
    found: dict[int, StoredRoll] = {}
    for number, template, phase, body in store.rows("SELECT id, template, state, body FROM rolls ORDER BY id"):
        # What a botd wrote reads; a row that was saved from a damaged file may not, and then its roll goes on without.
        try:
            wire = json.loads(body)
            if phase != _BATCH:
                if (roll := _decoded(number, template, phase, wire)).open:
                    found[number] = StoredRoll(roll)
            elif (of := found.get(number >> _SHIFT)) is not None:
                marks = {bot_id: Mark(*fields) for bot_id, fields in wire["marks"].items()}
                of.batches[number & ((1 << _SHIFT) - 1)] = marks
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("row %d of the rolls cannot be read: %s", number, error)
    return list(found.values())


def recent(store: Store, template: str | None = None, limit: int = KEPT) -> list[Roll]:
    """The newest rolls, of one template or of all, newest first."""
    rows = store.rows(
        "SELECT id, template, state, body FROM rolls WHERE id < 1 << 32 AND (?1 IS NULL OR template = ?1) "
        "ORDER BY id DESC LIMIT ?2",
        (template, limit),
    )
    out = []
    for number, name, phase, body in rows:
        try:
            out.append(_decoded(number, name, phase, json.loads(body)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("row %d of the rolls cannot be read: %s", number, error)
    return out


_COLUMNS = ("id", "template", "phase")


def _encoded(roll: Roll) -> dict[str, Any]:
    return {key: value for key, value in asdict(roll).items() if key not in _COLUMNS}


def _decoded(number: int, template: str, phase: str, wire: dict[str, Any]) -> Roll:
    if phase not in PHASES:
        raise ValueError(f"{phase!r} is no phase of a roll")
    known = {key: value for key, value in wire.items() if key in Roll.__slots__ and key not in _COLUMNS}
    options = {key: value for key, value in wire["options"].items() if key in Options.__slots__}
    known["failed"] = tuple((bot_id, reason) for bot_id, reason in wire.get("failed", ()))
    return Roll(**{**known, "id": number, "template": template, "phase": phase, "options": Options(**options)})
