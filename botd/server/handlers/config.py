"""config.show and reload. Checking a file and the schema need no daemon."""

from __future__ import annotations

from typing import Any

from botd.config import effective
from botd.contract.views import document
from botd.server.call import Call
from botd.server.dispatch import Handler
from botd.system.clock import rfc3339


def show(call: Call) -> dict[str, Any]:
    config = call.services.config
    return document(
        source=config.source,
        loaded_at=rfc3339(config.loaded_at_wall),
        last_error=config.last_error,
        config=effective(call.services.settings),
    )


async def reload(call: Call) -> dict[str, Any]:
    return document(**await call.services.config.reload())


HANDLERS: dict[str, Handler] = {"config.show": show, "config.reload": reload}
