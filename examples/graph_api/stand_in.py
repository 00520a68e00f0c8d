"""A stand-in of Facebook's Graph API for trying bots without a page, on 127.0.0.1. Standard library only.

    python3 stand_in.py [--port 8700] [--record replies.jsonl]

It takes what bots send to `POST /{version}/me/messages?access_token=...`, checks it the way the real Send API
does, answers in the same shapes, and keeps the replies. For whoever watches:

    GET /_replies?recipient=ID&after=N&timeout=S    {"replies": [...], "calls": C}: the replies numbered above
                                                    N; waits up to S seconds (at most 30) for the first one
    POST /_fail?n=2&status=500                      the next two calls fail with this status

A reply is {"n", "at", "recipient", "text", "message_id", "page"}; `page` is a fingerprint of the access
token, so that one can tell which page answered without the token being written anywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import parse_qs, urlsplit

BODY_LIMIT = 1 << 20
TEXT_LIMIT = 2000
KEPT = 10_000
LONGEST_WAIT_S = 30.0
MESSAGING_TYPES = ("RESPONSE", "UPDATE", "MESSAGE_TAG")


class GraphError(Exception):
    """An answer in the shape of the Graph API: {"error": {message, type, code, fbtrace_id}}."""

    def __init__(self, status: int, code: int, message: str, kind: str = "OAuthException") -> None:
        super().__init__(message)
        self.status = status
        trace = uuid.uuid4().hex[:11]
        self.body = {"error": {"message": message, "type": kind, "code": code, "fbtrace_id": trace}}


def page_fingerprint(access_token: str) -> str:
    return hashlib.sha256(access_token.encode()).hexdigest()[:12]


class GraphStandIn:
    """The stand-in as an object: `with GraphStandIn() as graph: ... graph.url, graph.replies(...)`.

    port 0 takes a free one. record: a file that gets each reply as one JSON line. tokens: the access tokens
    that are valid; None means that any is.
    """

    def __init__(self, port: int = 0, record: str | None = None, tokens: Collection[str] | None = None) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.graph = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._tokens = tokens
        self._record: TextIO | None = open(record, "a", encoding="utf-8") if record else None  # noqa: SIM115
        self._changed = threading.Condition()
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._count = 0
        self._fail: list[int] = []
        self.calls = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> GraphStandIn:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Idempotent; returns when the port is free again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        if self._record:
            self._record.close()

    def __enter__(self) -> GraphStandIn:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def fail_next(self, n: int, status: int = 500) -> None:
        """The next n calls of the Send API fail with this HTTP status."""
        with self._changed:
            self._fail.extend([status] * n)

    def replies(self, recipient: str | None = None, after: int = 0, timeout: float = 0) -> list[dict[str, Any]]:
        """Replies numbered above `after`, to one recipient or all; waits up to `timeout` s for the first."""
        deadline = time.monotonic() + min(timeout, LONGEST_WAIT_S)
        with self._changed:
            while True:
                found = [
                    reply for reply in self._kept if reply["n"] > after and recipient in (None, reply["recipient"])
                ]
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._changed.wait(left)

    def send_message(self, access_token: str | None, body: object) -> dict[str, str]:
        """One call of the Send API; raises GraphError where the real one refuses."""
        with self._changed:
            self.calls += 1
            if self._fail:
                raise GraphError(self._fail.pop(0), 1, "An unknown error occurred", "OAuthException")
        if not access_token:
            raise GraphError(400, 104, "An access token is required to request this resource.")
        if self._tokens is not None and access_token not in self._tokens:
            raise GraphError(401, 190, "Invalid OAuth access token - Cannot parse access token")
        recipient, text = check_message(body)
        reply = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "recipient": recipient,
            "text": text,
            "message_id": f"m_{uuid.uuid4().hex}",
            "page": page_fingerprint(access_token),
        }
        with self._changed:
            self._count += 1
            self._kept.append({"n": self._count, **reply})
            if self._record:
                self._record.write(json.dumps(self._kept[-1]) + "\n")
                self._record.flush()
            self._changed.notify_all()
        return {"recipient_id": recipient, "message_id": reply["message_id"]}


def check_message(body: object) -> tuple[str, str]:
    """(recipient, text) of a Send API call, or GraphError with the real API's code for a bad parameter."""

    def bad(message: str) -> GraphError:
        return GraphError(400, 100, f"(#100) {message}")

    if not isinstance(body, dict):
        raise bad("The body must be a JSON object")
    recipient = body.get("recipient")
    if not isinstance(recipient, dict) or not isinstance(recipient.get("id"), str) or not recipient["id"]:
        raise bad("param recipient must be non-empty.")
    if body.get("messaging_type") not in MESSAGING_TYPES:
        raise bad(f"Param messaging_type must be one of {{{', '.join(MESSAGING_TYPES)}}}")
    message = body.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("text"), str) or not message["text"]:
        raise bad("param message must be non-empty.")
    if len(message["text"]) > TEXT_LIMIT:
        raise bad(f"Length of param message[text] must be less than or equal to {TEXT_LIMIT}")
    return recipient["id"], message["text"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # somebody may be waiting for replies that never come
    request_queue_size = 128
    graph: GraphStandIn

    def handle_error(self, *request: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a bot that is killed in the middle of a call is no news
            super().handle_error(*request)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path != "/_replies":
            return self._unknown()
        try:
            after, timeout = int(asked.get("after", "0")), float(asked.get("timeout", "0"))
        except ValueError:
            after, timeout = -1, -1.0
        if after < 0 or not timeout >= 0:
            return self._answer(400, {"error": {"message": "after and timeout are numbers from 0"}})
        graph = self.server.graph
        replies = graph.replies(asked.get("recipient"), after, timeout)
        self._answer(200, {"replies": replies, "calls": graph.calls})

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self._body()
        if body is None:
            return self._answer(413, {"error": {"message": "a Content-Length up to 1 MiB is needed"}})
        if url.path == "/_fail":
            return self._fail(asked)
        if not re.fullmatch(r"/v[0-9]+\.[0-9]+/me/messages", url.path):
            return self._unknown()
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            message = None
        try:
            self._answer(200, self.server.graph.send_message(asked.get("access_token"), message))
        except GraphError as error:
            self._answer(error.status, error.body)

    def _fail(self, asked: dict[str, str]) -> None:
        try:
            n, status = int(asked.get("n", "1")), int(asked.get("status", "500"))
        except ValueError:
            n, status = -1, -1
        if not 0 <= n <= KEPT or not 400 <= status <= 599:
            return self._answer(400, {"error": {"message": f"n is 0 to {KEPT}, status is 400 to 599"}})
        self.server.graph.fail_next(n, status)
        self._answer(200, {"failing": n})

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > BODY_LIMIT:
            return None
        return self.rfile.read(int(length))

    def _unknown(self) -> None:
        error = GraphError(404, 2500, "Unknown path components", "OAuthException")
        self._answer(error.status, error.body)

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silent: the request line holds the access token."""


def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in of the Graph API's Send API, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8700, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--record", metavar="FILE", help="append each reply to this file, as one JSON line")
    options = parser.parse_args()
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    try:
        graph = GraphStandIn(options.port, options.record)
    except (OSError, OverflowError) as error:
        print(f"stand_in: cannot start on port {options.port}: {error}", file=sys.stderr)
        return 1
    with graph:
        print(f"the Graph API stands in at {graph.url}", flush=True)
        signal.sigwait(stop_signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
