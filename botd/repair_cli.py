"""`botd repair [--check] [--print]`: look at the database of a fleet whose botd does not run, and put it right.

With --print the answer is one JSON document on stdout, as `daemon.repair` gives it, or {"schema": 1, "error": ...}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from botd.contract.errors import BotdError
from botd.contract.paths import Paths, resolve
from botd.contract.views import document
from botd.contract.vocabulary import Exit
from botd.state.connection import publish
from botd.state.errors import SQLITE_ERRORS, explain, explain_os
from botd.state.repair import restored_path, take_place
from botd.state.salvage import salvage, write
from botd.state.store import Damaged, Store
from botd.system import lock
from botd.system.clock import Clock, rfc3339


def main(argv: Sequence[str]) -> int:
    """Run what follows `botd repair`; returns the exit status."""
    unknown = set(argv) - {"--check", "--print"}
    try:
        if unknown:
            raise BotdError("invalid", f"botd repair: unknown option {min(unknown)!r}", hint="botd --help")
        report = repair(resolve(os.environ, os.geteuid()), Clock(), check_only="--check" in argv)
    except BotdError as error:
        if "--print" in argv:
            print(json.dumps(document(error=error.to_rpc())))
        else:
            print(f"botd: {error.message}" + (f"\n  try: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit
    print(json.dumps(document(**report)) if "--print" in argv else _words(report))
    return Exit.OK if report["repaired"] or not report["problem"] else Exit.FAILED


def repair(paths: Paths, clock: Clock, *, check_only: bool) -> dict[str, Any]:
    """The report of `daemon.repair`. Raises BotdError; conflict when botd runs."""
    if not os.path.isdir(paths.run):
        return {"problem": None, "repaired": False, "remedy": ""}
    held = lock.acquire(paths, clock)
    try:
        problem = _problem(paths.database, clock.boot_id())
        if problem is None or check_only:
            return {"problem": problem.message if problem else None, "repaired": False, "remedy": _hint(problem)}
        return {"problem": problem.message, **_rebuild(paths.database)}
    finally:
        held.release()


def _hint(problem: Damaged | None) -> str:
    return problem.hint if problem is not None else ""


def _problem(path: str, boot_id: str) -> Damaged | None:
    if not any(map(os.path.lexists, (path, f"{path}.snapshot", restored_path(path)))):
        return None
    try:
        store = Store.open(path, boot_id)
        try:
            store.load()
        finally:
            store.close()
    except Damaged as problem:
        return problem
    return None


def _rebuild(path: str) -> dict[str, Any]:
    saved = salvage(path)
    new = f"{restored_path(path)}.new"
    try:
        write(saved, new)
        publish(new, restored_path(path))
        kept = take_place(path)
    except SQLITE_ERRORS as error:
        raise explain(path, error) from error
    except OSError as error:
        raise explain_os(path, error) from error
    return {"repaired": True, "kept": kept, **saved.summary(rfc3339)}


def _words(report: dict[str, Any]) -> str:
    if not report["problem"]:
        return "the database is sound"
    if not report["repaired"]:
        return f"{report['problem']}\n  try: {report['remedy']}"
    lost = "".join(f"\n  lost: {text}" for text in report["lost"])
    return f"repaired: {report['bots']} bots; the damaged file is {report['kept']}{lost}"
