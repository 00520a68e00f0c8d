"""Writes a placeholder for every secret file that a fleet.toml names and that does not exist yet.

    python3 make_secrets.py [fleet.toml]

The placeholders (`demo-` and random characters) are enough for the local stand-in of the Graph API. A file that
exists is never touched, so real secrets can be put in place before or after. Files are 0600, folders 0700.
"""

from __future__ import annotations

import os
import secrets
import sys
import tomllib
from typing import Any


def secret_files(manifest: dict[str, Any], base: str) -> list[str]:
    """The absolute paths of all secret files of a parsed fleet.toml in the folder `base`, each once."""
    sections = [manifest.get("defaults", {}), *manifest.get("bot", [])]
    named = [secret["file"] for section in sections for secret in section.get("secrets", {}).values()]
    return list(dict.fromkeys(os.path.normpath(os.path.join(base, path)) for path in named))


def write_placeholder(path: str) -> bool:
    """False where the file exists already."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(file, "w") as out:
        out.write(f"demo-{secrets.token_hex(16)}\n")
    return True


def main(arguments: list[str]) -> int:
    path = arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), "fleet.toml")
    try:
        with open(path, "rb") as file:
            manifest = tomllib.load(file)
        files = secret_files(manifest, os.path.dirname(os.path.abspath(path)))
        written = sum(map(write_placeholder, files))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"make_secrets: {path}: {error}", file=sys.stderr)
        return 1
    print(f"{written} placeholders written, {len(files) - written} files were there already")
    return 0


if __name__ == "__main__":
    # A folder that makedirs creates on the way gets its mode from the umask alone.
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
