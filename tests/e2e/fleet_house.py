"""A private fleet with a real daemon, keeper and bots, and small blocking clients to drive it with.

Nothing here sleeps for something that can be awaited: bots by `bots.wait` and the event stream, processes by pidfd.
`close` leaves no process and no file behind and fails when a process of the fleet outlives its orderly end.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from zlib import crc32

import pytest

from botd.contract.errors import BotdError
from botd.keeper import hierarchies

ROOT = Path(__file__).parents[2]
SCRIPTED = ROOT / "tests" / "bots" / "scripted.py"
BOTCTL = Path(sys.executable).with_name("botctl")
WITHIN_S = 30.0
"""How long anything may take before a test gives up: far longer than anything takes on a busy machine."""

FAST = {
    "botRecovery": {"restartDelay": 20, "maxBackoffDelay": 200, "settleTime": 200, "backoffResetAfter": 1500},
    "monitoring": {"sampleInterval": 500},
    "resourceManagement": {"autoRestartMaxAttempts": 3, "memoryThreshold": 100},
}
"""A configuration for the impatient: the same rules with smaller figures."""

NOBODY = 65534


class Timeout(AssertionError):
    pass


def until(condition, what="the condition", within=WITHIN_S, pause=0.01):
    """Poll at the outermost edge; the value of the condition once it is true."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Timeout(f"{what} did not come true within {within} s")
        time.sleep(pause)
    return value


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


def gone(pid, within=WITHIN_S):
    """Wait for the end of a process that need not be a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(within * 1000):
            raise Timeout(f"process {pid} did not end within {within} s")
    finally:
        os.close(pidfd)


def kill(pid):
    """SIGKILL, and back when it is over."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        gone(pid)


def script(text, python=sys.executable):
    """The command of a scripted bot: `script("print hello + crash 3")`."""
    return [python, "-I", "-S", str(SCRIPTED), *text.split()]


