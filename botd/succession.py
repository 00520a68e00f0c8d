"""One botd after another in the same process: what goes from one to the next, and what is on record of it.

An upgrade executes the new program in botd's process: a service manager sees the same pid, the lock is never free, and
who knocks at the socket meanwhile waits. `run/upgrade.json` says how far it got, so that whoever starts next knows:

    trial      the new program was put in place; it has recorded nothing yet: the database may go back
    recording  it records what happens; the former schema is past
    done       it serves
    failed     the former one serves again; `reason` says why

Imported before anything else of the daemon: the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from botd import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    Record = dict[str, Any]

_INHERITANCE = "BOTD_SUCCESSION"
PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TAIL_BYTES, TAIL_LINES = 4000, 5


class Program:
    """A way to run botd: `argv` and `cwd`, and what tells it from others (version, interpreter, where its code is)."""

    __slots__ = ("argv", "cwd", "python", "version")

    def __init__(self, version: str, python: str, cwd: str, config: str | None) -> None:
        self.version, self.python, self.cwd = version, python, cwd
        self.argv = [python, "-m", "botd", "run", *(["--config", config] if config else [])]

    def to_json(self) -> Record:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.version, self.python, self.cwd


def own(config: str | None) -> Program:
    return Program(__version__, sys.executable, PACKAGES, config)


def way(program: Program) -> Record:
    """How the keeper runs it."""
    return {"argv": program.argv, "cwd": program.cwd}


def recipe(home: str, environ: Mapping[str, str], config: str | None) -> Record:
    """How the keeper brings botd back: this program, with what of the environment it needs."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_STATE_HOME")
    env = {name: value for name, value in environ.items() if name in kept or name.startswith("BOTD_")}
    env["BOTD_RESPAWN"] = "1"
    if "BOTD_HOME" in env:
        env["BOTD_HOME"] = home  # it may be relative, and botd is started elsewhere
    return {**way(own(config)), "env": env}


def is_own(program: Record) -> bool:
    """Whether a program on record is this one."""
    return (program.get("version"), program.get("python"), program.get("cwd")) == own(None).identity


class Inheritance:
    """What the program before this one in the process left: descriptors (-1: none), and a way back until it serves."""

    __slots__ = ("former", "listener", "lock", "path", "returned", "served")

    def __init__(self, left: Record) -> None:
        self.lock, self.listener = int(left.get("lock", -1)), int(left.get("listener", -1))
        self.path: str = left.get("record", "")
        self.former: Record | None = left.get("former")
        self.returned = bool(left.get("returned"))
        self.served = False

    def give_back(self, error: BaseException) -> None:
        """The start failed: execute the former program. Returns when there is none, or this program served already."""
        if self.served or self.former is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
            return
        reason = f"{type(error).__name__}: {error}" if not hasattr(error, "hint") else str(error)
        note(self.path, reason=reason)
        if is_own(self.former):
            return  # its code is gone from the disk: this is it
        sys.stderr.write(f"botd {__version__} cannot start: {reason}; back to {self.former.get('version')}\n")
        for fd in (self.lock, self.listener):
            try:
                os.close(fd)
            except OSError:
                pass  # it was taken over, and let go of
        execute(self.former["argv"], self.former["cwd"], {"returned": True, "record": self.path})


def inherit(environ: MutableMapping[str, str]) -> Inheritance | None:
    """What was left for this program, taken out of its environment; None when it is the first in its process."""
    text = environ.pop(_INHERITANCE, "")
    try:
        left = json.loads(text) if text else None
    except ValueError:
        return None
    return Inheritance(left) if isinstance(left, dict) else None


def execute(argv: list[str], cwd: str, left: Record, more: dict[str, str] | None = None) -> NoReturn:
    """Put another botd into this process. OSError when it cannot be executed."""
    for name in ("lock", "listener"):
        if left.get(name, -1) >= 0:
            os.set_inheritable(left[name], True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(cwd)
    os.execve(argv[0], argv, {**os.environ, **(more or {}), _INHERITANCE: json.dumps(left)})


# --- on record ---------------------------------------------------------------------------------------


def record_path(run: str) -> str:
    return f"{run}/upgrade.json"


def read(path: str) -> Record | None:
    """The last upgrade, or None."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("from"), dict) and isinstance(record.get("to"), dict)
    return record if known and isinstance(record.get("state"), str) else None


def write(path: str, record: Record) -> None:
    """Durably, all of it or nothing. OSError."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(fd)
    os.rename(new, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def note(path: str, **changes: Any) -> None:
    """Change some of what is on record; a full disk is no reason to fail."""
    record = read(path)
    if record is not None:
        try:
            write(path, {**record, **changes})
        except OSError as error:
            sys.stderr.write(f"botd: {path}: {error.strerror}\n")


def begin(former: Program, new: Program, schema: int, pids: dict[str, int]) -> Record:
    """The record of an upgrade that is about to happen; `schema` is that of the former's database."""
    return {
        "schema": 1,
        "id": f"{os.getpid()}-{time.time_ns()}",
        "state": "trial",
        "at": time.time(),
        "left": time.clock_gettime(time.CLOCK_BOOTTIME),
        "from": {**former.to_json(), "database": schema},
        "to": new.to_json(),
        "reason": "",
        "pids": pids,
    }


def tail(path: str) -> str:
    """The last lines of a log, as one."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return " | ".join(line.strip() for line in lines[-TAIL_LINES:] if line.strip())
