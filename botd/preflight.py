"""`botd preflight`: would this program do as the botd of a running fleet? Nothing is changed by the question.

    botd preflight --home HOME --database COPY --protocol OLDEST-NEWEST [--config FILE]

COPY is a copy of the fleet's database that may be migrated; the protocol is what the running keeper speaks. The answer
is one JSON object on stdout (see `Facts`), or words on stderr and an exit status.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Sequence

import botd
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.contract.vocabulary import Exit
from botd.succession import PACKAGES


def main(argv: Sequence[str]) -> int:
    """What follows `botd preflight`; the exit status."""
    parser = argparse.ArgumentParser(prog="botd preflight", description="would this botd do for a running fleet?")
    for name in ("--home", "--database", "--protocol"):
        parser.add_argument(name, required=True)
    parser.add_argument("--config")
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.USAGE
    try:
        _import_all()
        asyncio.run(_configuration(options.home, options.config))
        schema = _database(options.database)
        _protocol(options.protocol)
    except BotdError as error:
        sys.stderr.write(f"botd: {error.message}\n" + (f"  try: {error.hint}\n" if error.hint else ""))
        return error.exit
    except Exception as error:  # noqa: BLE001 - whatever is wrong with this program is the answer
        sys.stderr.write(f"botd: {type(error).__name__}: {error}\n")
        return Exit.FAILED
    json.dump(_facts(schema), sys.stdout)
    return Exit.OK


def _import_all() -> None:
    """Every module, those too that are only imported when they are needed."""
    for module in pkgutil.walk_packages(botd.__path__, "botd."):
        importlib.import_module(module.name)


async def _configuration(home: str, option: str | None) -> None:
    from botd.config import load_in_child, locate

    source = locate(os.environ, Paths(home), option)
    await load_in_child(source.path, required=source.required)


def _database(copy: str) -> int:
    """Open and migrate the copy, and read every record of it: the newest schema."""
    from botd.state.schema import MIGRATIONS
    from botd.state.store import Store

    store = Store.open(copy)
    try:
        store.load()
        store.events(limit=1000)
    finally:
        store.close()
    return len(MIGRATIONS)


def _protocol(spoken: str) -> None:
    from botd.keeper import wire

    oldest, _, newest = spoken.partition("-")
    if not (oldest.isdigit() and newest.isdigit()) or wire.agreed(int(newest), int(oldest)) is None:
        raise BotdError(
            "conflict",
            f"the running keeper speaks protocol {spoken}, botd {botd.__version__} {wire.OLDEST}-{wire.VERSION}",
            hint="upgrade to a version in between first",
        )


def _facts(schema: int) -> dict[str, object]:
    keeper = os.path.join(PACKAGES, "botd", "keeper", "__main__.py")
    return {
        "schema": 1,
        "version": botd.__version__,
        "python": sys.executable,
        "packages": PACKAGES,
        "keeper": keeper,
        "database": schema,
    }
