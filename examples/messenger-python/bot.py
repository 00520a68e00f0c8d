"""A Facebook Messenger webhook bot. Python 3.11 or newer, standard library only.

Settings come from the environment:

    VERIFY_TOKEN        what the page's webhook set-up sends back to prove that it is yours
    APP_SECRET          signs every event that Facebook delivers
    PAGE_ACCESS_TOKEN   allows the replies
    PORT                where to listen, on 127.0.0.1 (a TLS proxy or tunnel stands in front)
    BOT_DATA            the folder of state.json
    BOT_ID              the name in /health (default: messenger)
    PREFIX              what a command starts with (default: !)
    GRAPH_API_BASE      default https://graph.facebook.com      GRAPH_API_VERSION   default v21.0

An event is answered with 200 at once, as Facebook demands, and handled afterwards, in order for each
sender. When too many wait, it is answered with 503 instead, and Facebook delivers it again later. Every event
is handled at most once: its id is remembered over restarts, before the reply leaves.

Exit status: 0 after SIGTERM with every reply sent, 1 when some had to be abandoned or the port is taken,
78 when a setting is missing or wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import queue
import random
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeGuard
from urllib.parse import parse_qs, quote, urlsplit

EX_CONFIG = 78
BODY_LIMIT = 1 << 20
CLIENT_TIMEOUT_S = 5
WORKERS = 4
WAITING_LIMIT = 1000
SEND_ATTEMPTS = 4
SEND_TIMEOUT_S = 10
BACKOFF_S = 0.2
DRAIN_S = 8  # below the supervisor's usual ten seconds of grace
TEXT_LIMIT = 2000  # of the Send API, in characters
ID_LIMIT = 256
SEEN_LIMIT = 1000
SENDER_LIMIT = 5000


def log(event: str, **fields: object) -> None:
    """One line of JSON per event. Never a token, never what somebody wrote."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sys.stdout.write(json.dumps({"at": at, "event": event, **fields}) + "\n")
    sys.stdout.flush()


# -- settings ----------------------------------------------------------------------------------------------


class BadSettings(Exception):
    """The message names every setting that is missing or wrong, and no value."""


@dataclass(frozen=True)
class Settings:
    verify_token: str
    app_secret: str
    page_access_token: str
    port: int
    data: str
    bot_id: str
    prefix: str
    graph_api_base: str
    graph_api_version: str

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        required = ("VERIFY_TOKEN", "APP_SECRET", "PAGE_ACCESS_TOKEN", "PORT", "BOT_DATA")
        # A secret read from a file usually ends in a newline that is not part of it.
        values = {name: env.get(name, "").strip() for name in required}
        if missing := [name for name in required if not values[name]]:
            raise BadSettings(f"missing in the environment: {', '.join(missing)}")
        if not re.fullmatch("[0-9]{1,5}", values["PORT"]) or not 1 <= int(values["PORT"]) <= 65535:
            raise BadSettings("PORT must be a number from 1 to 65535")
        base = (env.get("GRAPH_API_BASE") or "https://graph.facebook.com").rstrip("/")
        if not re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[\w.-]+)(:[0-9]{1,5})?(/[\w./-]*)?", base):
            raise BadSettings("GRAPH_API_BASE must be an http:// or https:// address")
        if not os.path.isdir(values["BOT_DATA"]):
            raise BadSettings("BOT_DATA must be a folder that exists")
        return cls(
            verify_token=values["VERIFY_TOKEN"],
            app_secret=values["APP_SECRET"],
            page_access_token=values["PAGE_ACCESS_TOKEN"],
            port=int(values["PORT"]),
            data=values["BOT_DATA"],
            bot_id=env.get("BOT_ID") or "messenger",
            prefix=env.get("PREFIX") or "!",
            graph_api_base=base,
            graph_api_version=env.get("GRAPH_API_VERSION") or "v21.0",
        )


# -- state -------------------------------------------------------------------------------------------------


