"""Output of bots for tests: through the keeper's own mover, or laid down with chosen times."""

import os
from struct import pack

from botd.keeper.logs import Sink
from botd.keeper.source import Source


class Printer:
    """A pipe into a log file of `folder`, moved by the keeper's code; `keep` rotated files of `max_bytes`."""

    def __init__(self, folder, name="out", max_bytes=1 << 30, keep=5):
        self.sink = Sink(str(folder), name, max_bytes, keep)
        reading, self.pipe = os.pipe()
        os.set_blocking(reading, False)
        self.source = Source(reading, self.sink)
        self.sink.open()

    def print(self, data):
        """Write bytes and have them moved into the file."""
        for at in range(0, len(data), 32768):
            os.write(self.pipe, data[at : at + 32768])
            while True:
                try:
                    self.sink.move(self.source)
                except BlockingIOError:
                    break

    def close(self):
        self.sink.close()
        os.close(self.pipe)
        os.close(self.source.fd)


def lay_down(folder, moves, name="out", suffix=""):
    """A log file and its index: `moves` is a list of (wall time or None, bytes)."""
    os.makedirs(folder, exist_ok=True)
    offset = 0
    with open(f"{folder}/{name}.log{suffix}", "wb") as log, open(f"{folder}/{name}.idx{suffix}", "wb") as index:
        for at, data in moves:
            if at is not None:
                index.write(pack("<dQ", at, offset))
            log.write(data)
            offset += len(data)
