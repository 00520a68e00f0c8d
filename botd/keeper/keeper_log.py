"""The keeper's own few lines (run/keeper.log); what bots write is logs.py."""

from __future__ import annotations

import os
from time import gmtime, strftime

_LIMIT = 256 * 1024


class Log:
    """The keeper's own few lines; the file never grows beyond twice its limit."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, text: str) -> None:
        line = f"{strftime('%Y-%m-%dT%H:%M:%SZ', gmtime())} keeper[{os.getpid()}] {text}\n"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, line.encode("utf-8", "backslashreplace"))
                if os.fstat(fd).st_size > _LIMIT:
                    os.rename(self._path, self._path + ".1")
            finally:
                os.close(fd)
        except OSError:
            return  # the disk is full: what cannot be written cannot be complained about either

    def error(self, error: Exception) -> None:
        place, trace = "", error.__traceback__
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
            trace = trace.tb_next
        self(f"unexpected at {place}: {type(error).__name__}: {error}")
