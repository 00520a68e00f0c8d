"""A small JSON-RPC client of the benchmark's own: what it measures must not pass through what it measures with."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

ALL = {"all": True}
PAGE = 1000
_PATIENCE_S = 300.0


class RpcError(Exception):
    """botd refused, in its own words."""


class Missed(Exception):
    """botd had to drop events because they were not read quickly enough."""


class Rpc:
    """One connection to the socket at `path`; calls one after the other. OSError when nobody answers.

    TimeoutError when botd says nothing for `patience_s` seconds.
    """

    def __init__(self, path: str, *, patience_s: float = _PATIENCE_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(patience_s)
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")
        self._id = 0
        self._early: deque[bytes] = deque()

    def call(self, method: str, **params: Any) -> Any:
        """The result. RpcError when botd refuses, ConnectionError when it hangs up."""
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self._socket.sendall(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        while True:
            line = self._line()
            message = json.loads(line)
            if message.get("id") == self._id:
                break
            self._early.append(line)
        if "error" in message:
            raise RpcError(f"{method}: {message['error']['message']}")
        return message["result"]

    def everyone(self, *fields: str) -> list[dict[str, Any]]:
        """These fields of every bot, page by page."""
        items: list[dict[str, Any]] = []
        after = None
        while True:
            page = self.call("bots.list", fields=list(fields), limit=PAGE, after=after)
            items += page["items"]
            after = page["next"]
            if after is None:
                return items

    def subscribe(self) -> None:
        """From now on `events` yields what happens."""
        self.call("events.subscribe", select=ALL)

    def events(self, kind: str) -> Iterator[dict[str, Any]]:
        """Events of one kind as they come, for ever. Others are not even decoded. Missed when some were dropped."""
        wanted = f'"{kind}"'.encode()
        while True:
            line = self._early.popleft() if self._early else self._line()
            if b'"events.missed"' in line:
                raise Missed
            if wanted in line and (event := json.loads(line)["params"]["event"])["kind"] == kind:
                yield event

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise ConnectionError("botd closed the connection")
        return line
