"""What botd may ask for, and who does it."""

from __future__ import annotations

import os

from botd.keeper import locks, proc, wire
from botd.keeper.births import limit
from botd.keeper.lean import send_signal
from botd.keeper.life import RUNNING
from botd.keeper.request import Invalid, Start, bounds_of, id_of, life_of, limits_of, seconds_of, signal_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages
    from botd.keeper.door import Door, Peer
    from botd.keeper.ends import Ends
    from botd.keeper.journal import Journal
    from botd.keeper.life import Life
    from botd.keeper.lives import Lives
    from botd.keeper.output import Output
    from botd.keeper.recovery import Recovery
    from botd.keeper.respawn import Respawner
    from botd.keeper.starts import Starts
    from botd.keeper.watchdog import BotdWatch
    from botd.keeper.wire import Message

_FOR_STRANGERS = ("ping", "status")


class Dispatch:
    """Every message of the protocol, checked and handed to the part that does it; wire.py says how they travel.

    `nofile` is the (soft, hard) limit on descriptors that bots get, `leave` ends the keeper, `mend` makes its
    files again where somebody removed them.
    """

    def __init__(
        self,
        lives: Lives,
        journal: Journal,
        cages: Cages,
        output: Output,
        starts: Starts,
        ends: Ends,
        recovery: Recovery,
        door: Door,
        respawner: Respawner,
        watch: BotdWatch,
        boot: str,
        nofile: tuple[int, int],
        nursery: bool,
        leave: Callable[[], None],
        mend: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._lives, self._journal, self._cages, self._output = lives, journal, cages, output
        self._starts, self._ends, self._recovery = starts, ends, recovery
        self._door, self._respawner, self._watch = door, respawner, watch
        self._boot, self._nofile, self._nursery = boot, nofile, nursery
        self._leave, self._mend_files, self._complain = leave, mend, complain
        self._handlers: dict[str, Callable[[Peer, Message], None]] = {
            "sync": self._sync,
            "start": self._start,
            "stop": self._stop,
            "signal": self._signal,
            "ack": self._ack,
            "logs": self._logs,
            "limits": self._limits,
            "ping": self._ping,
            "beat": self._beat,
            "status": self._status,
            "forget": self._forget,
            "quit": self._quit,
            "bye": self._bye,
            "mend": self._mend,
        }

    def add(self, name: str, handler: Callable[[Peer, Message], None]) -> None:
        """One message more."""
        self._handlers[name] = handler

    def on_message(self, peer: Peer, message: Message, fds: list[int]) -> None:
        """Do what a message asks. Whatever is wrong with it is answered and logged; nothing ends the keeper."""
        name = message["op"]
        if peer.greeted:
            self._watch.dog.heard = True
        try:
            if name == "hello":
                self._hello(peer, message)
            elif name == "adopt":
                if not peer.greeted:
                    raise Invalid("say hello first")
                taken, fds = fds, []
                self._recovery.adopt(message, taken)
            elif name in self._handlers and (peer.greeted or name in _FOR_STRANGERS):
                self._handlers[name](peer, message)
            else:
                raise Invalid(f"{name!r:.60} is unknown" if peer.greeted else "say hello first")
        except (Invalid, OSError) as error:
            self._complain(f"{name!r:.60}: {error}")
            answer: Message = {"op": "error", "about": name[:60], "text": str(error)}
            for key in ("id", "gen"):
                if isinstance(message.get(key), (str, int)):
                    answer[key] = message[key]
            self._door.answer(peer, answer)
        finally:
            wire.close_all(fds)

    def on_lost(self) -> None:
        """botd's connection ended."""
        self._watch.dog.unwatch()
        self._respawner.lost(self._watch.dog.ended)
        self._watch.dog.ended = ""

    def _hello(self, peer: Peer, message: Message) -> None:
        version = wire.agreed(message.get("version"), message.get("oldest"))
        if version is None:
            spoken = f"{wire.OLDEST} to {wire.VERSION}" if wire.OLDEST < wire.VERSION else str(wire.VERSION)
            raise Invalid(f"protocol version {message.get('version')!r:.20}; this keeper speaks {spoken}")
        self._respawner.arrived(peer.pid, message.get("respawn"))
        self._watch.greeted(peer.pid, message.get("watch"))
        self._starts.forget_all()
        self._door.welcome(peer)
        self._door.note(
            {
                "op": "hello",
                "version": version,
                "speaks": [wire.OLDEST, wire.VERSION],
                "pid": os.getpid(),
                "boot_id": self._boot,
                "containment": self._cages.kind,
                "controllers": self._cages.controllers.version,
                "why": self._cages.controllers.why,
                "features": {
                    "pidfd_info_exit": proc.Switches.pidfd_info,
                    "cgroup_kill": self._cages.kind == "cgroup2" and self._cages.use_kill,
                    "clone_into_cgroup": self._cages.clone_into,
                    "nursery": self._nursery,
                    "log_lock": True,
                    "beat": True,
                },
                "journal_damaged": self._journal.damaged,
                **self._respawner.facts,
            }
        )

    def _sync(self, peer: Peer, message: Message) -> None:
        self._recovery.finish()
        self._door.sync(self._lives, self._recovery.later())

    def _start(self, peer: Peer, message: Message) -> None:
        key = None
        try:
            key = life_of(message)
            start = Start(message, self._nofile)
        except Invalid as error:
            if key is None:
                raise
            self._starts.refuse(*key, "invalid", str(error))
            return
        self._recovery.finish()
        self._starts.ask(start)

    def _stop(self, peer: Peer, message: Message) -> None:
        number, grace = signal_of(message), seconds_of(message, "grace_s")
        if self._starts.withdraw(life_of(message)):
            return
        life = self._life(message)
        if life.live:
            self._ends.stop(life, number, grace)
        else:
            life.told = min(life.told, RUNNING)
            self._door.publish(life)

    def _signal(self, peer: Peer, message: Message) -> None:
        number = signal_of(message)
        life = self._life(message)
        if life.live:
            send_signal(life.pidfd, number)

    def _ack(self, peer: Peer, message: Message) -> None:
        life = self._lives.get(life_of(message))
        if life is None:
            return  # acknowledged twice
        if life.live:
            raise Invalid("this life has not ended")
        self._ends.acknowledged(life)
        self._door.forget(life)

    def _logs(self, peer: Peer, message: Message) -> None:
        life_id, limits = id_of(message), limits_of(message)
        life = self._lives.current(life_id)
        if life is not None:
            folder = life.facts["log"]["dir"]
            life.facts["log"] = {"dir": folder, **limits.facts()}
            self._output.limit(folder, limits)

    def _limits(self, peer: Peer, message: Message) -> None:
        limits = bounds_of(message)
        if self._starts.limit(life_of(message), limits):
            return
        life = self._life(message)
        if life.live:
            limit(life, limits, self._cages, self._journal)

    def _ping(self, peer: Peer, message: Message) -> None:
        self._door.answer(peer, {"op": "pong", **self.facts()})

    def _beat(self, peer: Peer, message: Message) -> None:
        self._door.note({"op": "beat"})

    def _status(self, peer: Peer, message: Message) -> None:
        self._door.answer(peer, {"op": "status", **self.facts(), "botd": self._respawner.outlook()})

    def facts(self) -> Message:
        """The keeper now, in figures."""
        live = self._lives.live()
        return {
            "pid": os.getpid(),
            "version": wire.VERSION,
            "live": live,
            "unacknowledged": len(self._lives) - live,
            "waiting": len(self._starts),
            "journal_damaged": self._journal.damaged,
            "containment": self._cages.kind,
        }

    def _forget(self, peer: Peer, message: Message) -> None:
        life_id = id_of(message)
        self._recovery.finish()
        lives = self._lives.of(life_id)
        if self._starts.awaited(life_id) or any(life.live for life in lives):
            self._starts.refuse(life_id, None, "busy", f"{life_id} has a live life; stop it first")
            return
        self._journal.write("FORGET", life_id, 0)
        lock = message.get("lock")
        for life in lives:
            lock = life.facts.get("lock", lock)
            self._ends.forget(life)
            self._door.forget(life)
        if isinstance(lock, str) and lock.startswith("/"):
            locks.remove(lock)
        self._door.note({"op": "forgotten", "id": life_id})

    def _quit(self, peer: Peer, message: Message) -> None:
        self._recovery.finish()
        live = self._lives.live() + len(self._starts)
        if live:
            self._door.note({"op": "busy", "live": live})
            return
        self._respawner.leaving()
        self._leave()

    def _bye(self, peer: Peer, message: Message) -> None:
        self._respawner.leaving()

    def _mend(self, peer: Peer, message: Message) -> None:
        self._mend_files()

    def _life(self, message: Message) -> Life:
        self._recovery.finish()
        life = self._lives.get(life_of(message))
        if life is None:
            raise Invalid("there is no such life")
        return life
