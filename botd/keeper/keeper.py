"""The keeper itself: which lives there are, and what each message and each event does to them."""

from __future__ import annotations

import os
from collections import deque
from time import monotonic

from botd.keeper import proc, wire
from botd.keeper.births import Failed, Refused, abort, conceive, deliver, instant, open_lock
from botd.keeper.crash import crash_point
from botd.keeper.door import Door, Peer
from botd.keeper.launch import Gate, launch, parse_report
from botd.keeper.lean import SIGCONT, send_signal
from botd.keeper.life import Life, status_words
from botd.keeper.recovery import Recovery
from botd.keeper.request import Invalid, Start, id_of, life_of, limits_of, seconds_of, signal_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages, Cgroup, Tree
    from botd.keeper.journal import Journal
    from botd.keeper.loop import Loop
    from botd.keeper.nursery import Nursery
    from botd.keeper.output import Output
    from botd.keeper.respawn import Respawner
    from botd.keeper.wire import Message

_SWEEP_FIRST_S, _SWEEP_LONGEST_S, _SWEEP_TRIES = 0.001, 0.5, 20
_KILL_AGAIN_S = 1.0
_RECORD_AGAIN_S = 1.0
_RECOVER_ALONE_S = 1.0
_STARTS_AHEAD = 3


