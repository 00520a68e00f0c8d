"""The keeper, put together from its parts."""

from __future__ import annotations

import os
import resource
from itertools import islice

from botd.keeper import lean, oom, proc
from botd.keeper.containment import Cages
from botd.keeper.descriptors import Reserve, raise_limit
from botd.keeper.dispatch import Dispatch
from botd.keeper.door import Door
from botd.keeper.ends import Ends
from botd.keeper.journal import Journal
from botd.keeper.launch import Inherited, can_clone, subreaper
from botd.keeper.lives import Lives
from botd.keeper.locks import hold
from botd.keeper.loop import Loop
from botd.keeper.nursery import Nursery
from botd.keeper.output import Output
from botd.keeper.recovery import Recovery
from botd.keeper.remains import Remains
from botd.keeper.respawn import Respawner
from botd.keeper.signals import Signals
from botd.keeper.starts import Starts
from botd.keeper.watchdog import BotdWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from botd.keeper.keeper_log import Log

_SIGPIPE, _SIGXFSZ = 13, 25
_DUMPED = 500
"""Lives that a dump names: its log is small, and keeps two of its files."""


class Keeper:
    """One keeper of `home`, listening. The caller holds the lock that makes it the only one.

    `containment` is "auto", "cgroup2" or "tree"; `without` names features of the kernel to do without. OSError when it
    cannot start.
    """

    def __init__(self, home: str, containment: str, without: Container[str], log: Log) -> None:
        run = os.path.join(home, "run")
        lean.default_signals()
        lean.ignore(_SIGPIPE)
        lean.ignore(_SIGXFSZ)  # a file at its limit is an error of write, not an end
        subreaper()
        Inherited.oom_score_adj = oom.protect_keeper()
        proc.Switches.pidfd_info = "pidfd_info" not in without and proc.probe_pidfd_info()
        proc.Switches.unique_inodes = "unique_inodes" not in without and proc.probe_unique_inodes()
        proc.Switches.zombie_stat = "zombie_stat" not in without
        given = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise_limit(given[1])
        reserve = Reserve()

        self._loop = loop = Loop(log.error)
        self._log, self._leaving = log, False
        self._lives = lives = Lives()
        self._cages = cages = Cages(home, containment, lives.children, without)
        # As early as the containment is known: what the helper inherits it keeps.
        nursery = None
        if "nursery" not in without and "clone3" not in without and can_clone():
            nursery = Nursery(loop, lives.children)
        self._journal = journal = Journal(os.path.join(run, "keeper.journal"))
        self._run = run
        if journal.damaged:
            log(f"{journal.damaged} damaged lines of the journal were skipped")
        self._in_journal = len(journal.open)
        self._socket = os.path.join(run, "keeper.sock")
        self._door = door = Door(loop, reserve, log)
        output, remains = Output(loop, log, door.note), Remains(lives, log)
        self._respawner = respawner = Respawner(
            loop,
            os.path.join(run, "botd.log"),
            lives.children,
            lambda: resource.setrlimit(resource.RLIMIT_NOFILE, given),
            lambda: door.connected,
            log,
        )
        watch = BotdWatch(loop, self._saw)
        respawner.on_start = watch.started
        boot = proc.boot_id()
        ends = Ends(loop, lives, journal, output, remains, reserve, door.publish, log)
        starts = Starts(loop, lives, journal, cages, output, nursery, ends, remains, reserve, door, boot)
        recovery = Recovery(loop, lives, journal, cages, output, ends, remains, door, boot, log)
        self._dispatch = dispatch = Dispatch(
            lives, journal, cages, output, starts, ends, recovery, door, respawner, watch, boot, given,
            nursery is not None, self._leave, self._mend, log,
        )  # fmt: skip
        door.open(self._socket, dispatch.on_message, dispatch.on_lost)
        loop.after_turn += [remains.tidy, cages.strays.turned]

        wakeup, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def child_ended() -> None:
            os.read(wakeup, 4096)
            respawner.reap()
            remains.reap_strays()

        lean.on_child_signal(ring)
        loop.watch(wakeup, child_ended)
        Signals(loop, self._asked_to_leave, self._dump)

    def __str__(self) -> str:
        return f"containment {self._cages.kind}; {self._in_journal} lives in the journal"

    def run(self) -> None:
        """Work until botd says quit and nothing lives."""
        self._loop.run()
        self._door.close()
        self._cages.close()
        try:
            os.unlink(self._socket)
        except FileNotFoundError:
            pass  # somebody tidied up before us

    def _mend(self) -> None:
        """Somebody removed the home under us: without these names no other keeper could take over from this one."""
        os.makedirs(self._run, 0o700, exist_ok=True)
        hold(os.path.join(self._run, "keeper.lock"))
        self._journal.mend()
        self._door.mend(self._socket)

    def _leave(self) -> None:
        self._loop.running = False

    def _saw(self, text: str) -> None:
        """The watchdog's words: for the log, and for the history of the fleet when botd is there to write it."""
        self._log(text)
        self._door.note({"op": "watched", "text": text})

    def _asked_to_leave(self, sender: int) -> None:
        """SIGTERM: the machine goes down, and every bot has been asked to end, too. Theirs are the last words."""
        self._log(f"asked to end by pid {sender}; {self._lives.live()} bots live, it stays until the last has ended")
        if not self._leaving:
            self._leaving = True
            self._loop.after_turn.append(self._leave_when_empty)

    def _leave_when_empty(self) -> None:
        if not any(life.live for life in self._lives):
            self._leave()

    def _dump(self) -> None:
        """Everything that a question about this keeper may need, into its log."""
        self._log(f"state: {lean.dumps(self._dispatch.facts())}")
        self._log(f"botd: {lean.dumps(self._respawner.outlook())}")
        self._log(f"loop: {self._loop}; {len(os.listdir('/proc/self/fd'))} descriptors; {self}")
        for life in islice(self._lives, _DUMPED):
            state = "ended" if not life.live else "running" if life.running else "starting"
            self._log(f"life: {life.id} {life.gen} pid {life.pid} {state} told {life.told} kill_at {life.kill_at}")
