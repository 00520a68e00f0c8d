"""What both Messenger bots do: spoken to as Facebook does, the replies read where Facebook would get them."""

import http.client
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from messenger import PATIENCE_S, SECRETS, client, free_port

SECRET = SECRETS["APP_SECRET"]
RECEIVED = (200, "EVENT_RECEIVED")


def say(bot, graph, text, sender="p1", **options):
    """Deliver one message and return the text of the reply to it."""
    before = len(graph.replies())
    assert client.deliver(bot.url, SECRET, client.message_event(sender, text, **options)) == RECEIVED
    (reply,) = graph.replies(sender, after=before, timeout=PATIENCE_S)
    return reply["text"]


def signed(body, secret=SECRET):
    return {"X-Hub-Signature-256": client.signature(secret, body)}


# -- the handshake -----------------------------------------------------------------------------------------


def test_handshake_returns_the_challenge(bot):
    assert client.verify(bot.url, SECRETS["VERIFY_TOKEN"], "1158201444") == (200, "1158201444")


def test_handshake_with_a_wrong_token_or_mode_is_refused(bot):
    right = SECRETS["VERIFY_TOKEN"]
    for token, mode in [("wrong", "subscribe"), ("", "subscribe"), ("vérify", "subscribe"), (right, "other")]:
        status, body = client.verify(bot.url, token, "1158201444", mode)
        assert status == 403
        assert "1158201444" not in body


def test_a_challenge_cannot_be_a_page(bot):
    connection = http.client.HTTPConnection(urlsplit(bot.url).netloc, timeout=PATIENCE_S)
    token = SECRETS["VERIFY_TOKEN"]
    connection.request("GET", f"/webhook?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=%3Cscript%3E")
    response = connection.getresponse()
    assert response.read() == b"<script>"
    assert response.getheader("Content-Type").startswith("text/plain")
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    connection.close()


# -- what is let in ----------------------------------------------------------------------------------------


def test_only_what_the_app_secret_signed_is_let_in(bot, graph):
    body = client.page_delivery(client.message_event("p1", "hello"))
    right = client.signature(SECRET, body)
    for headers in (
        {},
        signed(body, "another secret"),
        {"X-Hub-Signature-256": right.removeprefix("sha256=")},
        {"X-Hub-Signature-256": right[:-1]},
        {"X-Hub-Signature-256": "sha256=\xe9\xff"},
        {"X-Hub-Signature": right},
        signed(body + b" "),
    ):
        assert client.post(bot.url, body, headers)[0] == 403
    assert client.post(bot.url, body, {"X-Hub-Signature-256": right}) == RECEIVED
    assert [reply["text"] for reply in graph.replies("p1", timeout=PATIENCE_S)] == ["hello"]
    assert graph.calls == 1


def test_the_signature_is_over_the_raw_bytes(bot, graph):
    event = json.dumps(client.message_event("p1", "héllo"), ensure_ascii=False, indent=3)
    body = f'{{ "object":"page",\n"entry":[ {{"messaging":[{event}]}} ] }}\n'.encode()
    assert client.post(bot.url, body, signed(body)) == RECEIVED
    assert graph.replies("p1", timeout=PATIENCE_S)[0]["text"] == "héllo"


GARBAGE = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe\x00", 400),
    (b'{"object": "page", "entry": NaN}', 400),
    (b"[" * 100_000, 400),
    (b'{"object": "page", "entry": ["\xff"]}', 400),
    (b'{"object": "page"}', 400),
    (b'{"object": "page", "entry": {}}', 400),
    (b'{"object": "user", "entry": []}', 404),
    (b"[]", 404),
    (b"null", 404),
]


def test_garbage_with_a_right_signature(bot, graph):
    answers = [(body, client.post(bot.url, body, signed(body))[0]) for body, _ in GARBAGE]
    assert answers == GARBAGE
    assert say(bot, graph, "still here") == "still here"


MALFORMED_ENTRIES = [
    None,
    7,
    {},
    {"messaging": 7},
    {"messaging": [None, [], "x", {}, {"message": None}, {"message": {"mid": "a", "text": "no sender"}}]},
    {"messaging": [{"sender": {"id": 7}, "message": {"mid": "a", "text": "x"}}]},
    {"messaging": [{"sender": {"id": "p" * 300}, "message": {"mid": "a", "text": "x"}}]},
    {"messaging": [{"sender": {"id": "p1"}, "message": {"mid": {"a": 1}, "text": "x"}}]},
]


