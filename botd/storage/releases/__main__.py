"""The child that makes releases: `python -m botd.storage.releases add --home DIR --template NAME --source PATH`.

Writes JSON lines to standard output: {"files", "bytes", "total_files", "total_bytes"} as it goes on, and at last one
{"result": {...}} with what `Added` has (status 0) or {"error": {"kind", "message", "hint", "exit", "details"}} (1).
Dies with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import asdict

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.storage.releases.add import add
from botd.storage.releases.programs import die_with_parent

_NICE = 10
_MEMORY = 2 << 30
"""Bytes of address space: the headers of an archive go into memory, however long they say they are."""
_EVERY_S = 0.1


def command(
    paths: Paths, template: str, source: str, *, manifest: str | None = None, parent: int | None = None
) -> list[str]:
    """How to start it. `manifest`: a file; `parent`: the process that it must not outlive (default: this one)."""
    line = [sys.executable, "-m", "botd.storage.releases", "add", f"--parent={parent or os.getpid()}"]
    line += [f"--home={paths.home}", f"--template={template}", f"--source={source}"]
    return line if manifest is None else [*line, f"--manifest={manifest}"]


def main(argv: list[str]) -> int:
    arguments = _parse(argv)
    die_with_parent()
    if arguments.parent is not None and os.getppid() != arguments.parent:
        return 1  # it was gone before it could be told to us
    os.umask(0o077)
    _limit_memory()
    try:
        os.nice(_NICE)
    except OSError:
        pass  # only a courtesy to others
    told_at = 0.0

    def progress(files: int, size: int, total_files: int, total_bytes: int) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= _EVERY_S or files == total_files:
            told_at = now
            _say({"files": files, "bytes": size, "total_files": total_files, "total_bytes": total_bytes})

    try:
        done = add(
            Paths(arguments.home),
            arguments.template,
            arguments.source,
            manifest=arguments.manifest,
            progress=progress,
            dry=arguments.dry_run,
        )
    except BotdError as error:
        facts = {"message": error.message, "hint": error.hint, "exit": error.exit, "details": error.details}
        _say({"error": {"kind": error.kind, **facts}})
        return 1
    _say({"result": asdict(done)})
    return 0


def _limit_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > _MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m botd.storage.releases", allow_abbrev=False)
    adding = parser.add_subparsers(required=True).add_parser("add", allow_abbrev=False)
    for name in ("home", "template", "source"):
        adding.add_argument(f"--{name}", required=True)
    adding.add_argument("--manifest")
    adding.add_argument("--dry-run", action="store_true")
    adding.add_argument("--parent", type=int)
    return parser.parse_args(argv)


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
