"""A roll as it travels."""

from __future__ import annotations

from typing import Any

from botd.core.roll import Options, Roll
from botd.system.clock import rfc3339


def view(roll: Roll) -> dict[str, Any]:
    """Keys are only ever added; `moved` counts bots of finished batches."""
    options = roll.options
    return {
        "id": roll.id,
        "template": roll.template,
        "release": roll.target,
        "phase": roll.phase,
        "batch": roll.number,
        "batches": roll.batches,
        "bots": roll.bots,
        "moved": roll.moved,
        "failed": roll.failures,
        "failures": [{"id": bot_id, "reason": reason} for bot_id, reason in roll.failed],
        "reason": roll.reason,
        "options": {key: getattr(options, key) for key in Options.__slots__},
        "began_at": rfc3339(roll.began_at_wall),
        "ended_at": None if roll.ended_at_wall is None else rfc3339(roll.ended_at_wall),
    }
