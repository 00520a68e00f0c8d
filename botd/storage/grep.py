"""Searching output with a regular expression that somebody else wrote, in a process that may be lost.

Some expressions take longer than the universe has left, nothing can interrupt one while it runs, and it holds the lock
of the whole interpreter: a thread does not help, and no list of forbidden shapes is complete. So a child process
compiles and searches under a limit of processor time and memory, and the kernel ends it. Its start takes some 50 ms.

This file is both halves: `search` and `Filter` for the daemon, `main` for the child.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import re
    from collections.abc import Mapping
    from typing import Any

    from botd.contract.errors import BotdError
    from botd.storage.logs import LogLine, Query, Tail

CPU_S = 5
"""Processor seconds of one search, or of one batch while following."""
_WALL_S = 60.0
_MEMORY = 1 << 30
_ANSWER_MAX = 16 << 20
_COMMAND = (sys.executable, "-I", "-S", os.path.abspath(__file__))


def search(folders: Mapping[str, str], query: Query) -> Tail:
    """`logs.read` for a query with `grep`. Blocks. BotdError(invalid) or (timeout)."""
    import subprocess
    from dataclasses import asdict

    from botd.storage.logs import LogLine, Place, Tail

    request = json.dumps({"read": dict(folders), "query": asdict(query)})
    try:
        done = subprocess.run(
            _COMMAND, input=request.encode() + b"\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_WALL_S
        )
    except subprocess.TimeoutExpired:
        raise _too_long() from None
    answer = _answer(done.stdout)
    positions = {
        id: {stream: Place(*place) for stream, place in position.items()}
        for id, position in answer["positions"].items()
    }
    return Tail([LogLine(*line) for line in answer["lines"]], answer["truncated"], positions, answer["notes"])


class Filter:
    """Lets lines through that an expression is found in, for as long as somebody follows. One batch at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, pattern: str) -> Filter:
        """BotdError(invalid) when it is no regular expression. Call `close` in the end."""
        import asyncio
        from asyncio.subprocess import DEVNULL, PIPE

        process = await asyncio.create_subprocess_exec(
            *_COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=_ANSWER_MAX
        )
        filter = cls(process)
        try:
            await filter._ask({"filter": pattern})
        except BaseException:
            await filter.close()
            raise
        return filter

    async def keep(self, lines: list[LogLine]) -> list[LogLine]:
        """Those of the lines that match. BotdError(timeout) when the expression explodes; the filter is dead then."""
        answer = await self._ask({"texts": [line.text for line in lines]})
        return [lines[i] for i in answer["found"]]

    async def close(self) -> None:
        if self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                pass  # ended by itself this moment
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        import asyncio

        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            async with asyncio.timeout(_WALL_S):
                stdin.write(json.dumps(request).encode() + b"\n")
                await stdin.drain()
                return _answer(await stdout.readline())
        except (TimeoutError, ConnectionError):
            raise _too_long() from None


def _answer(raw: bytes) -> dict[str, Any]:
    """What the child said; it says nothing more when the kernel has ended it."""
    from botd.contract.errors import invalid

    if not raw.endswith(b"\n"):
        raise _too_long()
    answer: dict[str, Any] = json.loads(raw)
    if "invalid" in answer:
        raise invalid("grep", answer["invalid"], hint="a Python regular expression; put a \\ before ( [ { . * + ? |")
    return answer


def _too_long() -> BotdError:
    from botd.contract.errors import BotdError

    return BotdError(
        "timeout",
        f"the search took more than {CPU_S} s of processor time or {_MEMORY >> 20} MiB of memory and was ended",
        hint="search a shorter time with --since, or write the expression without repetitions inside repetitions",
    )


# --- the child ------------------------------------------------------------------------------------------


def main() -> int:
    """Answer one JSON line for each JSON line of standard input: {"read": folders, "query": query}, or {"filter":
    pattern} and then {"texts": [...]} again and again.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.nice(5)
    pattern: re.Pattern[str] | None = None
    for raw in sys.stdin.buffer:
        _allow_cpu(CPU_S)
        request = json.loads(raw)
        try:
            if "read" in request:
                answer = _read(request)
            elif "filter" in request:
                pattern = _compile(request["filter"])
                answer = {}
            else:
                assert pattern is not None
                answer = {"found": [i for i, text in enumerate(request["texts"]) if pattern.search(text)]}
        except ValueError as error:
            answer = {"invalid": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _allow_cpu(seconds: int) -> None:
    """Have the kernel end this process when it uses so many seconds more, whatever it is in the middle of."""
    import resource
    import time

    used = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _read(request: dict[str, Any]) -> dict[str, Any]:
    from botd.storage.logs import Query, scan

    query = Query(**request["query"])
    assert query.grep is not None
    tail = scan(request["read"], query, _compile(query.grep).search)
    return {"lines": tail.lines, "truncated": tail.truncated, "positions": tail.positions, "notes": tail.notes}


def _compile(pattern: str) -> re.Pattern[str]:
    """ValueError, in words, for what is no regular expression."""
    import re
    import warnings

    warnings.simplefilter("ignore")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


if __name__ == "__main__":
    # Started by its path and isolated, so that neither the environment nor the working folder decides what is loaded.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.exit(main())
