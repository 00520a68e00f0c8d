from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from botctl_fake import FakeBotd, Ran

from botctl.__main__ import main


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