@functools.cache
def python_for_everybody():
    """An interpreter that other users may execute; skips the test where there is none.

    Our own may stand in a home that is closed to them: then a small environment around the system's.
    """
    if _open_to_all(os.path.realpath(sys.executable)):
        return sys.executable
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if os.path.exists(candidate) and _open_to_all(os.path.realpath(candidate)):
            break
    else:
        pytest.skip(f"no python{version} that another user may execute")
    folder = Path(tempfile.mkdtemp(prefix="bpython", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    subprocess.run([candidate, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    packages = folder / "lib" / f"python{version}" / "site-packages"
    (packages / "ours.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return str(folder / "bin" / "python")


def _open_to_all(path):
    return all(os.stat(folder).st_mode & 0o001 for folder in (path, *map(str, Path(path).parents)))


def ids(*names):
    return {"any": [{"id": name} for name in names]}


ALL = {"all": True}


class Wire:
    """One raw connection. Lines that come unasked wait in `notices`."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WITHIN_S)
        until(self._connects(path), "a place in the queue of the socket")
        self._buffer = b""
        self._number = 0
        self.notices = []

    def _connects(self, path):
        def attempt():
            try:
                self.sock.connect(path)
            except BlockingIOError:  # a Unix socket does not wait for a place in a full queue
                return False
            return True

        return attempt

    def send(self, data):
        self.sock.sendall(data)

    def line(self, within=WITHIN_S):
        """The next message; None when the daemon hung up."""
        deadline = time.monotonic() + within
        while b"\n" not in self._buffer:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            except TimeoutError:
                raise Timeout(f"the daemon said nothing within {within} s") from None
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def ask(self, method, within=WITHIN_S, **params):
        """The whole response to one call."""
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        with contextlib.suppress(BrokenPipeError):  # what was said before it hung up is worth more
            self.send(json.dumps(request).encode() + b"\n")
        while True:
            message = self.line(within)
            if message is None:
                raise ConnectionError(f"botd hung up during {method}")
            if "method" not in message and message["id"] in (self._number, None):
                return message
            self.notices.append(message)

    def rpc(self, method, **params):
        """The result; BotdError when it is an error."""
        answer = self.ask(method, **params)
        if "error" in answer:
            raise BotdError.from_rpc(answer["error"])
        return answer["result"]

    def notice(self, within=WITHIN_S):
        return self.notices.pop(0) if self.notices else self.line(within)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Fleet:
    """`up` starts a daemon. `foreground`: one that nobody brings back when it is killed.

    `config`: what bot_config.json holds; None: no file. `uid`: run everything as that user (root only).
    """

    def __init__(self, config=FAST, *, home=None, foreground=False, uid=None, containment=None, environ=None):
        self.python = sys.executable if uid is None else python_for_everybody()
        self.home = home or tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.foreground = foreground
        self.uid = uid
        self.environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BOTD_HOME": self.home, **(environ or {})}
        if containment:
            self.environ["BOTD_CONTAINMENT"] = containment
        if uid is not None:
            os.chown(self.home, uid, uid)
        self._wire = None
        self._children = []
        self._strangers = set()
        if config is not None:
            self.configure(config)

    # --- the daemon -------------------------------------------------------------------------------------

    @property
    def socket(self):
        return self.environ.get("BOTD_SOCKET", f"{self.home}/run/botd.sock")

    def botd(self, *args, **env):
        """The finished process of `botd ARGS`."""
        return self._run([self.python, "-m", "botd", *args], env={**self.environ, **env})

    def up(self):
        if self.foreground:
            # Once it runs its words go nowhere: a full pipe must not stop it.
            command = [self.python, "-m", "botd", "run"]
            log = open(f"{self.home}/botd.out", "ab")  # noqa: SIM115
            with log:
                child = subprocess.Popen(
                    command,
                    env={**self.environ, "BOTD_RESPAWN": "0"},
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                    **self._identity(),
                )
            self._children.append(child)
            until(lambda: self._answers() or child.poll() is not None, "an answer of botd")
            assert child.poll() is None, self.daemon_log()
        else:
            done = self.botd("run", "--detach")
            assert done.returncode == 0, done.stderr + self.daemon_log()
        return self

    def _answers(self):
        try:
            with self.connect() as wire:
                return wire.rpc("daemon.ping")
        except (OSError, BotdError):
            return None

    def daemon_log(self):
        paths = [f"{self.home}/run/botd.log", f"{self.home}/botd.out"]
        return "".join(Path(path).read_text("utf-8", "replace") for path in paths if os.path.exists(path))

    def keeper_log(self):
        path = Path(f"{self.home}/run/keeper.log")
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def daemon_pid(self):
        return self.rpc("daemon.version")["pid"]

    @property
    def keeper_pid(self):
        return int(Path(f"{self.home}/run/keeper.lock").read_text())

    def kill_daemon(self):
        """kill -9 and back when it is dead."""
        pid = self.daemon_pid
        self.hang_up()
        kill(pid)
        for child in self._children:
            child.poll()
        return pid

    def kill_keeper(self):
        pid = self.keeper_pid
        kill(pid)
        return pid

    def down(self, *, bots=False):
        """The orderly end of the daemon; the last answer it gave. Back when it is dead."""
        pid = self.daemon_pid
        answer = self.rpc("daemon.shutdown", bots=bots, timeout_s=WITHIN_S)
        self.hang_up()
        for child in self._children:
            child.wait(WITHIN_S)
        gone(pid)
        return answer

    # --- asking -----------------------------------------------------------------------------------------

    def connect(self):
        return Wire(self.socket)

    def rpc(self, method, **params):
        """A call on a connection that is kept; after a crash of the daemon, on a new one to whoever answers now."""
        if self._wire is None:
            self._wire = until(self._connected, "a daemon that accepts connections")
        try:
            return self._wire.rpc(method, **params)
        except (ConnectionError, BrokenPipeError):
            self.hang_up()
            raise

    def _connected(self):
        try:
            return self.connect()
        except OSError:
            return None

    def hang_up(self):
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def persist(self, method, **params):
        """As `rpc`, again and again while daemons come and go."""

        def attempt():
            try:
                return [self.rpc(method, **params)]
            except (OSError, Timeout):
                return None

        return until(attempt, f"an answer to {method}")[0]

    def refused(self, method, **params):
        """The BotdError that this call is answered with."""
        try:
            result = self.rpc(method, **params)
        except BotdError as error:
            return error
        raise AssertionError(f"{method} was not refused: {result}")

    def botctl(self, *args, stdin="", env=None, **more):
        """The finished process of `botctl ARGS`, without a terminal. `env` replaces the environment."""
        environ = self.environ if env is None else env
        program = [str(BOTCTL)] if self.uid is None else [self.python, "-m", "botctl"]
        return self._run([*program, *args], input=stdin, env={**environ, **more})

    def _run(self, command, **options):
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=90,
            cwd=options.pop("cwd", ROOT),
            **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
            **options,
            **self._identity(),
        )

    def _identity(self):
        return {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}

    # --- bots -------------------------------------------------------------------------------------------

    def create(self, bot_id, command, *, start=True, wait=True, **spec):
        """One bot, started; `command` is a script's text or a whole command. The verdict."""
        argv = script(command, self.python) if isinstance(command, str) else command
        wire = {"id": bot_id, "command": argv, **spec}
        return self.rpc("bots.create", spec=wire, start=start, wait=wait, timeout_s=WITHIN_S)["items"][0]

    def bots(self, *names):
        """Views by id, of these bots or of all."""
        select = ids(*names) if names else ALL
        return {bot["id"]: bot for bot in self.persist("bots.list", select=select, limit=2000)["items"]}

    def bot(self, name):
        return self.bots(name)[name]

    def pids(self, *names):
        return {bot_id: bot["pid"] for bot_id, bot in self.bots(*names).items()}

    def wait(self, goal, *names, timeout_s=WITHIN_S):
        return self.rpc("bots.wait", select=ids(*names) if names else ALL, timeout_s=timeout_s, **{"for": goal})

    def until_bot(self, name, condition, what="the bot's new state"):
        """The view of the bot once `condition(view)` holds, looked at after every event of the fleet."""
        deadline = time.monotonic() + WITHIN_S
        view = None
        while time.monotonic() < deadline:
            try:
                with until(self._connected, "a daemon that accepts connections") as wire:
                    wire.rpc("events.subscribe")
                    while time.monotonic() < deadline:
                        [view] = wire.rpc("bots.list", select=ids(name))["items"]
                        if condition(view):
                            return view
                        # Time alone changes some of a view without an event: look again now and then.
                        with contextlib.suppress(Timeout):
                            if wire.notice(within=0.25) is None:
                                break
            except OSError:
                continue  # this botd was killed: the next one knows as much
        raise Timeout(f"{name}: {what} did not come; it is {view}")

    def until_phase(self, name, phase):
        return self.until_bot(name, lambda view: view["phase"] == phase, f"the phase {phase}")

    def events(self, *names, kind=None):
        found = self.rpc("events.list", lines=10_000, **({"select": ids(*names)} if names else {}))["items"]
        return [event for event in found if kind is None or event["kind"] == kind]

    def lines(self, name, stream="stdout"):
        found = self.rpc("bots.logs", select=ids(name), lines=100_000, stream=stream)["items"]
        return [item["line"] for item in found]

    def until_line(self, name, wanted):
        """All lines of a bot once one of them is `wanted`."""
        return until(lambda: (lines := self.lines(name)) and wanted in lines and lines, f"{wanted!r} in the log")

    def data(self, name, file=""):
        return Path(self.home, "bots", name, "data", file)

    def touch(self, name, file):
        """Tell a scripted bot that waits with `until FILE` to go on."""
        path = self.data(name, file)
        path.touch()
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def forked(self, name):
        """KIND -> pid of a bot that ran the step `fork`."""
        path = self.data(name, "pids")
        until(path.exists, f"the pids of what {name} forked")
        found = {kind: int(pid) for kind, pid in map(str.split, path.read_text().splitlines())}
        self._strangers.update(found.values())
        return found

    def clear(self):
        """Delete every bot, so that the next test finds an empty fleet."""
        if self.bots():
            self.rpc("bots.delete", select=ALL, timeout_s=WITHIN_S, purge=True)

    def query(self, statement):
        """All rows of a query on a copy of the database: the running daemon holds the original for itself."""
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            for suffix in ("", "-wal"):
                if os.path.exists(f"{self.home}/botd.db{suffix}"):
                    shutil.copyfile(f"{self.home}/botd.db{suffix}", f"{folder}/copy{suffix}")
            with contextlib.closing(sqlite3.connect(f"{folder}/copy")) as database:
                return database.execute(statement).fetchall()

    def configure(self, document):
        path = Path(self.home, "bot_config.json")
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    # --- the end ----------------------------------------------------------------------------------------

    @property
    def _cgroup(self):
        return f"botd-{crc32(os.path.realpath(self.home).encode()):08x}"

    def processes(self):
        """(pid, command) of everything that belongs to this home, whoever its parent is."""
        marks = (self.home.encode(), self._cgroup.encode())
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid() and alive(int(entry)):
                command = _read(f"/proc/{entry}/cmdline")
                facts = [_read(f"/proc/{entry}/environ"), command, _read(f"/proc/{entry}/cgroup"), _cwd(entry)]
                if any(mark in fact for mark in marks for fact in facts):
                    found.append((int(entry), command.replace(b"\0", b" ").decode("utf-8", "replace")))
        found += [(pid, "forked by a bot") for pid in self._strangers if alive(pid) and _scripted(pid)]
        return found

    def close(self):
        """End everything. Fails when the orderly end leaves a process behind."""
        complaint = ""
        try:
            if self._connectable():
                with contextlib.suppress(BotdError):
                    self.rpc("bots.stop", select=ALL, wait=False)
                self.down(bots=True)
                left = self.processes()
                complaint = f"left after the orderly end: {left}" if left else ""
        except (OSError, AssertionError) as error:
            complaint = f"no orderly end: {error!r}\n{self.daemon_log()[-2000:]}\n{self.keeper_log()[-2000:]}"
        finally:
            self.hang_up()
            self.destroy()
        assert not complaint, complaint

    def _connectable(self):
        self.hang_up()
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def destroy(self):
        """kill -9 everything and remove the home."""
        self.hang_up()
        until(self._kill_all, "an end of all processes")
        for child in self._children:
            child.wait(WITHIN_S)
        shutil.rmtree(self.home, ignore_errors=True)
        own = hierarchies.own()
        for top in {*own.v1.values(), own.v2} - {None}:
            folder = Path(top, self._cgroup)
            for inner in (*folder.glob("*/"), folder):
                with contextlib.suppress(OSError):
                    inner.rmdir()

    def _kill_all(self):
        # The daemon and the keeper bring each other back: both first, and again until nothing comes any more.
        found = sorted(self.processes(), key=lambda process: "botd" not in process[1])
        for pid, _ in found:
            kill(pid)
        return not found


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _cwd(entry):
    try:
        return os.fsencode(os.readlink(f"/proc/{entry}/cwd"))
    except OSError:
        return b""


def _scripted(pid):
    """Whether a pid that a scripted bot once wrote down is still one of its kind, and no newcomer with that number."""
    command = _read(f"/proc/{pid}/cmdline")
    return b"scripted.py" in command or command.startswith(b"sleep\0")