class Keeper:
    """Wires the parts together. `known` maps the pid of every child that is no stray to its life (or to None)."""

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        cages: Cages,
        output: Output,
        nofile: tuple[int, int],
        known: dict[int, Life | None],
        complain: Callable[[str], None],
    ) -> None:
        self.loop, self.journal, self.cages, self.output = loop, journal, cages, output
        self.complain = complain
        self.door: Door
        self.respawner: Respawner
        self._nofile = nofile
        self._known = known
        self._boot = proc.boot_id()
        self.lives: dict[tuple[str, int], Life] = {}
        self._by_id: dict[str, Life] = {}
        self._waiting: dict[tuple[str, int], Start] = {}
        self._queue: deque[tuple[str, int]] = deque()
        self._under_way = 0
        self.nursery: Nursery | None = None
        self._strays_behind = False
        self.remains: dict[str, list[Cgroup | Tree]] = {}
        self._handlers: dict[str, Callable[[Peer, Message], None]] = {
            name: getattr(self, "_do_" + name)
            for name in ("sync", "start", "stop", "signal", "ack", "logs", "ping", "forget", "quit", "bye")
        }
        self._recovery = Recovery(self, self._boot)
        loop.after(_RECOVER_ALONE_S, self._recovery.alone)

    # Messages

    def on_message(self, peer: Peer, message: Message, fds: list[int]) -> None:
        """Do what a message asks. Whatever is wrong with it is answered and logged; nothing ends the keeper."""
        name = message["op"]
        try:
            if name == "hello":
                self._hello(peer, message)
            elif name == "adopt":
                if not peer.greeted:
                    raise Invalid("say hello first")
                taken, fds = fds, []
                self._recovery.adopt(message, taken)
            elif name in self._handlers and (peer.greeted or name == "ping"):
                self._handlers[name](peer, message)
            else:
                raise Invalid(f"{name!r:.60} is unknown" if peer.greeted else "say hello first")
        except (Invalid, OSError) as error:
            self.complain(f"{name!r:.60}: {error}")
            answer: Message = {"op": "error", "about": name[:60], "text": str(error)}
            for key in ("id", "gen"):
                if isinstance(message.get(key), (str, int)):
                    answer[key] = message[key]
            self.door.answer(peer, answer)
        finally:
            wire.close_all(fds)

    def _hello(self, peer: Peer, message: Message) -> None:
        if message.get("version") != wire.VERSION:
            raise Invalid(f"protocol version {message.get('version')!r:.20}; this keeper speaks {wire.VERSION}")
        self.respawner.arrived(peer.pid, message.get("respawn"))
        self.door.welcome(peer)
        self.door.note(
            {
                "op": "hello",
                "version": wire.VERSION,
                "pid": os.getpid(),
                "boot_id": self._boot,
                "containment": self.cages.kind,
                "features": {
                    "pidfd_info_exit": proc.Switches.pidfd_info,
                    "cgroup_kill": self.cages.kind == "cgroup2" and self.cages.use_kill,
                    "clone_into_cgroup": self.cages.clone_into,
                },
                **self.respawner.facts,
            }
        )

    def on_lost(self) -> None:
        self.respawner.lost()

    def _do_sync(self, peer: Peer, message: Message) -> None:
        self._recovery.finish()
        self.door.sync(self.lives.values())

    def _do_start(self, peer: Peer, message: Message) -> None:
        key = None
        try:
            key = life_of(message)
            start = Start(message, self._nofile)
        except Invalid as error:
            if key is None:
                raise
            self._refuse(*key, "invalid", str(error))
            return
        self._recovery.finish()
        if key in self._waiting:
            return  # asked twice
        if key in self.lives:
            self._refuse(*key, "released", f"generation {key[1]} of {key[0]} was started already")
            return
        self._waiting[key] = start
        self._queue.append(key)
        self._pump()

    def _do_stop(self, peer: Peer, message: Message) -> None:
        number, grace = signal_of(message), seconds_of(message, "grace_s")
        if self._waiting.pop(life_of(message), None) is not None:
            self._fail(*life_of(message), "stopped", None, "it was stopped before it was started")
            return
        life = self._life(message)
        if life.final is not None:
            life.told = min(life.told, 2)
            self.door.publish(life)
            return
        if life.status is None:
            self._stop(life, number, grace)

    def _do_signal(self, peer: Peer, message: Message) -> None:
        number = signal_of(message)
        life = self._life(message)
        if life.live:
            send_signal(life.pidfd, number)

    def _do_ack(self, peer: Peer, message: Message) -> None:
        key = life_of(message)
        life = self.lives.get(key)
        if life is None:
            return  # acknowledged twice
        if life.final is None:
            raise Invalid("this life has not ended")
        crash_point("ack-received")
        if not life.unrecorded:
            self.journal.write("ACK", *key)
        crash_point("ack-journaled")
        self._reap(life)
        life.unrecorded = False
        del self.lives[key]
        if self._by_id.get(life.id) is life:
            del self._by_id[life.id]
        self.door.forget(life)

    def _do_logs(self, peer: Peer, message: Message) -> None:
        life_id, limits = id_of(message), limits_of(message)
        life = self._by_id.get(life_id)
        if life is not None and life.live:
            folder = life.facts["log"]["dir"]
            life.facts["log"] = {"dir": folder, "max_bytes": limits[0], "keep": limits[1]}
            self.output.limits(folder, *limits)

    def _do_ping(self, peer: Peer, message: Message) -> None:
        live = sum(life.live for life in self.lives.values())
        self.door.answer(
            peer,
            {
                "op": "pong",
                "pid": os.getpid(),
                "version": wire.VERSION,
                "live": live,
                "unacknowledged": len(self.lives) - live,
                "waiting": len(self._waiting),
                "journal_damaged": self.journal.damaged,
                "containment": self.cages.kind,
            },
        )

    def _do_forget(self, peer: Peer, message: Message) -> None:
        life_id = id_of(message)
        self._recovery.finish()
        if any(key[0] == life_id for key in self._waiting) or any(
            life.live for life in self.lives.values() if life.id == life_id
        ):
            self._refuse(life_id, None, "busy", f"{life_id} has a live life; stop it first")
            return
        self.journal.write("FORGET", life_id, 0)
        lock = message.get("lock")
        for key in [key for key in self.lives if key[0] == life_id]:
            life = self.lives.pop(key)
            lock = life.facts.get("lock", lock)
            self._reap(life)
            self.door.forget(life)
        self._by_id.pop(life_id, None)
        if isinstance(lock, str) and lock.startswith("/"):
            _remove_lock(lock)
        self.door.note({"op": "forgotten", "id": life_id})

    def _do_quit(self, peer: Peer, message: Message) -> None:
        self._recovery.finish()
        live = sum(life.live for life in self.lives.values()) + len(self._waiting)
        if live:
            self.door.note({"op": "busy", "live": live})
            return
        self.respawner.leaving()
        self.loop.running = False

    def _do_bye(self, peer: Peer, message: Message) -> None:
        self.respawner.leaving()

    def _life(self, message: Message) -> Life:
        self._recovery.finish()
        life = self.lives.get(life_of(message))
        if life is None:
            raise Invalid("there is no such life")
        return life

    # Start

    def _pump(self) -> None:
        """Let a few starts be under way at a time, one step of one of them in a turn of the loop."""
        while self._queue and self._under_way < _STARTS_AHEAD:
            self._under_way += 1
            # Taken here and not in its turn: what is in the queue is what nobody has taken yet.
            self.loop.slow.append(self._turn(self._queue.popleft()))

    def _turn(self, key: tuple[str, int]) -> Callable[[], None]:
        return lambda: self._start_next(key)

    def _start_next(self, key: tuple[str, int]) -> None:
        start = self._waiting.get(key)
        try:
            if start is not None:
                self._begin(start)
                return
        except Refused as refused:
            del self._waiting[key]
            self._refuse(*key, *refused.args)
        except Failed as failed:
            del self._waiting[key]
            self._fail(*key, *failed.args)
        self._done()

    def _done(self) -> None:
        self._under_way -= 1
        self._pump()

    def _begin(self, start: Start) -> None:
        former = self._by_id.get(start.id)
        if former is not None and former.live:
            raise Refused("busy", f"generation {former.gen} of {start.id} lives")
        if not self._nothing_remains(start.id):
            raise Refused("busy", f"processes of a former life of {start.id} have not ended yet")
        life, lock, birthplace = conceive(start, self.journal, self.cages)
        try:
            if (
                birthplace is not None
                and self.nursery is not None
                and self.nursery.ask(start.command, lock, birthplace, lambda gate: self._born(life, start, gate))
            ):
                return
            gate: Gate | OSError = launch(start.command, lock, birthplace)
        except OSError as error:
            gate = error
        finally:
            os.close(lock)
            if birthplace is not None:
                os.close(birthplace)
        self._born(life, start, gate)

    def _born(self, life: Life, start: Start, gate: Gate | OSError) -> None:
        """The fork was made (or not); the child waits at its gate."""
        wanted = self._waiting.pop(life.key, None) is not None
        try:
            if isinstance(gate, OSError):
                if life.cage is not None:
                    life.cage.remove()
                raise Failed("fork", gate.errno, gate.strerror)
            if not wanted:
                abort(life, gate, self.output)  # stopped meanwhile, and told so
                return
            deliver(life, gate, start, self.journal, self.output, self._boot, self.door.tell)
            self._known[life.pid] = life
            self.enter(life)
            self.loop.watch(life.error_fd, lambda: self._on_report(life))
            self.door.publish(life)
        except Failed as failed:
            if wanted:
                self._fail(*life.key, *failed.args)
        finally:
            self._done()

    def _refuse(self, life_id: str, gen: int | None, why: str, text: str) -> None:
        self.door.note({"op": "refused", "id": life_id, "gen": gen, "why": why, "text": text})

    def _fail(self, life_id: str, gen: int, step: str, number: int | None, text: str) -> None:
        """A generation that never lived: spent, and told like an end."""
        life = Life(life_id, gen)
        life.final = _failed(life, step, number, text)
        life.unrecorded = True
        self.lives[life.key] = life
        self._record(life)
        self.door.publish(life)

    def enter(self, life: Life) -> None:
        """Take a live life into the tables and watch for its end."""
        self.lives[life.key] = life
        self._by_id[life.id] = life
        self.loop.watch(life.pidfd, lambda: self.on_exit(life))

    def _on_report(self, life: Life) -> None:
        """The error pipe: words when a step failed, its end when the program was executed."""
        try:
            data = os.read(life.error_fd, 1024)
        except BlockingIOError:
            return
        if data:
            life.report += data
            return
        self.loop.unwatch(life.error_fd)
        os.close(life.error_fd)
        life.error_fd = -1
        if not life.report:
            life.running = True
            self.door.publish(life)

    # Stop

    def _stop(self, life: Life, number: int, grace: float) -> None:
        deadline = monotonic() + grace
        if life.kill_at is None or deadline < life.kill_at:
            life.kill_at = deadline
            if grace > 0:
                self.loop.after(grace, lambda: self._kill(life))
        if grace <= 0:
            self._kill(life)
        elif number != life.stop_signal:
            life.stop_signal = number
            send_signal(life.pidfd, number)
            # A stopped process would sleep through its signal.
            send_signal(life.pidfd, SIGCONT)

    def _kill(self, life: Life) -> None:
        """SIGKILL the whole tree, again and again until the main process is gone."""
        if life.status is not None or not life.live or life.cage is None:
            return
        life.cage.kill(life.pid)
        send_signal(life.pidfd, 9)
        self.loop.after(_KILL_AGAIN_S, lambda: self._kill(life))

    # Exit

    def on_exit(self, life: Life) -> None:
        """The main process ended (or its pidfd says so)."""
        status: int | None
        if life.child:
            info = os.waitid(os.P_PIDFD, life.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None:
                return
            status = _raw_status(info.si_code, info.si_status)
        else:
            verdict = self._recovery.status_of(life)
            if verdict is None:
                return
            status = verdict[0]
        self.loop.unwatch(life.pidfd)
        self.ended(life, status)

    def ended(self, life: Life, status: int | None) -> None:
        """The main process is gone with this raw wait status (None: unknown). Its tree follows, then the record."""
        life.status = -1 if status is None else status
        crash_point("exit-seen")
        self._sweep(life, status, 0)

    def _sweep(self, life: Life, status: int | None, tries: int) -> None:
        cage = life.cage
        if cage is not None:
            found = cage.sweep(life.pid)
            life.killed = max(life.killed, found)
            if found and tries < _SWEEP_TRIES:
                wait = min(_SWEEP_LONGEST_S, _SWEEP_FIRST_S * 2**tries)
                self.loop.after(wait, lambda: self._sweep(life, status, tries + 1))
                return
        crash_point("exit-swept")
        self._finish(life, status)

    def _finish(self, life: Life, status: int | None) -> None:
        if life.error_fd >= 0:
            self._read_report(life)
        for source in life.sources:
            self.output.finish(source)
        crash_point("exit-drained")
        name = {"id": life.id, "gen": life.gen, "pid": life.pid}
        if life.report:
            life.final = _failed(life, *parse_report(life.report))
            life.final["pid"] = life.pid
        else:
            life.running = True
            life.final = {"op": "exited", **name, **status_words(status), "at": instant(), "leftovers": life.killed}
        life.unrecorded = True
        self._record(life)
        self.door.publish(life)

    def _read_report(self, life: Life) -> None:
        fd, life.error_fd = life.error_fd, -1
        self.loop.unwatch(fd)
        try:
            life.report += os.read(fd, 1024)
        except BlockingIOError:
            pass  # the child ended without a word
        os.close(fd)

    def _record(self, life: Life) -> None:
        """Journal the end, then let the zombie go. On a full disk both wait; botd is told all the same."""
        if not life.unrecorded or life.final is None:
            return
        try:
            self.journal.write("EXIT", life.id, life.gen, what=life.final)
        except OSError as error:
            self.complain(f"the end of {life.id} could not be journaled: {error}")
            self.loop.after(_RECORD_AGAIN_S, lambda: self._record(life))
            return
        life.unrecorded = False
        crash_point("exit-journaled")
        self._reap(life)
        crash_point("exit-reaped")

    def _reap(self, life: Life) -> None:
        if life.pid >= 0 and life.child and life.pid in self._known:
            _pid, _status, usage = os.wait4(life.pid, 0)
            del self._known[life.pid]
            if life.final is not None:
                life.final["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 6)
                life.final["max_rss"] = usage.ru_maxrss * 1024
        if life.cage is not None and not life.cage.remove():
            self.complain(f"processes of {life.id} have not ended: {life.cage.path}")
            self.remains.setdefault(life.id, []).append(life.cage)
        life.cage = None
        life.close()
        if self._strays_behind:
            self.reap_strays()

    def _nothing_remains(self, life_id: str) -> bool:
        """Whether every cage of former lives is empty; what is not gets another SIGKILL."""
        for cage in self.remains.pop(life_id, []):
            if not cage.remove():
                cage.kill(-1)
                self.remains.setdefault(life_id, []).append(cage)
        return life_id not in self.remains

    def reap_strays(self) -> None:
        """Take the ends of children that are nobody's main process: orphans that came to this process."""
        self.respawner.reap()
        self._strays_behind = False
        try:
            while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if info.si_pid in self._known:
                    # The kernel shows the same one until it is reaped; there may be strays behind it.
                    self._strays_behind = True
                    return
                os.waitpid(info.si_pid, 0)
        except ChildProcessError:
            return  # no child at all


def _failed(life: Life, step: str, number: int | None, text: str) -> Message:
    return {
        "op": "failed",
        "id": life.id,
        "gen": life.gen,
        "step": step,
        "errno": number,
        "text": text,
        "at": instant(),
    }


def _raw_status(code: int, status: int) -> int:
    if code == os.CLD_EXITED:
        return status << 8
    return status | (0x80 if code == os.CLD_DUMPED else 0)


def _remove_lock(path: str) -> None:
    try:
        fd = open_lock(path)
    except OSError:
        return
    if fd is not None:
        os.unlink(path)
        os.close(fd)
