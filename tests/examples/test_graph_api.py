"""The stand-in answers like the Send API, so that a bot that is wrong is told so here and not by Facebook."""

import http.client
import json
import signal
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from messenger import EXAMPLES, PATIENCE_S, client, stand_in

SEND = "/v21.0/me/messages?access_token=token"
GOOD = {"recipient": {"id": "p1"}, "messaging_type": "RESPONSE", "message": {"text": "hi"}}


def call(graph, method, path, body=None):
    connection = http.client.HTTPConnection(urlsplit(graph.url).netloc, timeout=PATIENCE_S)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data if method == "POST" else None)
    response = connection.getresponse()
    answer = response.status, json.load(response)
    connection.close()
    return answer


def test_a_good_call_is_answered_and_recorded(tmp_path):
    record = tmp_path / "replies.jsonl"
    with stand_in.GraphStandIn(record=str(record)) as graph:
        status, answer = call(graph, "POST", SEND, GOOD)
        assert status == 200
        assert answer["recipient_id"] == "p1"
        (reply,) = graph.replies("p1")
        assert reply["message_id"] == answer["message_id"]
        assert (reply["n"], reply["text"]) == (1, "hi")
        assert reply["page"] == stand_in.page_fingerprint("token")
        assert call(graph, "GET", "/_replies?recipient=p1") == (200, {"replies": [reply], "calls": 1})
        assert call(graph, "GET", "/_replies?recipient=p2")[1]["replies"] == []
        assert call(graph, "GET", "/_replies?after=1")[1]["replies"] == []
    assert [json.loads(line) for line in record.read_text().splitlines()] == [reply]
    assert '"token"' not in record.read_text()


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v21.0/me/messages", GOOD, 400, 104),
        ("/v21.0/me/messages?access_token=wrong", GOOD, 401, 190),
        ("/me/messages?access_token=token", GOOD, 404, 2500),
        ("/v21.0/somewhere", GOOD, 404, 2500),
        (SEND, b"{", 400, 100),
        (SEND, [], 400, 100),
        (SEND, {**GOOD, "recipient": "p1"}, 400, 100),
        (SEND, {**GOOD, "recipient": {"id": ""}}, 400, 100),
        (SEND, {**GOOD, "recipient": {"id": 7}}, 400, 100),
        (SEND, {**GOOD, "messaging_type": "ANSWER"}, 400, 100),
        (SEND, {**GOOD, "message": {}}, 400, 100),
        (SEND, {**GOOD, "message": {"text": ""}}, 400, 100),
        (SEND, {**GOOD, "message": {"text": "x" * 2001}}, 400, 100),
    ],
)
def test_a_bad_call_gets_the_error_of_the_real_one(path, body, status, code):
    with stand_in.GraphStandIn(tokens=["token"]) as graph:
        answer = call(graph, "POST", path, body)
        assert answer[0] == status
        assert set(answer[1]["error"]) == {"message", "type", "code", "fbtrace_id"}
        assert answer[1]["error"]["code"] == code
        assert graph.replies() == []


def test_calls_fail_as_often_as_told(graph):
    path = SEND.replace("=token", "=page%26token%2F1")
    assert call(graph, "POST", "/_fail?n=2&status=503") == (200, {"failing": 2})
    assert [call(graph, "POST", path, GOOD)[0] for _ in range(3)] == [503, 503, 200]
    for wrong in ("n=-1", "n=x", "n=1&status=200"):
        assert call(graph, "POST", f"/_fail?{wrong}")[0] == 400
    assert call(graph, "POST", path, GOOD)[0] == 200


def test_who_waits_is_told_when_the_reply_comes(graph):
    waiting = threading.Event()
    answers = []

    def wait():
        waiting.set()
        answers.append(call(graph, "GET", f"/_replies?recipient=p2&timeout={PATIENCE_S}"))

    reader = threading.Thread(target=wait)
    reader.start()
    waiting.wait(PATIENCE_S)
    for recipient in ("p1", "p2"):
        graph.send_message("page&token/1", {**GOOD, "recipient": {"id": recipient}})
    reader.join(PATIENCE_S)
    assert [reply["recipient"] for reply in answers[0][1]["replies"]] == ["p2"]
    for wrong in ("timeout=nan", "timeout=x", "after=-1"):
        assert call(graph, "GET", f"/_replies?{wrong}")[0] == 400


def test_as_a_program(tmp_path):
    command = [sys.executable, str(EXAMPLES / "graph_api" / "stand_in.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[-1]
        assert client.get(url, "/_replies") == (200, '{"replies": [], "calls": 0}')
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_client_by_hand(bot, graph):
    command = [sys.executable, str(EXAMPLES / "graph_api" / "client.py"), bot.url, "!ping"]
    delivered = subprocess.run(command, env={"APP_SECRET": "app-secret"}, capture_output=True, text=True)
    assert (delivered.returncode, delivered.stdout) == (0, "200 EVENT_RECEIVED\n")
    assert graph.replies("a-person", timeout=PATIENCE_S)[0]["text"] == "pong"
    assert subprocess.run(command, env={}, capture_output=True).returncode == 2
