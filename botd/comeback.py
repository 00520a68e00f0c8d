"""How a botd comes back after its death: who sees to it, what its last words were, and with which configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

_SUPERVISORS = frozenset({"systemd", "runsv", "s6-supervise", "supervisord", "dinit", "supervise-daemon", "circusd"})
_WORDS_MAX = 2000
_MINE = "BOTD_RESPAWNED"

_words_fd = -1


def begin(environ: dict[str, str] | os._Environ[str]) -> bool:
    """Whether the keeper brought this botd back. It then listens for the reason should this one end, too."""
    global _words_fd
    given = environ.pop(_MINE, "")
    if not given.isdigit():
        return False
    try:
        os.set_inheritable(int(given), False)
    except OSError:
        return True  # brought back by hand, with an environment copied from somewhere
    _words_fd = int(given)
    return True


def last_words(text: str) -> None:
    """Tell the keeper why this botd ends. Nothing where it did not bring it back."""
    if _words_fd >= 0:
        try:
            os.write(_words_fd, text.encode("utf-8", "replace")[:_WORDS_MAX])
        except OSError:
            return  # there is no keeper any more; the log has the words as well


def wanted(environ: Mapping[str, str], *, detached: bool) -> bool:
    """Whether the keeper is to start botd again when it dies.

    BOTD_RESPAWN=0 forbids it. Without it the keeper does, except where a service manager started us, which will.
    """
    said = environ.get("BOTD_RESPAWN")
    if said is not None:
        return said != "0"
    return detached or not _supervised(environ)


def _supervised(environ: Mapping[str, str]) -> bool:
    if os.getpid() == 1 or "NOTIFY_SOCKET" in environ or environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        return True
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in _SUPERVISORS
    except OSError:
        return False


def remember(path: str, document: dict[str, Any]) -> None:
    """Keep a configuration that is in force. OSError when it cannot be written; the former one stays then."""
    text = json.dumps(document)
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except (OSError, ValueError):
        pass  # there is none, or none that can be read
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def remembered(path: str) -> Any:
    """The last one that was kept; None when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
