"""The daemon's half of `compress`: a child of the lowest priority for as long as there is work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio import subprocess
from typing import Any

from botd.storage import logsizes

_COMMAND = (sys.executable, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "compress.py"))
_ANSWER_MAX = 1 << 20
_QUITTING_S = 10.0


class Compressor:
    """One call at a time; the child is there from the first call to `close`."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._process: asyncio.subprocess.Process | None = None

    async def compress(self, id: str) -> dict[str, Any]:
        """Compress what there is in a bot's log folder.

        Returns {"files": how many, "before", "after": bytes, "busy": a rotation was in the way, "problems": [text]}.
        """
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=_ANSWER_MAX
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        raw = b""
        try:
            stdin.write(json.dumps({"home": self._home, "parts": logsizes.parts(id)}).encode() + b"\n")
            await stdin.drain()
            raw = await stdout.readline()
        except ConnectionError:
            pass  # it died; told below
        if not raw.endswith(b"\n"):
            process, self._process = self._process, None
            status = await process.wait()
            problem = f"the process that compresses ended with status {status}"
            return {"files": 0, "before": 0, "after": 0, "busy": False, "problems": [problem]}
        answer: dict[str, Any] = json.loads(raw)
        return answer

    async def close(self) -> None:
        """End the child; a file that it is in the middle of stays plain."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_QUITTING_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
