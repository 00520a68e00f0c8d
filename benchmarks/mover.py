"""The floor of log moving: standard input (a pipe) into one file by splice, the file begun again at 10 MiB."""

import fcntl
import os
import sys

ROTATE_BYTES = 10 << 20
CHUNK = 1 << 20


def main() -> None:
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    fcntl.fcntl(0, fcntl.F_SETPIPE_SZ, CHUNK)
    size = 0
    while moved := os.splice(0, file, CHUNK):
        size += moved
        if size >= ROTATE_BYTES:
            os.lseek(file, 0, os.SEEK_SET)
            os.ftruncate(file, 0)
            size = 0


if __name__ == "__main__":
    main()
