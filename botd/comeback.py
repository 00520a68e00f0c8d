"""How a botd comes back after its death: who sees to it, what its last words were, and with which configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from botd import __version__

_SUPERVISORS = frozenset({"systemd", "runsv", "s6-supervise", "supervisord", "dinit", "supervise-daemon", "circusd"})
_WORDS_MAX = 2000
_SOURCE_MAX = 1024 * 1024
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


def read(source: str) -> str | None:
    """The text of a configuration, to tell whether it is the one that was checked; None when it cannot be read."""
    try:
        with open(source, encoding="utf-8") as file:
            return file.read(_SOURCE_MAX)
    except (OSError, ValueError):
        return None  # its check says why


def remember(path: str, settings: dict[str, Any], text: str | None) -> None:
    """Keep a configuration that is in force, and the text that was found to mean it (None: not known for sure).

    OSError when it cannot be written; the former one stays then.
    """
    kept = json.dumps({"version": __version__, "text": text, "settings": settings})
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == kept:
                return
    except (OSError, ValueError):
        pass  # there is none, or none that can be read
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(kept)
    os.replace(f"{path}.new", path)


def remembered(path: str) -> Any:
    """The last one that was kept; None when there is none."""
    return _kept(path).get("settings")


def checked(path: str, text: str | None) -> Any:
    """What was kept, if this version of botd has checked exactly this text and found that; else None."""
    kept = _kept(path)
    known = text is not None and kept.get("text") == text and kept.get("version") == __version__
    return kept.get("settings") if known else None


def _kept(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
