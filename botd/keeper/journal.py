"""What the keeper must not forget when it is killed: an append-only file of small checked lines.

A line is eight hex digits of CRC-32, a space, one JSON object, a newline; it is written with one write(2). Nothing is
synced: the page cache outlives kill -9, and a power cut ends the bots too. A torn or damaged line is skipped and
counted.

Records ("rec"), each with id and gen:
    START  a child exists and waits at its gate (pid, start_ticks, inode, boot, out, err, cgroup, log, lock)
    GO     it was released        NOGO  it never will be        EXIT  how it ended (what)
    LIMITS what a live life may use from now on (limits), and the folders of its controllers (folders)
    ACK    botd recorded the end  FORGET  the bot was deleted   SPENT  highest generation used (after compaction)
"""

from __future__ import annotations

import os
from zlib import crc32

from botd.crash import crash_point
from botd.keeper.lean import dumps, loads
from botd.keeper.spare import Spare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_COMPACT_FLOOR = 1024 * 1024
_LINE_LIMIT = 1024 * 1024
_FULL = (28, 122)
"""ENOSPC, EDQUOT."""


class Journal:
    """The journal at `path` and what it says.

    `spent` maps an id to the highest generation that may not be started again; `open` holds START records (with
    "go": True once released) of lives that have not ended; `ended` holds the ends that nobody acknowledged. Both are
    keyed (id, gen). `damaged` counts the lines that were skipped.
    """

    def __init__(self, path: str, rewrite: bool = True) -> None:
        """`rewrite`: False only to read one that another keeper is writing."""
        self.path = path
        self.spent: dict[str, int] = {}
        self.open: dict[tuple[str, int], Record] = {}
        self.ended: dict[tuple[str, int], Record] = {}
        self.damaged = 0
        self._fd = -1
        self._size = 0
        self._bound = _COMPACT_FLOOR
        self._torn = False
        self._load()
        if rewrite:
            self.compact()
            self._spare = Spare(f"{path}.spare")

    def write(self, rec: str, life_id: str, gen: int, **facts: Any) -> None:
        """Append one record; OSError (a disk without a page to spare) when that failed, and then nothing changed."""
        record = {"rec": rec, "id": life_id, "gen": gen, **facts}
        line = _line(record)
        while True:
            try:
                self._append(line)
                break
            except OSError as error:
                if error.errno not in _FULL or not self._spare.give():
                    raise
        self._apply(record)
        if self._size > self._bound:
            self.compact()
        self._spare.fill()

    def _append(self, line: bytes) -> None:
        # A line cut short by a full disk must not swallow the one that follows it.
        data = b"\n" + line if self._torn else line
        written = 0
        try:
            written = os.write(self._fd, data)
        finally:
            self._size += written
            if written:
                self._torn = written != len(data)
        if self._torn:
            raise OSError(28, "No space left on device")

    def mend(self) -> None:
        """Write the file again if it has no name any more: what it knows must outlive this keeper."""
        try:
            if os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                return
        except FileNotFoundError:
            pass  # that is it
        self.compact()
        self._spare = Spare(self._spare.path)

    def compact(self) -> None:
        """Rewrite the file with what still matters; on an error the old file simply goes on growing."""
        lines = [_line({"rec": "SPENT", "id": i, "gen": g}) for i, g in self.spent.items()]
        for (life_id, gen), record in self.open.items():
            lines.append(_line({**record, "rec": "START"}))
            if record.get("go"):
                lines.append(_line({"rec": "GO", "id": life_id, "gen": gen}))
        for (life_id, gen), what in self.ended.items():
            lines.append(_line({"rec": "EXIT", "id": life_id, "gen": gen, "what": what}))
        data = b"".join(lines)
        temporary = self.path + ".new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            crash_point("compact-opened")
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                crash_point("compact-written")
                os.rename(temporary, self.path)
            except OSError:
                os.close(fd)
                raise
        except OSError:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                self._size = os.fstat(self._fd).st_size
                self._torn = self._size > 0
            self._bound = self._size + _COMPACT_FLOOR
            return
        crash_point("compact-renamed")
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._torn = False
        self._size = len(data)
        self._bound = max(_COMPACT_FLOOR, 4 * self._size)

    def _load(self) -> None:
        try:
            with open(self.path, "rb") as file:
                for line in iter(lambda: file.readline(_LINE_LIMIT), b""):
                    self._read(line)
        except FileNotFoundError:
            pass  # the first start

    def _read(self, line: bytes) -> None:
        if line == b"\n":
            return
        try:
            if line[8:9] != b" " or not line.endswith(b"\n") or int(line[:8], 16) != crc32(line[9:-1]):
                raise ValueError("checksum")
            record = loads(line[9:-1].decode("ascii"))
            self._apply(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.damaged += 1

    def _apply(self, record: Record) -> None:
        rec, life_id, gen = record["rec"], record["id"], record["gen"]
        key = (life_id, gen)
        if rec == "FORGET":
            self.spent.pop(life_id, None)
            for old in [k for k in self.ended if k[0] == life_id]:
                del self.ended[old]
            return
        self.spent[life_id] = max(gen, self.spent.get(life_id, -1))
        if rec == "START":
            self.open[key] = {k: v for k, v in record.items() if k != "rec"}
        elif rec == "GO":
            if key in self.open:
                self.open[key]["go"] = True
        elif rec == "LIMITS":
            if key in self.open:
                self.open[key].update(
                    (name, record[name]) for name in ("limits", "folders") if record[name] is not None
                )
        elif rec == "NOGO":
            self.open.pop(key, None)
        elif rec == "EXIT":
            self.open.pop(key, None)
            self.ended[key] = record["what"]
        elif rec == "ACK":
            self.ended.pop(key, None)


def _line(record: Record) -> bytes:
    body = dumps(record).encode("ascii")
    return b"%08x %s\n" % (crc32(body), body)
