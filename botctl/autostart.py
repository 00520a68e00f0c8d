"""Starting botd: the one thing that a client does without being asked."""

from __future__ import annotations

import subprocess
import sys

PATIENCE_S = 60.0


def botd_command(*arguments: str) -> list[str]:
    """botd of the same installation.

    -P: the working folder may belong to anybody and must not be searched for a package named botd.
    """
    return [sys.executable, "-P", "-m", "botd", *arguments]


def start_daemon(config: str | None = None) -> str:
    """Start botd in the background and return when it answers: "" or the reason why it does not."""
    command = botd_command("run", "--detach", *(["--config", config] if config else []))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {PATIENCE_S:g} s"
    except OSError as error:
        return f"{command[0]}: {error.strerror or error}"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return " ".join(lines[-3:]).removeprefix("botd: ") or f"it ended with status {done.returncode}"
