"""The two programs of one fleet: stopping, killing and arming them, and the time until they are back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from time import monotonic, sleep

from fleet_house import ALL, BOTCTL, ROOT, Timeout, Wire, alive, gone, kill, until

from botd.contract.errors import BotdError

KEEPER = [sys.executable, "-I", "-S", str(ROOT / "botd" / "keeper" / "__main__.py")]
DIED, TAKEN = 256 - signal.SIGKILL, 75
"""What `--detach` returns when the keeper died before it listened, and when there is another one."""
BACK_WITHIN_S = 60.0
BY_ITSELF = 3
"""After so many deaths of botd under one keeper its patience is long (0.2 s, doubled each time): somebody asks."""
MARGIN_S = 1.0
"""An end that came so long before a blow may not have been seen: the programs do not always have a processor."""


class Rig:
    """`without`: features that the keepers do without; then they are started here and not by botd.

    `orphaned` are the times of keepers' deaths. Where the kernel does not help (`helpless`), the next keeper, which is
    no parent of who lived then, may not learn how it ends.
    `gaps` are (from, to) in which an exit status may be unknown and a last line lost: nobody held on to what ended.
    `diary` has (time, words) of every blow and of everything that came back: what a violation is understood by.
    """

    def __init__(self, fleet, tally, without=""):
        self.fleet, self.tally, self.without = fleet, tally, without
        self.gaps = []
        self.diary = []
        self.orphaned = []
        self.botd_pid = self.keeper_pid = None
        self.child = None
        self.armed = self.helpless = False
        self._deaths = 0

    def note(self, text):
        self.diary.append((monotonic(), text))

    def gap(self, start):
        """Nobody held on to what ended from then on until now."""
        self.gaps.append((start - MARGIN_S, monotonic()))
        self.note(f"nobody held on to what ended since {start - MARGIN_S:.2f}")

    # --- coming up --------------------------------------------------------------------------------------

    def up(self):
        if self.without:
            os.makedirs(f"{self.fleet.home}/run", 0o700, exist_ok=True)
            self.start_keeper()
        self.fleet.up()
        self.look()

    def look(self):
        """Who is there now. Waits until botd has a keeper."""

        def connected():
            status = self.rpc("daemon.status")
            # It may not have seen yet that its keeper was killed.
            return status if status["keeper"]["connected"] and alive(status["keeper"]["pid"]) else None

        status = until(connected, "botd with a keeper", BACK_WITHIN_S)
        if status["keeper"]["pid"] != self.keeper_pid:
            self._deaths = 0
            self.orphaned.append(monotonic())
        self.botd_pid, self.keeper_pid = status["pid"], status["keeper"]["pid"]
        self.helpless = not status["keeper"]["features"].get("pidfd_info_exit")
        self.note(f"botd {self.botd_pid}, keeper {self.keeper_pid}")

    def start_child(self, crash_at=""):
        """A botd that nobody brings back, as our child, armed; whether it came to serve."""
        environ = {**self.fleet.environ, "BOTD_RESPAWN": "0", **({"BOTD_CRASH_AT": crash_at} if crash_at else {})}
        began = monotonic()
        self.armed = bool(crash_at)
        with open(f"{self.fleet.home}/botd.out", "ab") as log:
            command = [self.fleet.python, "-m", "botd", "run"]
            self.child = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
        self.note(f"botd {self.child.pid} begins, armed {crash_at!r}")
        self.fleet.hang_up()
        until(lambda: self._answers(self.child.pid) or self.child.poll() is not None, "botd", BACK_WITHIN_S)
        if self.child.poll() is not None:
            self.note("botd died before it served")
            return False
        self.note("botd serves")
        self.tally.api.append(monotonic() - began)
        return True

    def start_keeper(self, crash_at=""):
        """A keeper with our own options; 0 when it listens, else how it ended."""
        containment = self.fleet.environ.get("BOTD_CONTAINMENT", "auto")
        arguments = ["--home", self.fleet.home, "--containment", containment, "--detach"]
        if self.without:
            arguments += ["--without", self.without]
        environ = {"PATH": os.defpath, **({"BOTD_CRASH_AT": crash_at} if crash_at else {})}
        done = subprocess.run([*KEEPER, *arguments], env=environ, cwd="/", stdin=subprocess.DEVNULL, check=False)
        self.note(f"a keeper was started, armed {crash_at!r}: {done.returncode}")
        return done.returncode

    # --- blows ------------------------------------------------------------------------------------------

    def kill_botd(self):
        """kill -9; back when it answers again."""
        began = monotonic()
        self.note("kill -9 of botd")
        self.fleet.hang_up()
        kill(self.botd_pid)
        self._deaths += 1
        self._back(began, asked=self._deaths > BY_ITSELF)
        self.look()

    def kill_keeper(self):
        """kill -9; back when botd has another one."""
        began, old = monotonic(), self.keeper_pid
        self.note("kill -9 of the keeper")
        if self.without:
            self._swap_keeper()
        else:
            kill(old)
        until(lambda: self._keeper_now() not in (None, old), "another keeper", BACK_WITHIN_S)
        self.tally.keeper.append(monotonic() - began)
        self.look()

    def kill_both(self, first, pause):
        """One ("botd" or "keeper") and `pause` seconds later the other; back when a command has brought them back."""
        began = monotonic()
        self.note(f"kill -9 of {first}, of the other one {pause:.3f} s later")
        self.fleet.hang_up()
        pids = {"botd": self.botd_pid, "keeper": self.keeper_pid}
        os.kill(pids.pop(first), signal.SIGKILL)
        sleep(pause)
        with contextlib.suppress(ProcessLookupError):
            os.kill(*pids.values(), signal.SIGKILL)
        for pid in (self.botd_pid, self.keeper_pid):
            gone(pid)
        if self.without:
            self.start_keeper()
        self._back(began, asked=True)
        self.look()
        self.gap(began)

    def freeze(self, which, seconds, kill_other=False):
        """SIGSTOP, and SIGCONT after a while; the other one may be killed meanwhile."""
        frozen, other = (self.botd_pid, self.keeper_pid) if which == "botd" else (self.keeper_pid, self.botd_pid)
        self.note(f"SIGSTOP of {which}" + (", kill -9 of the other one" if kill_other else ""))
        os.kill(frozen, signal.SIGSTOP)
        try:
            sleep(seconds / 2)
            if kill_other:
                if which == "keeper":
                    self.fleet.hang_up()
                    self._deaths += 1
                kill(other)
            sleep(seconds / 2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen, signal.SIGCONT)
        self._back(monotonic(), asked=kill_other and which == "keeper", count=False)
        self.look()

    def arm_keeper(self, crash_at):
        """Another keeper in the place of this one, armed; its pid, None when it died before it listened."""
        while (status := self._swap_keeper(crash_at)) == TAKEN:
            # botd was about to start one when it was stopped.
            self.look()
        assert status in (0, DIED), f"the armed keeper ended with {status}"
        return self.fleet.keeper_pid if status == 0 else None

    def _swap_keeper(self, crash_at=""):
        """While botd cannot look: it would start one of its own."""
        os.kill(self.botd_pid, signal.SIGSTOP)
        try:
            kill(self.keeper_pid)
            return self.start_keeper(crash_at)
        finally:
            os.kill(self.botd_pid, signal.SIGCONT)

    # --- back -------------------------------------------------------------------------------------------

    def _back(self, began, *, asked, count=True):
        """Wait for an answer. `asked`: run the next command, as a person would."""
        command = None
        if asked:
            command = subprocess.Popen(
                [str(BOTCTL), "list", "-q"],
                env=self.fleet.environ,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        until(self._answers, "an answer of botd", BACK_WITHIN_S, pause=0.005)
        if count:
            (self.tally.api if asked else self.tally.api_by_itself).append(monotonic() - began)
        if command is not None:
            _, errors = command.communicate(timeout=BACK_WITHIN_S)
            assert command.returncode == 0, errors.decode()

    def _answers(self, pid=None):
        """Whether botd (that one) answers on a connection that is made now."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(5.0)
            sock.connect(self.fleet.socket)
            sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.version"}\n')
            answer = b""
            while not answer.endswith(b"\n"):
                piece = sock.recv(4096)
                if not piece:
                    return False
                answer += piece
        except OSError:
            return False
        finally:
            sock.close()
        return pid is None or json.loads(answer)["result"]["pid"] == pid

    def _keeper_now(self):
        keeper = self.fleet.persist("daemon.status")["keeper"]
        return keeper["pid"] if keeper["connected"] else None

    # --- asking -----------------------------------------------------------------------------------------

    def views(self):
        """Every bot by id, as botd tells it."""
        return {view["id"]: view for view in self.rpc("bots.list", select=ALL, limit=2000)["items"]}

    def wire(self):
        """A connection of one's own, or None while nobody answers."""
        try:
            return Wire(self.fleet.socket)
        except (OSError, Timeout):
            return None

    def rpc(self, method, **params):
        """An answer, of whichever botd there is; of an armed one, as long as it lives (else an OSError)."""
        if not self.armed:
            return self.fleet.persist(method, **params)
        if self.child.poll() is not None:
            raise ConnectionError("the armed botd has died")
        return self.fleet.rpc(method, **params)


REFUSED = (BotdError,)
SILENT = (OSError, Timeout)
"""What a request ends with that nobody answered."""
