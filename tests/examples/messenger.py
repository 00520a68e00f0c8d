"""An example bot as a real process, and the stand-in of the Graph API."""

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECRETS = {"VERIFY_TOKEN": "verify-me", "APP_SECRET": "app-secret", "PAGE_ACCESS_TOKEN": "page&token/1"}
COMMANDS = {
    "python": [sys.executable, "-I", str(EXAMPLES / "messenger-python" / "bot.py")],
    "node": [shutil.which("node") or "node", str(EXAMPLES / "messenger-node" / "bot.js")],
}
PATIENCE_S = 20


def load(path):
    """An example as a module; the examples are programs, not an installed package."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


stand_in = load(EXAMPLES / "graph_api" / "stand_in.py")
client = load(EXAMPLES / "graph_api" / "client.py")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class RunningBot:
    """One life of a bot. Its lines arrive on a thread, so that waiting for one has a deadline."""

    def __init__(self, command, env):
        self.env = env
        self.url = f"http://127.0.0.1:{env.get('PORT')}"
        self.lines = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, errors := [])),
        ]
        self.errors = errors
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, lines):
        for line in pipe:
            with self._news:
                lines.append(line.decode())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def events(self, name):
        return [event for event in map(json.loads, list(self.lines)) if event["event"] == name]

    def wait_for(self, name, count=1):
        """The events of this name, as soon as there are `count`."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while len(found := self.events(name)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {name}; lines: {self.lines}, errors: {self.errors}"
                assert self.process.poll() is None or any(reader.is_alive() for reader in self._readers), (
                    f"ended without {name}: {self.lines} {self.errors}"
                )
                self._news.wait(min(left, 1))
        return found

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self):
        status = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return status

    def kill(self):
        self.process.kill()
        self.ended()
        self.process.stdout.close()
        self.process.stderr.close()
