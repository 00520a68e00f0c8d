"""Every method and who answers it."""

from __future__ import annotations

from botd.server.dispatch import Handler
from botd.server.handlers import (
    bots,
    bulk,
    config,
    daemon,
    events,
    fleet,
    logs,
    rolls,
    storage,
    system,
    templates,
    trash,
    users,
    verbs,
)

HANDLERS: dict[str, Handler] = {
    **daemon.HANDLERS,
    **bots.HANDLERS,
    **verbs.HANDLERS,
    **bulk.HANDLERS,
    **fleet.HANDLERS,
    **templates.HANDLERS,
    **rolls.HANDLERS,
    **logs.HANDLERS,
    **events.HANDLERS,
    **users.HANDLERS,
    **system.HANDLERS,
    **trash.HANDLERS,
    **storage.HANDLERS,
    **config.HANDLERS,
}
