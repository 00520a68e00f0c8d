"""Reading the files that hold secrets, with the rights of whoever calls botctl."""

from __future__ import annotations

import os
import stat

from botd.contract.errors import invalid
from botd.contract.vocabulary import Exit

SECRET_MAX = 128 << 10


def read_secret(path: str, where: str, *, exit: int = Exit.USAGE) -> str:
    """The text of a secret's file, its last newline removed. Raises BotdError(invalid) naming `where`.

    Only regular files: a pipe could make us wait for ever, a device never end.
    """
    try:
        # Not blocking: opening a pipe without a writer would wait before its kind can be looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise invalid(where, f"cannot read {path}: {error.strerror}", exit=exit) from None
    try:
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise invalid(where, f"{path} is no regular file", exit=exit)
            data = file.read(SECRET_MAX + 1)
    except OSError as error:
        raise invalid(where, f"cannot read {path}: {error.strerror}", exit=exit) from None
    if len(data) > SECRET_MAX:
        raise invalid(where, f"{path} is larger than {SECRET_MAX >> 10} KiB", exit=exit)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"{path} is not UTF-8 text (byte {error.start})"
        raise invalid(where, reason, hint="encode binary secrets, for example with base64", exit=exit) from None
    if "\0" in text:
        raise invalid(where, f"{path} holds a NUL byte, which no environment can carry", exit=exit)
    return text.removesuffix("\n").removesuffix("\r")
