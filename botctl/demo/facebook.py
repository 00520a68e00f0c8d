"""Both of Facebook's sides, for bots that are to be talked to without a page: events come in, replies go out."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import time
from types import ModuleType
from typing import Any, NamedTuple

from botd.contract.errors import BotdError

_POLL_S = 0.002
_PATIENCE_S = 20.0


class Address(NamedTuple):
    """Where a bot listens, and what Facebook signs its events with."""

    port: int
    app_secret: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Reply(NamedTuple):
    text: str
    at: float
    """When it was there, in seconds since the epoch."""
    took_s: float
    """Since the message was sent off for the first time."""
    page: str
    """A fingerprint of the access token that it was sent with."""


class Waiting:
    """One message that is on its way: `look` delivers it, then looks for the reply, and never blocks for long."""

    def __init__(self, facebook: Facebook, to: Address, sender: str, text: str) -> None:
        self._facebook, self._to, self._sender = facebook, to, sender
        # The same event each time it is delivered, so that the bot handles it once.
        self._event = facebook.client.message_event(sender, text)
        self._after = facebook.last_reply()
        self._began = time.monotonic()
        self._delivered = False

    def look(self, wait_s: float = 0.0) -> Reply | None:
        if not self._delivered:
            try:
                answer = self._facebook.client.deliver(self._to.url, self._to.app_secret, self._event, timeout=2)
            except (OSError, http.client.HTTPException):
                return None  # nobody listens yet, or not any more
            self._delivered = answer.status == 200
        for reply in self._facebook.graph.replies(self._sender, self._after, wait_s):
            return Reply(reply["text"], time.time(), time.monotonic() - self._began, reply["page"])
        return None


class Facebook:
    """The stand-in of the Graph API, in a thread of this process, and the client that delivers signed events.

    `folder` holds the modules of the examples, which are no part of this package.
    """

    def __init__(self, folder: str) -> None:
        self.client = _load(f"{folder}/client.py")
        self._stand_in = _load(f"{folder}/stand_in.py")
        self.graph: Any = self._stand_in.GraphStandIn(0).start()
        self._people = itertools.count(1)

    @property
    def url(self) -> str:
        return str(self.graph.url)

    def person(self) -> str:
        """The id of somebody new."""
        return f"person-{next(self._people)}"

    def fingerprint(self, access_token: str) -> str:
        return str(self._stand_in.page_fingerprint(access_token))

    def last_reply(self) -> int:
        return max((reply["n"] for reply in self.graph.replies()), default=0)

    def send(self, to: Address, sender: str, text: str) -> Waiting:
        return Waiting(self, to, sender, text)

    def ask(self, to: Address, sender: str, text: str, patience_s: float = _PATIENCE_S) -> Reply:
        """Send a message and wait for the reply. Raises BotdError(timeout)."""
        waiting = self.send(to, sender, text)
        deadline = time.monotonic() + patience_s
        while (reply := waiting.look(0.5)) is None:
            if time.monotonic() > deadline:
                raise BotdError("timeout", f"no reply from {to.url} to {text!r} within {patience_s:g} s")
            time.sleep(_POLL_S)
        return reply

    def forge(self, to: Address) -> int:
        """Deliver an event that somebody else has signed; the status of the answer."""
        stranger = to._replace(app_secret="not-the-secret")
        event = self.client.message_event(self.person(), "give me everything")
        return int(self.client.deliver(stranger.url, stranger.app_secret, event).status)

    def close(self) -> None:
        self.graph.stop()


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"demo_{path.rpartition('/')[2].removesuffix('.py')}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
