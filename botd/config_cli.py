"""`botd config check [FILE] [--print]` and `botd config schema`: the only users of the pydantic model.

With `--print` the answer is one JSON document on stdout, for the daemon: {"schema": 1, "settings": ...}
or {"schema": 1, "error": ...} with the error as JSON-RPC has it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from botd import config
from botd.contract import SCHEMA, paths
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit
from botd.core.settings import Settings


def main(argv: Sequence[str]) -> int:
    """Run what follows `botd config`, as in ["check", "bot_config.json"]; returns the exit status."""
    parser = argparse.ArgumentParser(prog="botd config", description="check bot_config.json, or print its JSON Schema")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="check|schema")
    check = verbs.add_parser("check", help="check a configuration file and say what it changes")
    check.add_argument("file", nargs="?", metavar="FILE", help="default: the file that botd would read")
    check.add_argument("--print", action="store_true", dest="printed", help="print every value in force as JSON")
    verbs.add_parser("schema", help="print the JSON Schema")
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:  # --help, or a usage error that argparse has told
        return end.code if isinstance(end.code, int) else Exit.USAGE
    if options.verb == "schema":
        from botd import config_model

        print(json.dumps(config_model.json_schema(), indent=2))
        return Exit.OK
    return _check(options.file, options.printed)


def _check(file: str | None, printed: bool) -> int:
    try:
        source = config.locate(os.environ, paths.resolve(os.environ, os.geteuid()), file)
        settings = _load(source)
    except BotdError as error:
        if printed:
            print(json.dumps({"schema": SCHEMA, "error": error.to_rpc()}))
        else:
            _complain(error)
        return error.exit
    if printed:
        print(json.dumps({"schema": SCHEMA, "settings": config.effective(settings)}))
    else:
        _tell(source, settings)
    return Exit.OK


def _load(source: config.Source) -> Settings:
    if not source.required and not source.found:
        return Settings()
    from botd import config_model

    return config_model.load(source.path)


def _complain(error: BotdError) -> None:
    print(f"botd: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


def _tell(source: config.Source, settings: Settings) -> None:
    if not source.required and not source.found:
        print(f"{source.path}: no such file; the defaults are in force")
        return
    changed = config.changes(Settings(), settings)
    print(f"{source.path}: valid; {_counted(len(changed))} from the defaults")
    for change in changed:
        print(f"  {change.key}: {json.dumps(change.after)} (default {json.dumps(change.before)})")


def _counted(number: int) -> str:
    return "no key differs" if number == 0 else "1 key differs" if number == 1 else f"{number} keys differ"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
