"""The keeper, put together from its parts."""

from __future__ import annotations

import os
import resource
import sys
from itertools import islice

from botd import __version__
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
from botd.keeper.request import Invalid
from botd.keeper.respawn import Respawner
from botd.keeper.signals import Signals
from botd.keeper.starts import Starts
from botd.keeper.watchdog import BotdWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from botd.keeper.door import Peer
    from botd.keeper.handover import State
    from botd.keeper.keeper_log import Log
    from botd.keeper.wire import Message

_SIGPIPE, _SIGXFSZ = 13, 25
_DUMPED = 500
"""Lives that a dump names: its log is small, and keeps two of its files."""


class Keeper:
    """One keeper of `home`, listening. The caller holds the lock that makes it the only one.

    `containment` is "auto", "cgroup2" or "tree"; `without` names features of the kernel to do without. OSError when it
    cannot start. `former`: what the program that was in this process before has left; it is taken over.
    """

    def __init__(
        self, home: str, containment: str, without: Sequence[str], log: Log, former: State | None = None
    ) -> None:
        run = os.path.join(home, "run")
        self._home, self._arguments = home, ["--home", home, "--containment", containment]
        if without:
            self._arguments += ["--without", ",".join(without)]
        lean.default_signals()
        lean.ignore(_SIGPIPE)
        lean.ignore(_SIGXFSZ)  # a file at its limit is an error of write, not an end
        subreaper()
        Inherited.oom_score_adj = oom.protect_keeper()
        if former is not None:
            Inherited.oom_score_adj = former["oom_score_adj"]
        proc.Switches.pidfd_info = "pidfd_info" not in without and proc.probe_pidfd_info()
        proc.Switches.unique_inodes = "unique_inodes" not in without and proc.probe_unique_inodes()
        proc.Switches.zombie_stat = "zombie_stat" not in without
        given = resource.getrlimit(resource.RLIMIT_NOFILE)
        if former is not None:
            given = former["nofile"][0], former["nofile"][1]
        raise_limit(given[1])
        self._given = given
        reserve = Reserve()

        self._upgrading: object = None
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
        self._output, self._remains = output, remains
        if former is not None:
            from botd.keeper import resume

            ended = resume.lives(former, lives, cages, output)
        ends = Ends(loop, lives, journal, output, remains, reserve, door.publish, log)
        self._starts = starts = Starts(loop, lives, journal, cages, output, nursery, ends, remains, reserve, door, boot)
        self._recovery = recovery = Recovery(loop, lives, journal, cages, output, ends, remains, door, boot, log)
        self._dispatch = dispatch = Dispatch(
            lives, journal, cages, output, starts, ends, recovery, door, respawner, watch, boot, given,
            nursery is not None, self._leave, self._mend, log,
        )  # fmt: skip
        dispatch.add("upgrade", self._upgrade)
        dispatch.add("trial", self._trial)
        door.open(self._socket, dispatch.on_message, dispatch.on_lost, None if former is None else former["listener"])
        loop.after_turn += [remains.tidy, cages.strays.turned]
        facts = {"release": __version__, "handovers": 0, "handover_error": None}
        if former is not None:
            respawner.resume(former["botd"])
            facts |= {"handovers": former["handovers"], "handover_error": former.get("error")}
            resume.go_on(former, loop, lives, cages, output, starts, ends, remains, ended)
        respawner.facts |= facts

        wakeup, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def child_ended() -> None:
            os.read(wakeup, 4096)
            respawner.reap()
            remains.reap_strays()

        lean.on_child_signal(ring)
        loop.watch(wakeup, child_ended)
        Signals(loop, self._asked_to_leave, self._dump)
        if former is not None:
            loop.after(0.0, remains.reap_strays)

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

    def _upgrade(self, peer: Peer, message: Message) -> None:
        """Put another program in this one's place. Answered by `not-upgraded`, or by the end of the connection."""
        from botd.keeper.handover import Handover

        argv = message.get("argv")
        if not isinstance(argv, list) or len(argv) < 2 or not all(isinstance(w, str) and "\0" not in w for w in argv):
            raise Invalid("argv: the interpreter and the program are needed")
        if self._upgrading:
            raise Invalid("another program is being put in place already")
        if not self._recovery.finish():
            raise Invalid("descriptors are short; not all lives of a former keeper are found yet")

        def fail(reason: str) -> None:
            self._upgrading = None
            self._log(f"not upgraded: {reason}")
            self._door.note({"op": "not-upgraded", "text": reason})

        self._log(f"to be replaced by {argv[0]} {argv[-1]}")
        self._upgrading = Handover(self._loop, self._lives, self._starts, self._state, argv, self._arguments, fail)

    def _trial(self, peer: Peer, message: Message) -> None:
        """botd goes, and the same process is another botd in a moment."""
        from botd.keeper.trial import Trial

        self._respawner.facts.pop("fallback", None)
        Trial(self._loop, self._respawner, peer.pid, message, self._log)

    def _state(self) -> State:
        from botd.keeper.handover import FORMAT, lives_of

        lives = lives_of(self._lives)
        program = [sys.executable, "-I", "-S", "-X", "utf8", os.path.join(os.path.dirname(__file__), "__main__.py")]
        return {
            "format": FORMAT,
            "home": self._home,
            "boot": proc.boot_id(),
            "release": __version__,
            "former": [*program, *self._arguments],
            "nofile": list(self._given),
            "oom_score_adj": Inherited.oom_score_adj,
            "listener": self._door.listener,
            "handovers": self._respawner.facts["handovers"] + 1,
            "lives": lives,
            "orphans": self._output.orphans({fd for life in lives for _name, fd, _final in life["sources"]}),
            "remains": self._remains.hand_over(),
            "botd": self._respawner.hand_over(),
        }

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
