"""Facebook's side of the webhook: builds signed events and delivers them to a bot. Standard library only.

    APP_SECRET=... python3 client.py http://127.0.0.1:3001 '!ping'

delivers one message and prints the bot's answer to the delivery; the bot's reply goes to its Graph API.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import sys
import time
import uuid
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

PAGE_ID = "100000000000001"


class Answer(NamedTuple):
    status: int
    body: str


def signature(app_secret: str, body: bytes) -> str:
    """The value of X-Hub-Signature-256 for these raw bytes."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


def message_event(sender: str, text: str, mid: str | None = None, **extra: object) -> dict[str, Any]:
    """One messaging event, as it stands in entry[].messaging[]; `extra` goes into its message."""
    message = {"mid": mid or f"m_{uuid.uuid4().hex}", "text": text, **extra}
    return {**_envelope(sender), "message": message}


def postback_event(sender: str, payload: str, mid: str | None = None) -> dict[str, Any]:
    """What a tap on a button (or on Get Started: GET_STARTED) delivers."""
    postback = {"mid": mid or f"m_{uuid.uuid4().hex}", "title": payload.title(), "payload": payload}
    return {**_envelope(sender), "postback": postback}


def delivery_event(sender: str, mid: str) -> dict[str, Any]:
    return {**_envelope(sender), "delivery": {"mids": [mid], "watermark": _now_ms()}}


def read_event(sender: str) -> dict[str, Any]:
    return {**_envelope(sender), "read": {"watermark": _now_ms()}}


def page_delivery(*events: dict[str, Any]) -> bytes:
    """The body of one delivery, with the escapes that Facebook uses and signs."""
    entry = {"id": PAGE_ID, "time": _now_ms(), "messaging": list(events)}
    return json.dumps({"object": "page", "entry": [entry]}, separators=(",", ":")).encode()


def deliver(bot_url: str, app_secret: str, *events: dict[str, Any], timeout: float = 10) -> Answer:
    """Sign these events and POST them to the bot's webhook. OSError where nobody listens."""
    body = page_delivery(*events)
    return post(bot_url, body, {"X-Hub-Signature-256": signature(app_secret, body)}, timeout=timeout)


def post(bot_url: str, body: bytes, headers: dict[str, str], timeout: float = 10) -> Answer:
    """Any bytes, as they are, to the bot's webhook."""
    headers = {"Content-Type": "application/json", **headers}
    return _request(bot_url, "POST", "/webhook", body, headers, timeout)


def get(bot_url: str, path: str, timeout: float = 10) -> Answer:
    return _request(bot_url, "GET", path, None, {}, timeout)


def verify(bot_url: str, verify_token: str, challenge: str, mode: str = "subscribe") -> Answer:
    """The handshake that Facebook starts when a webhook is set up: the answer must be the challenge."""
    query = {"hub.mode": mode, "hub.verify_token": verify_token, "hub.challenge": challenge}
    return get(bot_url, f"/webhook?{urlencode(query)}")


def _request(
    bot_url: str, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(bot_url).netloc, timeout=timeout)
    try:
        try:
            connection.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may refuse a body before it has read all of it: its answer is there to be read
        response = connection.getresponse()
        return Answer(response.status, response.read().decode("utf-8", "replace"))
    finally:
        connection.close()


def _envelope(sender: str) -> dict[str, Any]:
    return {"sender": {"id": sender}, "recipient": {"id": PAGE_ID}, "timestamp": _now_ms()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(arguments: list[str]) -> int:
    secret = os.environ.get("APP_SECRET", "").strip()
    if len(arguments) != 2 or not secret:
        print("usage: APP_SECRET=... client.py http://127.0.0.1:PORT TEXT", file=sys.stderr)
        return 2
    try:
        answer = deliver(arguments[0], secret, message_event("a-person", arguments[1]))
    except (OSError, http.client.HTTPException) as error:
        print(f"client: nothing at {arguments[0]} took it: {error}", file=sys.stderr)
        return 1
    print(answer.status, answer.body)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
