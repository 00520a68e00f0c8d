"""A scripted daemon on a real Unix socket: a dictionary method -> what it answers."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

from botd.contract.errors import BotdError

DEADLINE_S = 20.0


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class FakeBotd:
    """Answers by `script`: a result, a BotdError, or a function of the params and the connection.

    Such a function may send notifications with `notify(connection, method, params)` first. `calls`
    holds every (method, params) that came in.
    """

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.path = f"{self.folder}/s"
        self.script: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def environ(self) -> dict[str, str]:
        return {"BOTD_HOME": self.folder, "BOTD_SOCKET": self.path, "BOTCTL_AUTOSTART": "0"}

    def called(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == method]

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was first
        for thread in self._threads:
            thread.join(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    self._answer(connection, json.loads(line))
            except (OSError, ValueError):
                return

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        method, params = request["method"], request["params"]
        self.calls.append((method, params))
        answer = self.script.get(method, BotdError("internal", f"the script has no answer to {method}"))
        if callable(answer):
            answer = answer(params, connection)
        if isinstance(answer, bytes):
            connection.sendall(answer)
            return
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if isinstance(answer, BotdError):
            reply["error"] = answer.to_rpc()
        else:
            reply["result"] = answer
        connection.sendall(json.dumps(reply).encode() + b"\n")


def notify(connection: socket.socket, method: str, params: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n")


def bot(id: str = "alice/shop", **more: Any) -> dict[str, Any]:
    """A BotView of a bot that runs well, with `more` on top."""
    user, _, name = id.partition("/")
    view = {
        "id": id,
        "user": user,
        "name": name,
        "phase": "running",
        "health": "healthy",
        "desired": "running",
        "pid": 4711,
        "started_at": "2026-01-02T03:04:05Z",
        "uptime_s": 12000.0,
        "restarts": 2,
        "attempts": 0,
        "generation": 3,
        "template": None,
        "release": None,
        "memory_bytes": 35 << 20,
        "memory_limit_bytes": 256 << 20,
        "cpu_percent": 2.1,
        "cpu_limit": 0.5,
        "processes": 12,
        "processes_limit": 512,
        "limits_by": {"memory": "enforced", "swap": "none", "processes": "watched", "cpu": "none"},
        "last_exit": {"code": 1, "signal": None, "reason": "exited with status 1", "at": "2026-01-02T03:04:00Z"},
        "next_retry_at": None,
        "reason": "",
        "labels": {"tier": "free"},
        "port": 30001,
        "restart": "always",
        "command": ["node", "bot.js", "--name", "it's"],
        "directory": "/srv/shop",
        "env": {"TOKEN": "***"},
        "created_at": "2026-01-01T00:00:00Z",
        "log_bytes": 4096,
        "storage_bytes": 12288,
    }
    return view | more


def verdict(id: str = "alice/shop", *, ok: bool = True, exit: int = 1, **more: Any) -> dict[str, Any]:
    error = None if ok else {"kind": "conflict", "message": f"{id} cannot", "hint": "look at it", "exit": exit}
    base = {
        "id": id,
        "ok": ok,
        "changed": True,
        "result": "started" if ok else "failed",
        "phase": "running" if ok else "failed",
        "pid": 4711 if ok else None,
        "reason": "",
        "error": error,
    }
    return base | more


def verdicts(*items: dict[str, Any]) -> dict[str, Any]:
    good = sum(item["ok"] for item in items)
    summary = {"ok": good, "failed": len(items) - good, "unchanged": 0}
    return {"schema": 1, "items": list(items), "summary": summary, "elapsed_s": 0.012}


def page(*items: dict[str, Any], next: str | None = None) -> dict[str, Any]:
    return {"schema": 1, "items": list(items), "next": next, "total": len(items)}


def clean_environ(fake: FakeBotd, **more: str) -> dict[str, str]:
    """What cron gives, plus where the fleet is."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **fake.environ, **more}


def spawn(fake: FakeBotd, *argv: str, **more: object) -> subprocess.Popen[str]:
    """botctl as a process of its own, in a bare environment."""
    environ = clean_environ(fake, **more.pop("environ", {}))  # type: ignore[arg-type] - a dict by convention
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    command = [sys.executable, "-P", "-m", "botctl", *argv]
    process = subprocess.Popen(command, env=environ, **settings)  # type: ignore[call-overload] - of every kind
    # A test that waits for a line that never comes fails instead of hanging.
    watchdog = threading.Timer(DEADLINE_S, process.kill)
    watchdog.daemon = True
    watchdog.start()
    return process


def on_terminal(fake: FakeBotd, *argv: str, typed: str = "", columns: int = 100, **environ: str) -> Ran:
    """botctl with a terminal as stdin, stdout and stderr; everything it shows comes back as `out`."""
    parent, child = pty.openpty()
    environment = clean_environ(fake, TERM="xterm", COLUMNS=str(columns), LANG="C.UTF-8", **environ)
    command = [sys.executable, "-P", "-m", "botctl", *argv]
    process = subprocess.Popen(command, env=environment, stdin=child, stdout=child, stderr=child)
    os.close(child)
    if typed:
        os.write(parent, typed.encode())
    shown = b""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if not select.select([parent], [], [], 1)[0]:
            continue
        try:
            data = os.read(parent, 65536)
        except OSError:
            break  # EIO: the last holder of the other end is gone
        if not data:
            break
        shown += data
    os.close(parent)
    return Ran(process.wait(DEADLINE_S), shown.decode().replace("\r\n", "\n"), "")