class State:
    """What survives a restart: per sender a count and a remembered text, and the ids of the last events.

    One JSON file is right for one page's worth of senders; beyond some thousands, use SQLite.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "state.json")
        self._lock = threading.Lock()
        self.messages = 0
        self._senders: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, None] = {}
        try:
            with open(self._path, encoding="utf-8") as file:
                stored = json.load(file)
            self.messages = int(stored["messages"])
            self._senders = {
                str(sender): {"count": int(known["count"]), "memory": str(known["memory"])}
                for sender, known in stored["senders"].items()
            }
            self._seen = dict.fromkeys(map(str, stored["seen"]))
        except FileNotFoundError:
            pass  # the first life
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Crashing for ever over a damaged file helps nobody; deleting it might lose something.
            os.replace(self._path, self._path + ".damaged")
            self.messages, self._senders, self._seen = 0, {}, {}
            log("state_damaged", kept_as=self._path + ".damaged")

    def first_time(self, event_id: str) -> bool:
        """True once for each id: Facebook delivers again whatever it is not sure about."""
        with self._lock:
            if event_id in self._seen:
                return False
            self._seen[event_id] = None
            while len(self._seen) > SEEN_LIMIT:
                del self._seen[next(iter(self._seen))]
            return True

    def forget(self, event_id: str) -> None:
        """This event was turned away: its next delivery is the first."""
        with self._lock:
            self._seen.pop(event_id, None)

    def count(self, sender: str) -> int:
        """One message more; returns how many this sender has written."""
        with self._lock:
            self.messages += 1
            known = self._senders.pop(sender, {"count": 0, "memory": ""})
            known["count"] += 1
            self._senders[sender] = known  # last again: the first is whoever was silent longest
            while len(self._senders) > SENDER_LIMIT:
                del self._senders[next(iter(self._senders))]
            return int(known["count"])

    def remember(self, sender: str, text: str) -> None:
        with self._lock:
            self._senders[sender]["memory"] = text

    def recall(self, sender: str) -> str:
        with self._lock:
            return str(self._senders[sender]["memory"])

    def save(self) -> None:
        """Atomic and durable: after any crash the file is the old state or the new one."""
        with self._lock:
            stored = {"messages": self.messages, "senders": self._senders, "seen": list(self._seen)}
            temporary = self._path + ".new"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(stored, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)


# -- what was said, and the answer -------------------------------------------------------------------------


@dataclass(frozen=True)
class Incoming:
    kind: str  # message or postback
    id: str
    sender: str
    text: str | None  # None: a message without words (a sticker, a photo)


def read_events(payload: dict[str, Any]) -> Iterator[Incoming | str]:
    """Each messaging event of a delivery: what to answer, or the name of what is left alone."""
    for entry in payload["entry"]:
        messaging = entry.get("messaging") if isinstance(entry, dict) else None
        for event in messaging if isinstance(messaging, list) else ():
            yield read_event(event)


def read_event(event: object) -> Incoming | str:
    if not isinstance(event, dict):
        return "malformed"
    kind = next((kind for kind in ("message", "postback") if isinstance(event.get(kind), dict)), None)
    if kind is None:
        return next((kind for kind in ("delivery", "read", "reaction", "optin") if kind in event), "unknown")
    content = event[kind]
    if content.get("is_echo"):
        return "echo"
    sender = event["sender"].get("id") if isinstance(event.get("sender"), dict) else None
    text = content.get("text") if kind == "message" else content.get("payload")
    event_id = content.get("mid") or f"{sender} {event.get('timestamp')} {kind}"
    if not is_id(sender) or not is_id(event_id):
        return "malformed"
    return Incoming(kind, event_id, sender, text if isinstance(text, str) else None)


def is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= ID_LIMIT


def compose(incoming: Incoming, prefix: str, state: State) -> tuple[str, str]:
    """(command, reply) for one incoming event; counts it and remembers what it asks to remember."""
    count = state.count(incoming.sender)
    if incoming.text is None:
        return "none", "I can only read text."
    if incoming.kind == "postback" and incoming.text == "GET_STARTED":
        return "help", help_text(prefix)
    if incoming.text.startswith(prefix):
        command, rest = [*incoming.text[len(prefix) :].strip().split(None, 1), "", ""][:2]
        match command.lower(), rest:
            case "ping", _:
                return "ping", "pong"
            case "help", _:
                return "help", help_text(prefix)
            case "count", _:
                return "count", f"You have sent me {count} message{'' if count == 1 else 's'}."
            case "remember", "":
                return "remember", f"Tell me what: {prefix}remember TEXT"
            case "remember", text:
                state.remember(incoming.sender, text[:TEXT_LIMIT])
                return "remember", "I will remember that."
            case "recall", _:
                return "recall", state.recall(incoming.sender) or "You have not asked me to remember anything."
    if incoming.kind == "postback":
        return "postback", f"You chose {incoming.text}."[:TEXT_LIMIT]
    return "echo", incoming.text[:TEXT_LIMIT] or "You said nothing."


def help_text(prefix: str) -> str:
    names = ("ping", "help", "count", "remember TEXT", "recall")
    return f"I know {', '.join(prefix + name for name in names)}. Anything else I say back."


# -- the Send API ------------------------------------------------------------------------------------------


class SendFailed(Exception):
    """Says why in words that are safe to log; `attempts` were made."""

    def __init__(self, why: str, attempts: int) -> None:
        super().__init__(why)
        self.attempts = attempts


@dataclass(frozen=True)
class Failure:
    why: str
    worth_another: bool


class SendApi:
    """POST {base}/{version}/me/messages, again with growing pauses when the other side is in trouble."""

    def __init__(self, settings: Settings) -> None:
        base = urlsplit(settings.graph_api_base)
        self._host = base.netloc
        self._connection = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
        token = quote(settings.page_access_token, safe="")
        self._target = f"{base.path}/{settings.graph_api_version}/me/messages?access_token={token}"

    def send(self, recipient: str, text: str) -> int:
        """Returns the number of attempts it took, or raises SendFailed."""
        body = {"recipient": {"id": recipient}, "messaging_type": "RESPONSE", "message": {"text": text}}
        data = json.dumps(body).encode()
        attempt = 1
        while failure := self._post(data):
            if attempt == SEND_ATTEMPTS or not failure.worth_another:
                raise SendFailed(failure.why, attempt)
            time.sleep(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
            attempt += 1
        return attempt

    def _post(self, data: bytes) -> Failure | None:
        connection = self._connection(self._host, timeout=SEND_TIMEOUT_S)
        try:
            connection.request("POST", self._target, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read(BODY_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            return Failure(type(error).__name__, True)  # the class only: a message could quote the address
        finally:
            connection.close()
        if response.status == 200:
            return None
        why = f"HTTP {response.status}{graph_error_code(answer)}"
        return Failure(why, response.status >= 500 or response.status == 429)


def graph_error_code(answer: bytes) -> str:
    try:
        return f", code {int(json.loads(answer)['error']['code'])}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


# -- the bot -----------------------------------------------------------------------------------------------


class Bot:
    """Takes events in, answers them on worker threads; a sender always has the same one, so order holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(settings.data)
        self.started = time.monotonic()
        self._api = SendApi(settings)
        self._queues: list[queue.Queue[Incoming | None]] = [queue.Queue() for _ in range(WORKERS)]
        self._workers = [threading.Thread(target=self._work, args=(inbox,)) for inbox in self._queues]
        for worker in self._workers:
            worker.daemon = True
            worker.start()

    def waiting(self) -> int:
        return sum(inbox.qsize() for inbox in self._queues)

    def take(self, payload: dict[str, Any]) -> bool:
        """Queue every event of a delivery; False, with nothing queued, when too many wait already."""
        new = []
        for event in read_events(payload):
            if isinstance(event, str):
                log("ignored", kind=event)
            elif self.state.first_time(event.id):
                new.append(event)
            else:
                log("duplicate", sender=event.sender, mid=event.id)
        if self.waiting() + len(new) > WAITING_LIMIT:
            for event in new:
                self.state.forget(event.id)
            log("overloaded", turned_away=len(new))
            return False
        for event in new:
            self._queues[hash(event.sender) % WORKERS].put(event)
        return True

    def finish(self) -> None:
        """Return when everything that was taken is answered."""
        for inbox in self._queues:
            inbox.put(None)
        for worker in self._workers:
            worker.join()

    def _work(self, inbox: queue.Queue[Incoming | None]) -> None:
        while (incoming := inbox.get()) is not None:
            try:
                self._handle(incoming)
            except Exception as error:  # noqa: BLE001 - one message must not end the worker and silence the rest
                log("error", error=type(error).__name__)

    def _handle(self, incoming: Incoming) -> None:
        started = time.monotonic()
        command, reply = compose(incoming, self.settings.prefix, self.state)
        try:
            self.state.save()
        except OSError as error:
            log("state_not_saved", error=error.strerror)  # a full disk is no reason to fall silent
        outcome: dict[str, object]
        try:
            outcome = {"reply": "sent", "attempts": self._api.send(incoming.sender, reply)}
        except SendFailed as error:
            outcome = {"reply": "failed", "attempts": error.attempts, "error": str(error)}
        took_ms = round((time.monotonic() - started) * 1000)
        log(incoming.kind, sender=incoming.sender, mid=incoming.id, command=command, **outcome, ms=took_ms)


