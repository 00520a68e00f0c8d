"""A private fleet with a real botd: made for one measurement, and nothing of it is left afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep

from benchmarks import processes
from benchmarks.rpc import ALL, Rpc, RpcError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "resourceManagement": {"maxBotsPerUser": 100_000, "maxTotalBots": None, "memoryThreshold": 100},
    "botRecovery": {"restartDelay": 0},
}
"""No limit in the way and no pause before a restart; everything else as shipped, sampling every 5 s included."""

USERS = 10
SOURCE = "benchmarks"
SETTLE_S = 1.5
"""After a change of the whole fleet: time for what follows it (notes, recovery) to be over."""

_WITHIN_S = 120.0
_LEAVE_S = 20.0


class House:
    """`with House() as house:` a botd serves a home under /tmp; on the way out everything ends, come what may."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.socket = f"{self.home}/run/botd.sock"
        Path(self.home, "bot_config.json").write_text(json.dumps(CONFIG))
        # The interpreter's caches are part of an installation; a workplace may have switched them off.
        dropped = ("PYTHONDONTWRITEBYTECODE", "BOTD_SOCKET", "BOTD_CONFIG")
        self.environ = {name: value for name, value in os.environ.items() if name not in dropped}
        self.environ |= {"BOTD_HOME": self.home, "BOTCTL_AUTOSTART": "0"}

    def __enter__(self) -> House:
        try:
            command = [sys.executable, "-m", "botd", "run", "--detach"]
            subprocess.run(command, cwd=ROOT, env=self.environ, check=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def rpc(self) -> Rpc:
        return Rpc(self.socket)

    def botctl(self) -> list[str]:
        """The command line of botctl as it is installed beside this interpreter."""
        beside = Path(sys.executable).with_name("botctl")
        return [str(beside)] if beside.exists() else [sys.executable, "-m", "botctl"]

    # --- bots -----------------------------------------------------------------------------------------

    def create(self, rpc: Rpc, n: int) -> list[str]:
        """n stopped bots of ten users; their ids."""
        ids = [f"u{number % USERS}/b{number:05d}" for number in range(n)]
        bots = [
            {"id": bot_id, "command": [processes.SLEEP, processes.MARK], "directory": "/tmp", "enabled": False}
            for bot_id in ids
        ]
        rpc.call("fleet.apply", source=SOURCE, bots=bots, wait=False)
        return ids

    def one_bot(self, rpc: Rpc, bot_id: str, command: Sequence[str]) -> int:
        """Create and start one bot; its pid once it runs."""
        rpc.call("bots.create", spec={"id": bot_id, "command": list(command), "directory": "/tmp"}, start=True)
        return int(rpc.call("bots.status", select={"any": [{"id": bot_id}]})["items"][0]["pid"])

    def start_all(self, rpc: Rpc) -> float:
        """Seconds from the request until every bot is `running`."""
        began = perf_counter()
        rpc.call("bots.start", select=ALL, wait=False)
        verdicts = rpc.call("bots.wait", select=ALL, timeout_s=_WITHIN_S, **{"for": "running"})
        took = perf_counter() - began
        bad = [item for item in verdicts["items"] if not item["ok"]]
        if bad:
            raise RuntimeError(f"{len(bad)} bots did not start, the first: {bad[0]['id']}: {bad[0]['reason']}")
        return took

    def stop_all(self, rpc: Rpc) -> float:
        """Seconds from the request until every bot is known to be stopped."""
        began = perf_counter()
        rpc.call("bots.stop", select=ALL, timeout_s=_WITHIN_S)
        return perf_counter() - began

    # --- processes ------------------------------------------------------------------------------------

    def daemon(self) -> list[int]:
        """The pid of botd, if it lives."""
        return self._holder("botd.lock")

    def keepers(self) -> list[int]:
        """The pid of the keeper, if it lives, and those of its helpers (children that are still its own program)."""
        found = self._holder("keeper.lock")
        for keeper in tuple(found):
            program = processes.read(f"/proc/{keeper}/cmdline")
            children = processes.read(f"/proc/{keeper}/task/{keeper}/children").split()
            found += [int(pid) for pid in children if processes.read(f"/proc/{int(pid)}/cmdline") == program]
        return found

    def _holder(self, lock: str) -> list[int]:
        first = processes.read(f"{self.home}/run/{lock}").split(maxsplit=1)[:1]
        return [int(word) for word in first if word.isdigit() and processes.alive(int(word))]

    def cpu_s(self) -> float:
        """CPU seconds of botd and the keeper so far."""
        return sum(processes.cpu_s(pid) for pid in (*self.daemon(), *self.keepers()))

    def answers(self, within_s: float) -> bool:
        """Wait until botd answers a ping."""
        deadline = perf_counter() + within_s
        while perf_counter() < deadline:
            try:
                with self.rpc() as rpc:
                    rpc.call("daemon.ping")
                return True
            except (OSError, RpcError):
                sleep(0.002)
        return False

    def close(self) -> None:
        """Stop the bots, botd and the keeper, in order where they let us, by force where not; remove the home."""
        # A second Ctrl-C must not leave a fleet behind.
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._leave()
            shutil.rmtree(self.home, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, former)

    def _leave(self) -> None:
        pids = [*self.daemon(), *self.keepers()]
        try:
            with Rpc(self.socket, patience_s=2 * _LEAVE_S) as rpc:
                rpc.call("daemon.shutdown", bots=True, timeout_s=_LEAVE_S)
        except (OSError, RpcError):
            pass  # by force, then
        else:
            if processes.gone(pids, 10.0):
                return
        # The keeper first: it would bring botd back.
        for pid in (*self.keepers(), *self.daemon()):
            processes.kill(pid)
        processes.gone(pids, 5.0)
        processes.sweep()
