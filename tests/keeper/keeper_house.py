"""A private home with a real keeper in it, and a small blocking client: what the keeper tests are written with."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import rmtree

import botd.keeper.__main__ as keeper_program
from botd.keeper import groups, hierarchies, wire
from botd.keeper.containment import folder_name, given

PROGRAM = keeper_program.__file__
PYTHON = [sys.executable, "-I", "-S", "-c"]
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
WITHIN_S = 20.0

WITNESS = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.close(os.open(sys.argv[1] + ".double", os.O_CREAT | os.O_WRONLY))
with open(sys.argv[1] + ".lives", "a") as lives:
    lives.write(sys.argv[2] + "\\n")
print("up", sys.argv[2], flush=True)
time.sleep(1000)
"""
"""A bot that knows by a lock of its own whether it is the only one, whatever the keeper believes."""


class Timeout(AssertionError):
    pass


def until(condition, what: str = "the condition", within: float = WITHIN_S):
    """Poll at the outermost edge of a real-process test; the value of the condition once it is true."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Timeout(f"{what} did not come true within {within} s")
        time.sleep(0.002)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


class House:
    """A BOTD_HOME of its own. Everything started in it is gone after `close`, also when the test failed."""

    def __init__(self, containment: str = "auto", without: str = "") -> None:
        self.home = tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.containment, self.without = containment, without
        self.program: subprocess.Popen | None = None
        self.client: Client | None = None
        self.known: dict[int, int] = {}
        self.cgroups: set[str] = set()

    def path(self, *parts: str) -> str:
        return os.path.join(self.home, *parts)

    def launch(self, crash_at: str = "") -> subprocess.Popen:
        env = {"PATH": ENV["PATH"]}
        if crash_at:
            env["BOTD_CRASH_AT"] = crash_at
        command = [sys.executable, "-I", "-S", PROGRAM, "--home", self.home]
        command += ["--containment", self.containment, "--without", self.without]
        self.program = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
        return self.program

    def connect(self, adopt: dict | None = None, respawn: dict | None = None, sync: bool = True) -> Client:
        """Connect to the keeper that was launched; hello, adopt what is handed over, and sync."""

        def attempt():
            try:
                return Client(self, respawn, adopt or {}, sync)
            except (FileNotFoundError, ConnectionError, BlockingIOError):
                if self.program is not None and self.program.poll() is not None:
                    raise AssertionError(f"the keeper ended with {self.program.returncode}") from None
                return None

        self.client = until(attempt, "a connection to the keeper")
        return self.client

    def up(self, **options) -> Client:
        self.launch()
        return self.connect(**options)

    def kill_keeper(self) -> None:
        assert self.program is not None
        self.program.kill()
        self.program.wait()

    def spec(self, life_id: str, gen: int, argv: list[str], **more) -> dict:
        return {
            "op": "start",
            "id": life_id,
            "gen": gen,
            "argv": argv,
            "env": ENV,
            "cwd": self.home,
            "uid": None,
            "gid": None,
            "lock": self.path("locks." + life_id.replace("/", "+")),
            "log": {"dir": self.path("logs", life_id), "max_bytes": 1 << 20, "keep": 3},
            "nofile": None,
            "stdin": None,
            **more,
        }

    def log(self, life_id: str, name: str = "out") -> bytes:
        """Everything a bot wrote, rotated files first."""
        folder = Path(self.path("logs", life_id))
        numbers = sorted((int(p.suffix[1:]) for p in folder.glob(f"{name}.log.[0-9]*")), reverse=True)
        parts = [(folder / f"{name}.log.{n}").read_bytes() for n in numbers]
        last = folder / f"{name}.log"
        return b"".join(parts) + (last.read_bytes() if last.exists() else b"")

    def bases(self) -> set[str]:
        """The folders of this home in every hierarchy of control groups, whether they exist or not."""
        found, name = hierarchies.own(), folder_name(self.home)
        tops = {*found.v1.values(), *([given(found.v2, name)] if found.v2 else [])}
        return {f"{top}/{name}" for top in tops}

    def group(self, life_id: str, gen: int, *files: str) -> str:
        """The folder of a life that has one of these files."""
        name = f"{life_id.replace('/', '+')}+{gen}"
        found = [f"{base}/{name}" for base in self.bases()]
        return next(folder for folder in found if any(os.path.exists(f"{folder}/{file}") for file in files))

    def keeper_log(self) -> str:
        return Path(self.path("run", "keeper.log")).read_text()

    def witness(self, gen: int) -> list[str]:
        return [*PYTHON, WITNESS, self.path("witness"), str(gen)]

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        if self.program is not None and self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        for folder in self.cgroups:
            try:
                Path(folder, "cgroup.kill").write_text("1")
            except OSError:
                pass  # gone already, as it should be
        for pidfd in self.known.values():
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # gone already, as it should be
            os.close(pidfd)
        for folder in self.cgroups:
            until(lambda folder=folder: _emptied(folder), f"{folder} to be empty")
        for base in self.bases():
            # A keeper that was killed leaves the folder of its home behind, and what it had no time to tell about.
            for name in os.listdir(base) if os.path.isdir(base) else ():
                if "+" in name:
                    until(lambda folder=f"{base}/{name}": _emptied(folder), f"{base}/{name} to be empty")
            groups.remove_empty(base)
        rmtree(self.home, ignore_errors=True)


def _emptied(folder: str) -> bool:
    """Remove a control group of this house; what still lives inside is killed."""
    for pid in groups.members(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was quicker
    return groups.remove(folder)


class Client:
    """A blocking botd. Messages that nobody asked for yet wait in `inbox`."""

    def __init__(self, house: House, respawn: dict | None, adopt: dict, sync: bool) -> None:
        self.house = house
        self.sock = wire.connect(house.path("run", "keeper.sock"))
        self.buffer = bytearray(wire.PACKET_LIMIT)
        self.inbox: list[dict] = []
        self.held: dict[tuple[str, int], tuple[dict, list[int]]] = {}
        self.states: list[dict] = []
        self.send({"op": "hello", "version": wire.VERSION, "pid": os.getpid(), "respawn": respawn})
        self.hello = self.expect("hello")
        for (life_id, gen), (facts, fds) in adopt.items():
            self.send({**facts, "op": "adopt", "id": life_id, "gen": gen}, fds)
        if sync:
            self.sync()

    def sync(self) -> None:
        self.send({"op": "sync"})
        self.expect("synced")
        self.states = [m for m in self.inbox if m["op"] == "state"]
        self.inbox = [m for m in self.inbox if m["op"] != "state"]

    def send(self, message: dict, fds=()) -> None:
        while True:
            try:
                return wire.send(self.sock, message, fds)
            except BlockingIOError:
                select.select([], [self.sock.fileno()], [], WITHIN_S)

    def receive(self, within: float = WITHIN_S) -> dict:
        """The next message; ConnectionError at the end, Timeout when there is none."""
        while True:
            try:
                got = wire.receive(self.sock, self.buffer)
            except BlockingIOError:
                if not select.select([self.sock.fileno()], [], [], within)[0]:
                    raise Timeout("the keeper says nothing") from None
                continue
            if got is None:
                raise ConnectionResetError("the keeper hung up")
            message, fds = got
            if fds:
                self._hold(message, fds)
            return message

    def expect(self, name: str, life_id: str | None = None, gen: int | None = None) -> dict:
        """The next message of that name (of that life); others wait in the inbox."""

        def fits(message):
            return message["op"] == name and life_id in (None, message.get("id")) and gen in (None, message.get("gen"))

        for message in self.inbox:
            if fits(message):
                self.inbox.remove(message)
                return message
        while True:
            message = self.receive()
            if fits(message):
                return message
            if message["op"] in ("failed", "refused", "error") and message.get("id") in (None, life_id):
                raise AssertionError(f"waited for {name}, got {message}")
            self.inbox.append(message)

    def expect_error(self) -> dict:
        while (message := self.receive())["op"] not in ("error", "refused"):
            self.inbox.append(message)
        return message

    def expect_past_errors(self, name: str, life_id: str, gen: int) -> dict:
        """Like `expect`, whatever was answered to other messages."""
        wanted = (name, life_id, gen)
        for message in self.inbox:
            if (message["op"], message.get("id"), message.get("gen")) == wanted:
                self.inbox.remove(message)
                return message
        while True:
            message = self.receive()
            if (message["op"], message.get("id"), message.get("gen")) == wanted:
                return message
            if message["op"] != "error":
                self.inbox.append(message)

    def start(self, life_id: str, gen: int, argv: list[str], **more) -> dict:
        """Start and wait until it runs; its `started` message."""
        self.send(self.house.spec(life_id, gen, argv, **more))
        started = self.expect("started", life_id, gen)
        self.expect("running", life_id, gen)
        return started

    def ask_start(self, life_id: str, gen: int, argv: list[str], **more) -> None:
        self.send(self.house.spec(life_id, gen, argv, **more))

    def stop(self, life_id: str, gen: int, number: int = signal.SIGTERM, grace_s: float = 10) -> None:
        self.send({"op": "stop", "id": life_id, "gen": gen, "signal": int(number), "grace_s": grace_s})

    def ack(self, life_id: str, gen: int) -> None:
        self.send({"op": "ack", "id": life_id, "gen": gen})

    def ping(self) -> dict:
        self.send({"op": "ping"})
        return self.expect("pong")

    def state(self, life_id: str, gen: int) -> dict | None:
        return next((s for s in self.states if (s["id"], s["gen"]) == (life_id, gen)), None)

    def hand_over(self) -> dict:
        """What to give to `House.connect(adopt=...)` after a keeper's death."""
        return self.held

    def close(self) -> None:
        self.sock.close()
        for _facts, fds in self.held.values():
            wire.close_all(fds)
        self.held = {}

    def _hold(self, message: dict, fds: list[int]) -> None:
        facts = {k: v for k, v in message.items() if k not in ("op", "live", "running")}
        self.held[message["id"], message["gen"]] = (facts, fds)
        # An own pidfd of everything that was ever started, so that nothing outlives the test.
        if message["pid"] not in self.house.known:
            self.house.known[message["pid"]] = os.dup(fds[0])
        if message.get("cgroup"):
            self.house.cgroups.add(message["cgroup"])
        self.house.cgroups.update(message.get("folders", {}).values())
