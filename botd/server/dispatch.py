"""A decoded message -> a response: is it well-formed, who is it, may it, are the params right, then the handler."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from botd.access.peer import Caller, authorise
from botd.contract.errors import BotdError, nearest
from botd.contract.framing import failure, response
from botd.contract.methods import METHODS
from botd.contract.schema import check
from botd.contract.vocabulary import RpcCode
from botd.crash import crash_point
from botd.server.call import Call, Channel
from botd.server.services import Services
from botd.system import descriptors

log = logging.getLogger("botd.server")

Handler = Callable[[Call], Any]
"""Answers at once with a result, or with an awaitable of one."""

REMEMBER_S = 600.0
"""For how long a request_id brings back its first answer."""


class Dispatcher:
    def __init__(self, services: Services, handlers: dict[str, Handler]) -> None:
        missing = METHODS.keys() ^ handlers.keys()
        assert not missing, f"methods and handlers differ: {sorted(missing)}"
        self._services = services
        self._handlers = handlers
        self._running: dict[str, asyncio.Task[str]] = {}

    def dispatch(self, message: Any, caller: Caller, channel: Channel) -> Any:
        """The response, None for a notification, or an awaitable of either. Never raises."""
        if (
            not isinstance(message, dict)
            or message.get("jsonrpc") != "2.0"
            or not isinstance(message.get("method"), str)
        ):
            wrong = 'expected {"jsonrpc":"2.0","id":1,"method":"bots.list","params":{}}'
            error = BotdError("invalid", f"not a JSON-RPC 2.0 request: {wrong}", code=RpcCode.INVALID_REQUEST)
            request_id = message.get("id") if isinstance(message, dict) else None
            return failure(request_id if isinstance(request_id, (str, int, float)) else None, error)
        wants_answer = "id" in message
        request_id = message.get("id")
        if request_id is not None and (isinstance(request_id, bool) or not isinstance(request_id, (str, int, float))):
            error = BotdError("invalid", "id: must be a string or a number", code=RpcCode.INVALID_REQUEST)
            return failure(None, error)
        began = self._services.clock.boottime()
        method: str = message["method"]
        try:
            result = self._invoke(message, request_id, caller, channel)
        except Exception as error:  # noqa: BLE001 - the last line of defence: an answer, not a dead daemon
            return self._failed(request_id, method, error, began) if wants_answer else None
        if inspect.isawaitable(result):
            return self._later(result, request_id, method, began, wants_answer=wants_answer)
        self._services.latencies.request(method, self._services.clock.boottime() - began, ok=True)
        return response(request_id, result) if wants_answer else None

    async def _later(
        self, result: Awaitable[Any], request_id: object, method: str, began: float, *, wants_answer: bool
    ) -> Any:
        try:
            value = await result
        except Exception as error:  # noqa: BLE001 - as above
            return self._failed(request_id, method, error, began) if wants_answer else None
        self._services.latencies.request(method, self._services.clock.boottime() - began, ok=True)
        return response(request_id, value) if wants_answer else None

    def _failed(self, request_id: object, method: str, error: Exception, began: float) -> dict[str, Any]:
        if descriptors.is_shortage(error):
            error = descriptors.shortage()
        if not isinstance(error, BotdError):
            log.error("%s failed unexpectedly", method, exc_info=error)
            error = BotdError(
                "internal",
                f"{method} failed inside botd ({type(error).__name__})",
                hint="the daemon's log has the details: botctl daemon logs",
                code=RpcCode.INTERNAL_ERROR,
            )
        self._services.latencies.request(method, self._services.clock.boottime() - began, ok=False)
        return failure(request_id, error)

    def _invoke(self, message: dict[str, Any], request_id: object, caller: Caller, channel: Channel) -> Any:
        name: str = message["method"]
        method = METHODS.get(name)
        if method is None:
            near = nearest(name, METHODS)
            hint = f"did you mean {near}?" if near else "rpc.discover lists every method"
            shown = name if len(name) <= 100 else name[:97] + "..."
            raise BotdError("not_found", f"no method {shown!r}", hint=hint, code=RpcCode.METHOD_NOT_FOUND, exit=2)
        authorise(caller, method)
        params = message.get("params", {})
        if isinstance(params, list):
            raise BotdError("invalid", "params: must be an object with named parameters", code=RpcCode.INVALID_PARAMS)
        params = check(params, method.params, "")
        if method.mutates:
            crash_point("botd-request-checked")
        call = Call(request_id, name, params, caller, channel, self._services)
        handler = self._handlers[name]
        token = params.get("request_id")
        return handler(call) if token is None else self._once(f"{caller.uid}:{name}:{token}", handler, call)

    async def _once(self, key: str, handler: Handler, call: Call) -> Any:
        """The same request_id again: the first answer, and nothing is done twice, also after a restart of botd."""
        running = self._running.get(key)
        if running is None:
            known = self._services.store.find_request(key, self._services.clock.steady() - REMEMBER_S)
            if known is not None:
                return _recall(known.answer)
            running = self._running[key] = asyncio.get_running_loop().create_task(self._begin(key, handler, call))
            running.add_done_callback(lambda done: self._ended(key, done))
        # Whoever asked may hang up and ask again: what was begun goes on, and its outcome is kept.
        return _recall(await asyncio.shield(running))

    async def _begin(self, key: str, handler: Handler, call: Call) -> str:
        store = self._services.store
        with store.batch(durable=True) as batch:
            batch.begin_request(key, self._services.clock.steady())
        crash_point("botd-request-id-begun")
        answer = json.dumps(await _answer(handler, call))
        try:
            with store.batch(durable=True) as batch:
                batch.finish_request(key, answer)
            crash_point("botd-request-id-finished")
        except BotdError as error:
            # It was done all the same, and whoever asked is to know how it went.
            log.error("the outcome of a request is not kept: %s", error)
        return answer

    def _ended(self, key: str, done: asyncio.Task[str]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # whoever asked may be gone; told or not, it was looked at


async def _answer(handler: Handler, call: Call) -> dict[str, Any]:
    try:
        result = handler(call)
        if inspect.isawaitable(result):
            result = await result
    except BotdError as error:
        return {"error": error.to_rpc()}
    return {"result": result}


def _recall(answer: str | None) -> Any:
    if answer is None:
        raise BotdError(
            "conflict",
            "this request was begun before botd was restarted; its outcome was not recorded",
            hint="look with botctl status, then ask again with a new request_id",
        )
    known = json.loads(answer)
    if "error" in known:
        raise BotdError.from_rpc(known["error"])
    return known["result"]
