"""daemon.ping, version, status, shutdown, repair, upgrade, and rpc.discover."""

from __future__ import annotations

import os
import resource
from typing import Any

from botd.contract import PROTOCOL
from botd.contract.methods import METHODS, NOTIFICATIONS
from botd.contract.views import document
from botd.server.call import Call
from botd.server.dispatch import Handler


def ping(call: Call) -> dict[str, Any]:
    return {"pong": True}


def version(call: Call) -> dict[str, Any]:
    return document(version=call.services.version, protocol=PROTOCOL, pid=os.getpid())


def discover(call: Call) -> dict[str, Any]:
    """After OpenRPC, as far as a Unix socket needs it."""
    methods = [
        {
            "name": method.name,
            "summary": method.summary,
            "params": method.params,
            "result": method.result,
            "x-mutates": method.mutates,
            "x-who": method.who,
            "x-streams": method.stream,
        }
        for method in METHODS.values()
    ]
    info = {"title": "botd", "version": call.services.version, "x-protocol": PROTOCOL}
    return document(openrpc="1.3.2", info=info, methods=methods, notifications=NOTIFICATIONS)


def status(call: Call) -> dict[str, Any]:
    services = call.services
    fleet = services.fleet
    return document(
        pid=os.getpid(),
        version=services.version,
        protocol=PROTOCOL,
        uptime_s=round(services.clock.boottime() - services.started_at, 1),
        home=services.paths.home,
        socket=services.paths.socket,
        config=services.config.source,
        config_error=services.config.last_error,
        user={"uid": os.geteuid()},
        keeper=services.keeper(),
        mechanisms=services.mechanisms(),
        bots={"total": len(fleet), "running": fleet.phases["running"]},
        waiting_for_disk=services.engine.deferred,
        database=services.database(),
        warnings=services.warnings(),
        upgrade=services.upgraded(),
        limits={"nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0]},
    )


async def shutdown(call: Call) -> dict[str, Any]:
    left = await call.services.shut_down(call.params["bots"], call.params["timeout_s"])
    return document(bots_left=left)


async def repair(call: Call) -> dict[str, Any]:
    return document(**await call.services.repair(call.params["check"]))


async def upgrade(call: Call) -> dict[str, Any]:
    return document(**await call.services.upgrade(call.params["python"], call.params["timeout_s"]))


HANDLERS: dict[str, Handler] = {
    "rpc.discover": discover,
    "daemon.ping": ping,
    "daemon.version": version,
    "daemon.status": status,
    "daemon.shutdown": shutdown,
    "daemon.repair": repair,
    "daemon.upgrade": upgrade,
}
