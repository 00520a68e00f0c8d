"""Questions to the keeper that one message answers, known by its name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]

WITHIN_S = 15.0


class Answers:
    """Who waits for which answer. Several who wait for the same one share it, and one question."""

    def __init__(self) -> None:
        self._awaited: dict[str, asyncio.Future[Message]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._awaited

    async def ask(self, name: str, send: Callable[[], None], within_s: float = WITHIN_S) -> Message:
        """Ask by `send` (unless it was asked already) and wait for the message `name`. TimeoutError when none comes."""
        future = self._awaited.get(name)
        if future is None:
            future = self._awaited[name] = asyncio.get_running_loop().create_future()
            try:
                send()
            except BaseException:
                # Not asked: who asks next must not wait for this one's answer.
                del self._awaited[name]
                raise
        try:
            return await asyncio.wait_for(asyncio.shield(future), within_s)
        except TimeoutError:
            self._awaited.pop(name, None)
            raise

    def settle(self, name: str, message: Message) -> None:
        """The answer came."""
        future = self._awaited.pop(name)
        if not future.done():
            future.set_result(message)

    def fail(self, name: str, error: Exception) -> None:
        """It will not come."""
        future = self._awaited.pop(name)
        if not future.done():
            future.set_exception(error)
            future.exception()  # seen, also where nobody waits any more

    def fail_all(self, error: Exception) -> None:
        for name in list(self._awaited):
            self.fail(name, error)