# -- the webhook -------------------------------------------------------------------------------------------


class Webhook(BaseHTTPRequestHandler):
    server: WebhookServer
    timeout = CLIENT_TIMEOUT_S
    server_version = "messenger-bot"
    sys_version = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self._health()
        elif url.path == "/webhook":
            self._verify(url.query)
        else:
            self._answer(404, "not found")

    def do_POST(self) -> None:
        if urlsplit(self.path).path != "/webhook":
            return self._answer(404, "not found")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,18}", length) or "Transfer-Encoding" in self.headers:
            return self._answer(411, "a Content-Length is needed")
        if int(length) > BODY_LIMIT:
            self._answer(413, "too large")
            return self._discard(int(length))
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return self._answer(400, "the body ended early")
        if not self._signed(body):
            log("refused", why="signature")
            return self._answer(403, "wrong or missing signature")
        try:
            payload = json.loads(body.decode(), parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            return self._answer(400, "not JSON")
        if not isinstance(payload, dict) or payload.get("object") != "page":
            return self._answer(404, "not a page event")
        if not isinstance(payload.get("entry"), list):
            return self._answer(400, "no entry list")
        if not self.server.bot.take(payload):
            return self._answer(503, "busy")
        self._answer(200, "EVENT_RECEIVED")

    def _discard(self, length: int) -> None:
        """Closing on unread input resets the connection, and the answer may be lost with it."""
        left = min(length, 8 * BODY_LIMIT)
        while left > 0 and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)

    def _signed(self, body: bytes) -> bool:
        """Over the raw bytes: parsing first would let unsigned input near the parser and change the bytes."""
        secret = self.server.bot.settings.app_secret.encode()
        expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        given = self.headers.get("X-Hub-Signature-256", "")
        return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))

    def _verify(self, query: str) -> None:
        asked = {name: values[0] for name, values in parse_qs(query, errors="replace").items()}
        expected = self.server.bot.settings.verify_token.encode()
        token_right = hmac.compare_digest(expected, asked.get("hub.verify_token", "").encode())
        if asked.get("hub.mode") != "subscribe" or not token_right:
            log("refused", why="verify token")
            return self._answer(403, "wrong verify token")
        if "hub.challenge" not in asked:
            return self._answer(400, "no hub.challenge")
        log("verified")
        self._answer(200, asked["hub.challenge"])

    def _health(self) -> None:
        bot = self.server.bot
        health = {
            "status": "ok",
            "bot": bot.settings.bot_id,
            "uptime_s": round(time.monotonic() - bot.started, 3),
            "messages": bot.state.messages,
        }
        self._answer(200, json.dumps(health), "application/json")

    def _answer(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")  # the challenge is anybody's text
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silent: the request line holds the verify token."""


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class WebhookServer(ThreadingHTTPServer):
    daemon_threads = False  # a request that was let in is answered, also while stopping
    request_queue_size = 128

    def __init__(self, bot: Bot) -> None:
        super().__init__(("127.0.0.1", bot.settings.port), Webhook)
        self.bot = bot

    def handle_error(self, *_: object) -> None:
        """A client that hung up is its own affair; anything else is worth a line, without values."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log("error", error=type(error).__name__)

    def stop_accepting(self) -> None:
        """Return when the loop has ended and every request that was let in is answered."""
        stopping = threading.Thread(target=self.shutdown)
        stopping.start()
        # The loop looks at its stop flag when it wakes up: without its ears it does so at once.
        self.socket.shutdown(socket.SHUT_RDWR)
        stopping.join()
        self.server_close()


def main() -> int:
    try:
        settings = Settings.read(os.environ)
    except BadSettings as error:
        print(f"messenger-bot: {error}", file=sys.stderr)
        return EX_CONFIG
    # Blocked before the first thread starts, so that every thread inherits it and only sigwait sees them.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    bot = Bot(settings)
    try:
        server = WebhookServer(bot)
    except OSError as error:
        print(f"messenger-bot: cannot listen on 127.0.0.1:{settings.port}: {error.strerror}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}).start()
    log("started", bot=settings.bot_id, port=settings.port, pid=os.getpid())
    received = signal.sigwait(stop_signals)
    log("stopping", signal=signal.Signals(received).name, waiting=bot.waiting())
    deadline = threading.Timer(DRAIN_S, abandon, (bot,))
    deadline.daemon = True
    deadline.start()
    server.stop_accepting()
    bot.finish()
    log("stopped")
    return 0


def abandon(bot: Bot) -> None:
    log("abandoned", waiting=bot.waiting())
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
