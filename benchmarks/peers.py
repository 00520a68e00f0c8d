"""Other process managers under the same load, where they are installed: one bot is one entry of their own.

Each gets what its users give it: a configuration with N programs, its own command line to start them, and after a
kill -9 of its daemon the command that brings it back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep

from benchmarks import processes
from benchmarks.lives import survival

START, MEMORY, SURVIVAL = "start all", "memory (PSS), botd + keeper", "kill -9 of the manager: bots"
_WITHIN_S = 120.0
_LOOK_S = 0.02
_QUIET_S = 5.0


class Peer:
    """One manager in a folder of its own. `version` is None when it is not installed."""

    name: str
    program: str
    version_arguments: tuple[str, ...] = ("--version",)
    pid_file: str

    def __init__(self) -> None:
        self.folder = ""
        self.path = _search_path()
        self.environ = {"PATH": self.path, "HOME": ""}
        self.version = self._ask_version() if shutil.which(self.program, path=self.path) else None

    def configure(self, n: int) -> None:
        """Write a configuration of n programs, none of which starts by itself."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start the daemon, and return when it answers."""
        raise NotImplementedError

    def start_all(self) -> Sequence[str]:
        """The command that starts all bots."""
        raise NotImplementedError

    def revive(self) -> None:
        """What its user does after the daemon was killed."""
        self.launch()
        self._run(*self.start_all())

    def daemon(self) -> int:
        """The pid of the daemon."""
        return int(Path(self.folder, self.pid_file).read_text())

    def _run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder or "/",
            env=self.environ | {"HOME": self.folder},
            capture_output=True,
            text=True,
            check=check,
            timeout=_WITHIN_S,
        )

    def _ask_version(self) -> str:
        with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:
            self.environ["HOME"] = folder
            words = self._run(self.program, *self.version_arguments).stdout.split()
        return words[-1] if words else "?"

    def _until_answers(self, *command: str) -> None:
        deadline = perf_counter() + _WITHIN_S
        while self._run(*command).returncode != 0:
            if perf_counter() > deadline:
                raise RuntimeError(f"{self.name} does not answer")
            sleep(_LOOK_S)


class Supervisor(Peer):
    name, program, pid_file = "supervisor", "supervisord", "supervisord.pid"

    def configure(self, n: int) -> None:
        head = f"""[supervisord]
logfile={self.folder}/log
pidfile={self.folder}/{self.pid_file}
childlogdir={self.folder}
minfds={8 * n + 1024}
user=root
[unix_http_server]
file={self.folder}/sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self.folder}/sock
"""
        if os.geteuid() != 0:
            head = head.replace("user=root\n", "")
        programs = [
            f"[program:b{i}]\ncommand={processes.SLEEP} {processes.MARK}\nautostart=false\nstartsecs=0\n"
            for i in range(n)
        ]
        Path(self.folder, "conf").write_text(head + "".join(programs))

    def launch(self) -> None:
        self._run(self.program, "-c", f"{self.folder}/conf", check=True)
        self._until_answers("supervisorctl", "-c", f"{self.folder}/conf", "pid")

    def start_all(self) -> Sequence[str]:
        return "supervisorctl", "-c", f"{self.folder}/conf", "start", "all"


class Circus(Peer):
    """`circusctl start` leaves out what does not start by itself, so that its daemon's own start is in the figure."""

    name, program, pid_file = "circus", "circusd", "circus.pid"

    def configure(self, n: int) -> None:
        head = f"""[circus]
endpoint = ipc://{self.folder}/c
pubsub_endpoint = ipc://{self.folder}/p
statsd = false
pidfile = {self.folder}/{self.pid_file}
"""
        watchers = [f"[watcher:b{i}]\ncmd = {processes.SLEEP}\nargs = {processes.MARK}\n" for i in range(n)]
        Path(self.folder, "conf").write_text(head + "".join(watchers))

    def launch(self) -> None:
        # A stale pid file would keep it from starting.
        Path(self.folder, self.pid_file).unlink(missing_ok=True)

    def start_all(self) -> Sequence[str]:
        return self.program, "--daemon", "--log-output", f"{self.folder}/log", f"{self.folder}/conf"


