"""What every program gets that is run while a release is made."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_ALLOWED_BEGIN = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def die_with_parent() -> None:
    """Let this process end with the one that started it (the thread that did, strictly)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def environ(own: Mapping[str, str]) -> dict[str, str]:
    """What programs that make environments find: where to download from and through, and nothing else of ours."""
    return {k: v for k, v in own.items() if k in _ALLOWED or k.startswith(_ALLOWED_BEGIN)}
