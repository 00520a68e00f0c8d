"""A bot that keeps its own books, so that a fleet's can be held against them: `witness.py SEED KIND` (python -I -S).

    steady    prints numbered lines, and lives until it is asked to end (SIGTERM: it says so and exits)
    parent    the same with a family that must go with it: a setsid child and a double-forked daemon
    stubborn  the same, but notes SIGTERM and lives on
    mortal    ends by itself after a while, with a code or by a signal; SEED, its name and the life's number say how
    flood     as mortal, and begins each life with a megabyte at once

BOT_DATA then has

    witness.lock   held by flock from the first to the last process of a life; its text counts the lives
    lives          one line for each thing that happened, written before it happens: WORD LIFE PID TIME [MORE]
                       begin; term (it was asked); end exit CODE; end signal NUMBER; twin (somebody holds the lock)
    counts         for each life (8 bytes at 8 x LIFE) the number of its last line that was certainly written

TIME is CLOCK_MONOTONIC. A line of output is `LIFE NUMBER FILL CHECKSUM`; every fifth goes to stderr. What is written at
once fits into PIPE_BUF: the pipe takes all of it or nothing. Exit 99 means that it would have run twice.

One file on purpose: with -I -S there is nothing to import a second one from.
"""

import _signal as signal
import os
import sys
from binascii import crc32
from struct import pack
from time import monotonic, sleep

LIFETIME_S = 7200
PIPE_BUF = 4096
RAN_TWICE = 99
ASKED = 10
"""The exit status after SIGTERM is ASKED + LIFE % 50: one that says which life it was."""
TO_STDERR = 5
FLOOD_LINES, FLOOD_FILL = 13_000, 60
SIGNALS = (9, 11, 6, 10, 12)
"""What a mortal one may send to itself: KILL, SEGV, ABRT, USR1, USR2."""


def fate(seed, name, life):
    """(seconds to live, "exit" or "signal", number): known to whoever knows the seed."""
    chance = crc32(f"{seed} {name} {life}".encode())
    seconds = 0.2 + (chance % 1000) / 250
    number = chance // 1000
    if number % 4 == 0:
        return seconds, "signal", SIGNALS[number // 4 % len(SIGNALS)]
    return seconds, "exit", (0, 1, 3, 7, 42, 111, 200, 255)[number // 4 % 8]


def line(name, life, number, fill):
    """Complete, with a checksum over everything and over whose it is."""
    text = f"{life} {number} {'.' * fill}"
    return f"{text} {crc32(f'{name} {text}'.encode()):08x}\n".encode()


def pace(name):
    """Seconds between two lines: different for each bot, 12 to 100 lines a second."""
    return 0.01 + crc32(name.encode()) % 70 / 1000


class Witness:
    def __init__(self, seed, kind):
        self.seed, self.kind = seed, kind
        self.name, self.data = os.environ["BOT_ID"], os.environ["BOT_DATA"]
        self.book = self.open("lives", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.lock = self.open("witness.lock", os.O_RDWR | os.O_CREAT)
        self.counts = self.open("counts", os.O_WRONLY | os.O_CREAT)
        self.life = self.number = 0

    def open(self, name, flags):
        return os.open(f"{self.data}/{name}", flags | os.O_CLOEXEC, 0o600)

    def note(self, word, *more):
        words = (word, self.life, os.getpid(), f"{monotonic():.4f}", *more)
        os.write(self.book, (" ".join(map(str, words)) + "\n").encode())

    def run(self):
        import fcntl

        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.note("twin")
            os._exit(RAN_TWICE)
        self.life = int(os.pread(self.lock, 32, 0) or b"0") + 1
        # Through the locked descriptor, never by rename: a new file would be a new lock.
        os.pwrite(self.lock, b"%d" % self.life, 0)
        self.note("begin")
        signal.signal(signal.SIGTERM, self.asked)
        if self.kind == "parent":
            self.family()
        until, how, number = monotonic() + LIFETIME_S, "exit", 0
        if self.kind in ("mortal", "flood"):
            seconds, how, number = fate(self.seed, self.name, self.life)
            until = monotonic() + seconds
        if self.kind == "flood":
            self.say(FLOOD_LINES, FLOOD_FILL)
        interval = pace(self.name)
        while monotonic() < until:
            self.say(1, self.number % 50)
            sleep(interval)
        self.end(how, number)

    def say(self, count, fill):
        """So many lines more, in pieces of one stream that the pipe takes whole."""
        last = self.number + count
        piece, stream = b"", 1
        while self.number < last:
            number = self.number + 1
            text = line(self.name, self.life, number, fill)
            goal = 1 if number % TO_STDERR else 2
            if piece and (goal != stream or len(piece) + len(text) > PIPE_BUF):
                self.flush(stream, piece)
                piece = b""
            piece, stream, self.number = piece + text, goal, number
        self.flush(stream, piece, self.number)

    def flush(self, stream, piece, number=None):
        os.write(stream, piece)
        os.pwrite(self.counts, pack("<Q", self.number if number is None else number), 8 * self.life)

    def asked(self, _number, _frame):
        self.note("term")
        if self.kind != "stubborn":
            self.end("exit", ASKED + self.life % 50)

    def end(self, how, number):
        self.note("end", how, number)
        if how == "exit":
            os._exit(number)
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), number)
        sleep(LIFETIME_S)

    def family(self):
        """Two who hold the lock as well: while one of them lives, the next life would be a twin."""
        for daemon in (False, True):
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.setsid()
                if daemon and os.fork():
                    os._exit(0)
                signal.alarm(LIFETIME_S)
                sleep(LIFETIME_S)
                os._exit(0)
            if daemon:
                os.waitpid(pid, 0)


if __name__ == "__main__":
    signal.alarm(LIFETIME_S)
    Witness(sys.argv[1], sys.argv[2]).run()