class Pm2(Peer):
    name, program, pid_file = "pm2", "pm2", "pm2.pid"

    def configure(self, n: int) -> None:
        self.environ["PM2_HOME"] = self.folder
        app = {"script": processes.SLEEP, "args": processes.MARK, "interpreter": "none", "exec_mode": "fork"}
        apps = [{"name": f"b{i}", **app} for i in range(n)]
        Path(self.folder, "apps.json").write_text(json.dumps({"apps": apps}))

    def launch(self) -> None:
        self._run(self.program, "ping", check=True)

    def start_all(self) -> Sequence[str]:
        return self.program, "start", f"{self.folder}/apps.json"

    def revive(self) -> None:
        self._run(self.program, "resurrect")

    def _ask_version(self) -> str:
        # Its command line starts a daemon even to tell its version.
        program = os.path.realpath(shutil.which(self.program, path=self.path) or "")
        try:
            found = json.loads(Path(program).parent.with_name("package.json").read_text())["version"]
        except (OSError, ValueError, KeyError):
            return "?"
        return str(found)

    def saved(self) -> None:
        """Its user must have asked it to remember what runs."""
        self._run(self.program, "save")


def find() -> list[Peer]:
    """All that are known; those that are not installed have no version."""
    return [Supervisor(), Circus(), Pm2()]


def measure(peers: Sequence[Peer], n: int, say: Callable[[str], None]) -> dict[str, dict[str, float | str]]:
    """Measure -> manager -> value. A manager that is missing or fails has no value there."""
    out: dict[str, dict[str, float | str]] = {START: {}, MEMORY: {}, SURVIVAL: {}}
    for peer in peers:
        if peer.version is None:
            say(f"{peer.name} is not installed")
            continue
        say(f"{peer.name} {peer.version} with {n} programs")
        try:
            took, memory, words = _one(peer, n)
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            say(f"{peer.name} could not be measured: {error}")
            continue
        out[START][peer.name], out[MEMORY][peer.name], out[SURVIVAL][peer.name] = took, memory, words
    return out


def _one(peer: Peer, n: int) -> tuple[float, float, str]:
    """(seconds to start n, MB of its daemon, what a kill -9 of it does)."""
    peer.folder = tempfile.mkdtemp(prefix="b", dir="/tmp")
    try:
        peer.configure(n)
        peer.launch()
        began = perf_counter()
        starting = subprocess.Popen(
            peer.start_all(),
            cwd=peer.folder,
            env=peer.environ | {"HOME": peer.folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _until(lambda: len(processes.marked()) >= n, f"{n} processes of {peer.name}")
            took = perf_counter() - began
        finally:
            if not _ended(starting):
                starting.kill()
                starting.wait()
        sleep(2.0)
        pid = peer.daemon()
        memory = processes.pss_mb(pid)
        if isinstance(peer, Pm2):
            peer.saved()
        processes.kill(pid)
        processes.gone([pid], 10.0)
        sleep(2.0)
        kept = len(processes.marked())
        peer.revive()
        sleep(_QUIET_S)
        return took, memory, survival(kept, n, len(processes.marked()) - n)
    finally:
        # The daemon and its helpers were born with this folder as their home; not every manager hands it to its bots.
        processes.sweep(lambda: [*processes.at_home(peer.folder), *processes.marked()])
        shutil.rmtree(peer.folder, ignore_errors=True)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(30.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = perf_counter() + _WITHIN_S
    while not condition():
        if perf_counter() > deadline:
            raise RuntimeError(f"{what} did not come within {_WITHIN_S:.0f} s")
        sleep(_LOOK_S)


def _search_path() -> str:
    """PATH, with the folders of BENCH_PEERS (virtual environments, npm prefixes or folders of programs) before it."""
    folders = []
    for entry in filter(None, os.environ.get("BENCH_PEERS", "").split(":")):
        folders += [f"{entry}/bin", f"{entry}/node_modules/.bin", entry]
    return ":".join([*folders, os.environ.get("PATH", os.defpath)])
