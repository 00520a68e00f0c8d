"""The private fleet of the demo: one folder with everything in it, and nothing anywhere else."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import tomli_w

from botctl.demo import processes
from botctl.demo.facebook import Facebook
from botctl.demo.fleet import Fleet
from botd.contract.errors import BotdError
from botd.contract.paths import Paths

OLDEST_NODE = 18

# Few attempts and frequent samples, because nobody wants to watch for long. All of these bots have a probe, and it
# alone is to say that one is up, however slow the machine is; and that machine's memory may be as full as it likes.
# The rest are the defaults.
_CONFIG: dict[str, dict[str, Any]] = {
    "resourceManagement": {"autoRestartMaxAttempts": 3, "memoryThreshold": 100},
    "botRecovery": {"settleTime": 20_000},
    "monitoring": {"sampleInterval": 500},
}
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "NO_COLOR", "FORCE_COLOR", "BOTD_CONTAINMENT")
_PYTHON = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8")


class World:
    """Made by `create`, undone by `remove`, which may be called at any time and more than once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._cgroups: set[str] = set()
        self._undo = ExitStack()
        self.root = ""
        self.node: str | None = None
        self.bots: dict[str, dict[str, Any]] = {}
        """id -> its table in the manifest."""
        self.secrets: dict[str, str] = {}
        """Path of a secret's file, as in the manifest, -> its value."""
        self.defaults: dict[str, Any] = {}
        self.fleet: Fleet
        self.facebook: Facebook

    # --- making it ------------------------------------------------------------------------------------

    def create(self) -> None:
        """The folder, the examples, their secrets, the Graph API, the manifest. Raises BotdError, OSError."""
        with _uninterrupted():
            self.root = _private_folder()
            self.fleet = Fleet(self.home)
        Paths(self.home).check_socket()
        for folder in (self.home, f"{self.root}/tmp"):
            os.mkdir(folder, 0o700)
        _copy(_examples(), self.work)
        self.node = self._find_node()
        self._write_secrets()
        self.facebook = Facebook(f"{self.work}/graph_api")
        self._undo.callback(self.facebook.close)
        self._write_manifest()
        self._write_config()

    @property
    def home(self) -> str:
        return f"{self.root}/home"

    @property
    def work(self) -> str:
        """The copy of the examples, where the commands are run."""
        return f"{self.root}/examples"

    def environment(self, columns: int | None, *, color: bool) -> dict[str, str]:
        """That of every command: nothing in it leads to another fleet than this one."""
        out = {name: self._environ[name] for name in (*_KEPT, *_PYTHON) if name in self._environ}
        # The bots are to find the Python of this very installation, which is new enough.
        path = self._environ.get("PATH") or os.defpath
        out |= {
            "PATH": f"{os.path.dirname(sys.executable)}:{path}",
            "HOME": self.root,
            "TMPDIR": f"{self.root}/tmp",
            "BOTD_HOME": self.home,
            processes.MARK: self.home,
        }
        if columns is not None:
            out["COLUMNS"] = str(columns)
        if not color:
            out |= {"NO_COLOR": "1"}
            out.pop("FORCE_COLOR", None)
        return out

    def _find_node(self) -> str | None:
        """The version of a Node that is new enough, or None."""
        program = shutil.which("node", path=self.environment(None, color=False)["PATH"])
        if program is None:
            return None
        try:
            told = subprocess.run(
                [program, "--version"],
                env=self.environment(None, color=False),
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.match(r"v(\d+)\.\d+\.\d+", told.stdout)
        return found.group(0)[1:] if found and int(found.group(1)) >= OLDEST_NODE else None

    def _write_secrets(self) -> None:
        done = subprocess.run(
            [sys.executable, "-I", "make_secrets.py"],
            cwd=self.work,
            env=self.environment(None, color=False),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise BotdError("internal", f"the secrets could not be written: {done.stderr.strip()}")

    def _write_manifest(self) -> None:
        with open(f"{self.work}/fleet.toml", "rb") as file:
            manifest = tomllib.load(file)
        manifest["defaults"]["env"]["GRAPH_API_BASE"] = self.facebook.url
        for bot in manifest["bot"]:
            if bot["command"][0] == "node" and self.node is None:
                bot |= {"command": ["python3", "bot.py"], "directory": "messenger-python"}
                bot["labels"]["language"] = "python"
            self.bots[bot["id"]] = bot
            for secret in bot["secrets"].values():
                self.secrets[secret["file"]] = self._secret_in(secret["file"])
        self.manifest("fleet.toml", manifest)
        self.defaults = manifest["defaults"]

    def _secret_in(self, path: str) -> str:
        with open(f"{self.work}/{path}", encoding="utf-8") as file:
            return file.read().strip()

    def manifest(self, name: str, content: dict[str, Any]) -> None:
        """Write a manifest beside the examples."""
        with open(f"{self.work}/{name}", "wb") as file:
            tomli_w.dump(content, file)

    def _write_config(self) -> None:
        # A range of its own, so that two demos at the same time do not choose the same ports.
        first = random.randrange(20_000, 32_000, 100)
        config = _CONFIG | {"resourceManagement": _CONFIG["resourceManagement"] | {"portRange": [first, first + 99]}}
        with open(f"{self.home}/bot_config.json", "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)

    # --- what is known of it --------------------------------------------------------------------------

    def secret(self, bot_id: str, name: str) -> str:
        return self.secrets[self.bots[bot_id]["secrets"][name]["file"]]

    def runtime(self, bot_id: str) -> str:
        return "node" if self.bots[bot_id]["command"][0] == "node" else "python"

    def remember_cgroup(self, pid: int) -> None:
        """Where the keeper has put this bot: looked at again at the end."""
        if folder := processes.cgroup_of(pid):
            self._cgroups.add(folder)

    # --- undoing it -----------------------------------------------------------------------------------

    def remove(self) -> tuple[int, int]:
        """End every process, remove every file; returns how many processes and files are left: (0, 0)."""
        if not self.root:
            return 0, 0
        self.fleet.stop()
        self._undo.close()
        for pid in processes.find(self.home):
            self.remember_cgroup(pid)
        left = processes.end_all(self.home)
        files = sum(not processes.remove_cgroup(folder) for folder in self._cgroups)
        shutil.rmtree(self.root, ignore_errors=True)
        return len(left), files + _count(self.root)


def _private_folder() -> str:
    """/tmp, for a Unix socket has no room for a long path; elsewhere only where that cannot be written."""
    for above in ("/tmp", tempfile.gettempdir(), "/dev/shm"):
        try:
            return tempfile.mkdtemp(prefix="botd-demo-", dir=above)
        except OSError as error:
            problem = error
    raise BotdError("unavailable", f"no folder for the demo can be made in /tmp: {problem.strerror}", hint="df -h /tmp")


def _examples() -> str:
    """In an installed botctl, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (f"{package}/examples", f"{os.path.dirname(package)}/examples"):
        if os.path.isfile(f"{folder}/fleet.toml"):
            return folder
    raise BotdError("not_found", f"the examples are missing beside {package}", hint="install botd again")


def _copy(examples: str, to: str) -> None:
    """Without anybody's secrets; writable also where the installation is read-only."""
    ignored = shutil.ignore_patterns("secrets", "__pycache__", "*.jsonl")
    shutil.copytree(examples, to, ignore=ignored, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(to):
        os.chmod(folder, 0o700)


def _count(root: str) -> int:
    if not os.path.lexists(root):
        return 0
    return 1 + sum(len(folders) + len(files) for _, folders, files in os.walk(root))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals wait: what is made in here is also known afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
