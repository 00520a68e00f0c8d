"""Opening the folder of a name, never what lies behind a link or a mount.

O_NOFOLLOW on one name at a time keeps links out. It does not see a mount: a bind mount of the same file system has
the same st_dev as what is around it. openat2 with RESOLVE_NO_XDEV (Linux 5.6) refuses one in the call itself; without
it (an older kernel, a seccomp filter) the mount of what was opened is compared with that of its parent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_SYS_OPENAT2 = 437
"""The same on every architecture, as all calls that came after 2019."""
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_AT_FDCWD = -100

Open = Callable[[int, str], int]


def open_here(parent: int, name: str) -> int:
    """A descriptor of the directory `name` in the directory `parent`.

    OSError: EXDEV for a mount point, also one of the same file system; ELOOP or ENOTDIR for a link or a file.
    """
    return (_openat2() or open_compared)(parent, name)


def open_compared(parent: int, name: str) -> int:
    """The same where the kernel cannot refuse it for us."""
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        if _mount_of(fd) != _mount_of(parent):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mount_of(fd: int) -> tuple[int, bytes]:
    """What tells mounts apart: the number of the mount, where /proc has it, and that of the device."""
    number = b""
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        pass  # without /proc only what is another device is told
    else:
        try:
            number = os.read(info, 4096).partition(b"mnt_id:")[2].partition(b"\n")[0].strip()
        finally:
            os.close(info)
    return os.fstat(fd).st_dev, number


@cache
def _openat2() -> Open | None:
    """The call, if this kernel lets us make it; looked for when something is first cleaned up."""
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        how = (ctypes.c_uint64 * 3)(DIRECTORY, 0, _RESOLVE)
        syscall = libc.syscall
    except (ImportError, OSError, AttributeError):
        return None
    syscall.restype = ctypes.c_long
    syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)

    def call(parent: int, name: str) -> int:
        fd: int = syscall(_SYS_OPENAT2, parent, os.fsencode(name), how, ctypes.sizeof(how))
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        return fd

    try:
        os.close(call(_AT_FDCWD, "."))
    except OSError:
        return None
    return call
