"""Processes that play tricks with a folder while something else removes it. Run with `python foes.py TRICK ARGS...`.

`swap PLACE TARGET`: put a link to TARGET where PLACE was, and PLACE back, as fast as it goes.
`mount PLACE TARGET`: bind TARGET over PLACE and take it away again (needs a mount namespace of its own).
Both say `go` when they have begun, and end when their standard input does.
"""

import ctypes
import os
import select
import sys


def swap(place, target):
    away = f"{place}.away"
    for attempt in (
        lambda: os.rename(place, away),
        lambda: os.symlink(target, place),
        lambda: os.unlink(place),
        lambda: os.rename(away, place),
    ):
        try:
            attempt()
        except OSError:
            continue


LIBC = ctypes.CDLL(None)


def mount(place, target):
    if LIBC.mount(target.encode(), place.encode(), None, 4096, None) == 0:
        LIBC.umount2(place.encode(), 2)


def main(trick, place, target):
    print("go", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        {"swap": swap, "mount": mount}[trick](place, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