def test_malformed_events_do_not_spoil_their_neighbours(bot, graph):
    for number, entry in enumerate(MALFORMED_ENTRIES):
        good = {"messaging": [client.message_event("p9", f"still here {number}")]}
        body = json.dumps({"object": "page", "entry": [entry, good]}).encode()
        assert client.post(bot.url, body, signed(body)) == RECEIVED, entry
    bot.wait_for("message", len(MALFORMED_ENTRIES))
    expected = [f"still here {number}" for number in range(len(MALFORMED_ENTRIES))]
    assert [reply["text"] for reply in graph.replies()] == expected


def test_a_body_over_one_mebibyte_is_refused(bot, graph):
    frame = len(client.page_delivery(client.message_event("p1", "", mid="m")))
    fits = client.page_delivery(client.message_event("p1", "x" * ((1 << 20) - frame), mid="m"))
    assert len(fits) == 1 << 20
    assert client.post(bot.url, fits, signed(fits)) == RECEIVED
    assert graph.replies("p1", timeout=PATIENCE_S)[0]["text"] == "x" * 2000
    assert client.post(bot.url, fits + b" ", signed(fits + b" "))[0] == 413
    assert client.get(bot.url, "/health")[0] == 200


def raw(bot, data):
    """The status line of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", urlsplit(bot.url).port), timeout=PATIENCE_S) as connection:
        connection.sendall(data)
        return connection.makefile("rb").readline().split()[1:2]


def test_the_length_is_known_before_anything_is_read(bot):
    request = b"POST /webhook HTTP/1.1\r\nHost: x\r\n"
    assert raw(bot, request + b"\r\n") == [b"411"]
    assert raw(bot, request + b"Transfer-Encoding: chunked\r\n\r\n") == [b"411"]
    assert raw(bot, request + b"Content-Length: 9999999999\r\n\r\n") == [b"413"]


def test_other_addresses_and_broken_requests(bot):
    assert client.get(bot.url, "/")[0] == 404
    assert raw(bot, b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n") == [b"404"]
    assert raw(bot, b"PUT /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n") == [b"501"]
    raw(bot, b"\x00\xff\r\n\r\n")
    raw(bot, b"GET // HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.get(bot.url, "/health")[0] == 200


# -- what is answered --------------------------------------------------------------------------------------


def test_commands(bot, graph):
    assert say(bot, graph, "!ping") == "pong"
    assert "!remember TEXT" in say(bot, graph, "!help")
    assert say(bot, graph, "!count") == "You have sent me 3 messages."
    assert say(bot, graph, "!count", sender="p2") == "You have sent me 1 message."
    assert say(bot, graph, "!recall") == "You have not asked me to remember anything."
    assert say(bot, graph, "!remember") == "Tell me what: !remember TEXT"
    assert say(bot, graph, "!REMEMBER  milk, eggs ") == "I will remember that."
    assert say(bot, graph, "!recall") == "milk, eggs"
    assert say(bot, graph, "!recall", sender="p2") == "You have not asked me to remember anything."
    assert say(bot, graph, "!dance") == "!dance"
    assert say(bot, graph, "ping \U0001f916") == "ping \U0001f916"
    assert say(bot, graph, "half a pair: \ud83e") == "half a pair: \ud83e"
    assert say(bot, graph, "", attachments=[{"type": "image"}]) == "You said nothing."
    assert say(bot, graph, None) == "I can only read text."


def test_the_prefix_is_a_setting(start, graph):
    bot = start(PREFIX="bot ")
    assert say(bot, graph, "bot ping") == "pong"
    assert say(bot, graph, "!ping") == "!ping"


def test_a_long_text_is_cut_to_what_the_send_api_takes(bot, graph):
    assert say(bot, graph, "\U0001f916" * 2500) == "\U0001f916" * 2000


def test_postbacks_are_answered(bot, graph):
    client.deliver(bot.url, SECRET, client.postback_event("p1", "GET_STARTED"))
    assert "!ping" in graph.replies("p1", timeout=PATIENCE_S)[0]["text"]
    client.deliver(bot.url, SECRET, client.postback_event("p2", "PIZZA"))
    assert graph.replies("p2", timeout=PATIENCE_S)[0]["text"] == "You chose PIZZA."


def test_echoes_and_receipts_are_left_alone(bot, graph):
    left_alone = [
        client.message_event("p1", "my own words", is_echo=True),
        client.delivery_event("p1", "m1"),
        client.read_event("p1"),
    ]
    asked = client.message_event("p1", "answer this")
    assert client.deliver(bot.url, SECRET, *left_alone, asked) == RECEIVED
    bot.wait_for("message")
    assert [event["kind"] for event in bot.events("ignored")] == ["echo", "delivery", "read"]
    assert [reply["text"] for reply in graph.replies()] == ["answer this"]


def test_a_message_that_is_delivered_again_is_answered_once(start, graph):
    bot = start()
    event = client.message_event("p1", "once", mid="m_1")
    for _ in range(3):
        assert client.deliver(bot.url, SECRET, event, event) == RECEIVED
    assert len(bot.wait_for("duplicate", 5)) == 5
    bot.wait_for("message")
    bot.kill()
    bot = start()
    assert client.deliver(bot.url, SECRET, event) == RECEIVED
    bot.wait_for("duplicate")
    assert say(bot, graph, "!count") == "You have sent me 2 messages."
    assert [reply["text"] for reply in graph.replies("p1")][:-1] == ["once"]


def test_the_same_message_delivered_at_the_same_time_is_answered_once(bot, graph):
    event = client.message_event("p1", "once", mid="m_1")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.deliver(bot.url, SECRET, event), range(24)))
    assert set(answers) == {RECEIVED}
    bot.wait_for("duplicate", 23)
    assert bot.terminate() == 0
    assert len(graph.replies()) == 1


def test_replies_to_one_sender_keep_their_order(bot, graph):
    graph.fail_next(1)
    events = [client.message_event(f"p{n % 3}", str(n)) for n in range(30)]
    assert client.deliver(bot.url, SECRET, *events) == RECEIVED
    bot.wait_for("message", 30)
    for sender in range(3):
        assert [int(reply["text"]) for reply in graph.replies(f"p{sender}")] == list(range(sender, 30, 3))


# -- the Send API ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 429])
def test_a_reply_is_tried_again_when_the_api_is_in_trouble(bot, graph, status):
    graph.fail_next(1, status)
    assert say(bot, graph, "hello") == "hello"
    assert graph.calls == 2
    assert bot.wait_for("message")[0]["attempts"] == 2


def test_tries_are_bounded_and_the_next_message_is_answered(bot, graph):
    graph.fail_next(4)
    client.deliver(bot.url, SECRET, client.message_event("p1", "lost"))
    (event,) = bot.wait_for("message")
    assert (event["reply"], event["attempts"], event["error"]) == ("failed", 4, "HTTP 500, code 1")
    assert say(bot, graph, "hello") == "hello"


def test_what_the_api_refuses_is_not_tried_again(start, graph):
    bot = start(PAGE_ACCESS_TOKEN="expired")
    client.deliver(bot.url, SECRET, client.message_event("p1", "hello"))
    (event,) = bot.wait_for("message")
    assert (event["reply"], event["attempts"], event["error"]) == ("failed", 1, "HTTP 401, code 190")


def test_an_api_that_cannot_be_reached(start):
    bot = start(GRAPH_API_BASE=f"http://127.0.0.1:{free_port()}/")
    client.deliver(bot.url, SECRET, client.message_event("p1", "hello"))
    (event,) = bot.wait_for("message")
    assert (event["reply"], event["attempts"]) == ("failed", 4)


# -- a life and the next -----------------------------------------------------------------------------------


def test_health(bot, graph):
    say(bot, graph, "hello")
    status, body = client.get(bot.url, "/health")
    health = json.loads(body)
    assert status == 200
    assert health.pop("uptime_s") > 0
    assert health == {"status": "ok", "bot": "alice/shop", "messages": 1}


def test_state_survives_a_restart_and_a_kill(start, graph):
    bot = start()
    say(bot, graph, "!remember the milk")
    assert bot.terminate() == 0
    bot = start()
    assert say(bot, graph, "!count") == "You have sent me 2 messages."
    bot.kill()
    bot = start()
    assert say(bot, graph, "!recall") == "the milk"
    assert json.loads(client.get(bot.url, "/health").body)["messages"] == 3
    assert os.listdir(start.data) == ["state.json"]


def test_hostile_sender_names_are_only_names(start, graph):
    bot = start()
    assert say(bot, graph, "!remember x", sender="__proto__") == "I will remember that."
    bot.kill()
    assert say(start(), graph, "!recall", sender="__proto__") == "x"


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", "null", '{"messages": 1, "senders": {"p1": 1}, "seen": []}', "[" * 100_000]
)
def test_a_damaged_state_is_put_aside(start, graph, damaged):
    (start.data / "state.json").write_text(damaged)
    bot = start()
    assert say(bot, graph, "!count") == "You have sent me 1 message."
    assert (start.data / "state.json.damaged").read_text() == damaged


def test_a_disk_that_takes_nothing_does_not_silence_the_bot(bot, start, graph):
    start.data.rmdir()
    assert say(bot, graph, "!remember this") == "I will remember that."
    assert say(bot, graph, "!recall") == "this"
    assert len(bot.wait_for("state_not_saved")) >= 1
    assert bot.terminate() == 0


def test_sigterm_finishes_what_was_taken(bot, graph):
    graph.fail_next(2)
    events = [client.message_event(f"p{n}", "before the end") for n in range(20)]
    assert client.deliver(bot.url, SECRET, *events) == RECEIVED
    assert bot.terminate() == 0
    assert len(graph.replies()) == 20
    assert bot.events("stopped")
    with pytest.raises(ConnectionRefusedError):
        client.get(bot.url, "/health")


def test_sigterm_when_idle_exits_zero(bot):
    assert bot.terminate() == 0
    assert bot.errors == []


# -- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"VERIFY_TOKEN": None}, ["VERIFY_TOKEN"]),
        ({"APP_SECRET": "", "PAGE_ACCESS_TOKEN": " \n"}, ["APP_SECRET", "PAGE_ACCESS_TOKEN"]),
        ({"PORT": None}, ["PORT"]),
        ({"PORT": "0"}, ["PORT"]),
        ({"PORT": "70000"}, ["PORT"]),
        ({"PORT": "-1"}, ["PORT"]),
        ({"BOT_DATA": "/nowhere/at/all"}, ["BOT_DATA"]),
        ({"GRAPH_API_BASE": "ftp://x"}, ["GRAPH_API_BASE"]),
        ({"GRAPH_API_BASE": "http://x y"}, ["GRAPH_API_BASE"]),
    ],
)
def test_a_missing_or_wrong_setting_is_one_line_and_78(start, changed, named):
    bot = start(wait=False, **changed)
    assert bot.ended() == 78
    assert bot.lines == []
    (line,) = bot.errors
    assert all(name in line for name in named)
    assert not any(secret in line for secret in SECRETS.values())


def test_a_taken_port_is_one_line(start):
    first = start()
    second = start(wait=False)
    assert second.ended() == 1
    assert len(second.errors) == 1
    assert first.env["PORT"] in second.errors[0]


def test_a_secret_from_a_file_with_a_newline(start, graph):
    bot = start(**{name: value + "\n" for name, value in SECRETS.items()})
    assert say(bot, graph, "hello") == "hello"


def test_nothing_secret_and_nothing_private_is_printed(start, graph):
    bot = start()
    graph.fail_next(1)
    client.verify(bot.url, "wrong token", "x")
    client.verify(bot.url, SECRETS["VERIFY_TOKEN"], "x")
    say(bot, graph, "!remember a private matter")
    bot.terminate()
    printed = "".join(bot.lines + bot.errors)
    assert "page%26token" not in printed
    assert "private matter" not in printed
    assert "wrong" not in printed
    assert not any(secret in printed for secret in SECRETS.values())
    assert all(set(json.loads(line)) >= {"at", "event"} for line in bot.lines)
