from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from tests.botctl.fake import FakeBotd, clean_environ

from botctl.__main__ import main

DEADLINE_S = 20.0


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def fake() -> Iterator[FakeBotd]:
    server = FakeBotd()
    yield server
    server.close()


@pytest.fixture
def run(fake: FakeBotd, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs botctl inside this process, its streams being no terminals."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "BOTD_CONFIG", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in fake.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def call(*argv: str, stdin: str = "") -> Ran:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            status = main(argv)
            out, err = (_text(stream) for stream in streams)
        return Ran(status, out, err)

    return call


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    data: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined] - it is the BytesIO from above
    return data.decode("utf-8")


def spawn(fake: FakeBotd, *argv: str, **more: object) -> subprocess.Popen[str]:
    """botctl as a process of its own, in a bare environment."""
    environ = clean_environ(fake, **more.pop("environ", {}))  # type: ignore[arg-type] - a dict by convention
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen([sys.executable, "-P", "-m", "botctl", *argv], env=environ, **settings)  # type: ignore[call-overload] - settings of every kind


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
