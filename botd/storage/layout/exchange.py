"""Two names of one directory trade places, in one step where the file system can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache

_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(parent: int, one: str, other: str) -> bool:
    """Swap what two names in the directory `parent` mean; nobody ever sees one of them missing.

    False, and nothing has happened, where the kernel, the C library or the file system has no such call (renameat2
    with RENAME_EXCHANGE: ext4, xfs, btrfs, f2fs and tmpfs have it; NFS and some FUSE file systems do not). Other errors
    are raised as OSError; a missing name is FileNotFoundError.
    """
    call = _renameat2()
    if call is None:
        return False
    number = call(parent, os.fsencode(one), os.fsencode(other))
    if number in _UNSUPPORTED:
        return False
    if number:
        raise OSError(number, os.strerror(number), one, None, other)
    return True


@cache
def _renameat2() -> Callable[[int, bytes, bytes], int] | None:
    """The call, returning an errno or 0; looked up when it is first needed, for most commands never need it."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

    def call(parent: int, one: bytes, other: bytes) -> int:
        return ctypes.get_errno() if function(parent, one, parent, other, _RENAME_EXCHANGE) else 0

    return call
