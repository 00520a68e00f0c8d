"""The end of a life: asked for or not, its tree follows, its output is drained, and then it is on record.

see     the main process is a zombie, and its status is read; it is not reaped, so its pid stays its own
sweep   what outlived it is killed, until nothing is left
drain   what is still in its pipes goes to the files
EXIT    journaled, and only then the zombie is let go

Until botd has acknowledged an end it is kept, and told to every botd that comes.
"""

from __future__ import annotations

import os
from time import monotonic

from botd.crash import crash_point
from botd.keeper import proc
from botd.keeper.births import instant
from botd.keeper.launch import parse_report
from botd.keeper.lean import SIGCONT, SIGKILL, send_signal
from botd.keeper.life import Life, status_words
from botd.keeper.loop import ENDED, READ
from botd.keeper.shortage import Shortage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.descriptors import Reserve
    from botd.keeper.journal import Journal
    from botd.keeper.lives import Lives
    from botd.keeper.loop import Loop
    from botd.keeper.output import Output
    from botd.keeper.remains import Remains
    from botd.keeper.wire import Message

_SWEEP_FIRST_S, _SWEEP_LONGEST_S, _SWEEP_TRIES = 0.001, 0.5, 20
_KILL_AGAIN_S = 1.0
_RECORD_AGAIN_S = 1.0
_MEET_S, _MEET_ENDING_S = 2.0, 0.1
"""How often to meet the processes of a life that an earlier keeper began, where no control group holds them."""
_LOOK_AGAIN_S = 0.02
_REAPED_WITHIN_S = 2.0


class Ends:
    """Ends lives, and sees them end. `publish` is called with a life that there is something new to tell about."""

    def __init__(
        self,
        loop: Loop,
        lives: Lives,
        journal: Journal,
        output: Output,
        remains: Remains,
        reserve: Reserve,
        publish: Callable[[Life], None],
        complain: Callable[[str], None],
    ) -> None:
        self._loop, self._lives, self._journal, self._output = loop, lives, journal, output
        self._remains, self._reserve = remains, reserve
        self._publish, self._complain = publish, complain
        self._zombies: dict[tuple[str, int], float] = {}
        self._on_end = self._ended
        self._shortage = Shortage(loop, self._kill)

    # Asked for

    def stop(self, life: Life, number: int, grace: float) -> None:
        """Signal the main process, kill the tree after `grace` seconds. Asked again it may end sooner, never later."""
        if life.status is not None:
            return  # it is ending already
        deadline = monotonic() + grace
        if life.kill_at is None or deadline < life.kill_at:
            life.kill_at = deadline
            if grace > 0:
                self.kill_after(grace, life.key)
        if grace <= 0:
            self._kill(life)
        elif number != life.stop_signal:
            self._meet(life)
            life.stop_signal = number
            send_signal(life.pidfd, number)
            # A stopped process would sleep through its signal.
            send_signal(life.pidfd, SIGCONT)

    def _kill(self, life: Life) -> None:
        """SIGKILL the whole tree, again and again until the main process is gone."""
        if life.status is not None or not life.live or life.cage is None:
            return
        try:
            life.cage.kill(life.pid)
        except OSError as error:
            self._trouble(life, error)
        send_signal(life.pidfd, SIGKILL)
        self.kill_after(_KILL_AGAIN_S, life.key)

    def kill_after(self, seconds: float, key: tuple[str, int]) -> None:
        """Kill the tree of a life then, should it still live and its time be up."""
        # By its name: most lives end long before, and nothing of them shall stay until then.
        self._loop.after(seconds, lambda: self._overdue(key))

    def _overdue(self, key: tuple[str, int]) -> None:
        life = self._lives.get(key)
        # A bot that was deleted and made again begins with the same numbers: only a life whose own time is up.
        if life is not None and life.kill_at is not None and monotonic() >= life.kill_at:
            self._kill(life)

    # Seen

    def follow(self, life: Life) -> None:
        """Take a live life into the table, and see to its end from now on."""
        self._lives.add(life)
        self._loop.watch(life.pidfd, self._on_end, READ, life)
        self._shortage.follow(life)
        if life.cage is not None and life.cage.forgetful:
            self._meet_again(life)

    def _meet(self, life: Life) -> None:
        """See who is below a main process whose orphans will not come to this keeper."""
        if life.cage is not None and life.cage.forgetful:
            try:
                life.cage.meet(life.pid)
            except OSError:
                return  # descriptors are short; the next look may do better

    def _meet_again(self, life: Life) -> None:
        if life.live and life.status is None:
            self._meet(life)
            self._loop.after(_MEET_S if life.kill_at is None else _MEET_ENDING_S, lambda: self._meet_again(life))

    def resume(self, life: Life) -> None:
        """Go on with a life whose end another program in this process had begun to see to."""
        if life.live and life.status is not None:
            self.conclude(life, None if life.status < 0 else life.status)
        else:
            self._record(life)

    def _ended(self, life: Life) -> None:
        """The main process ended, or so its pidfd says."""
        status: int | None
        if life.child:
            info = os.waitid(os.P_PIDFD, life.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None:
                return
            status = _raw_status(info.si_code, info.si_status)
        else:
            verdict = self._verdict(life)
            if verdict is None:
                return
            status = verdict[0]
        self._loop.unwatch(life.pidfd)
        self.conclude(life, status)

    def _verdict(self, life: Life) -> tuple[int | None] | None:
        """(raw wait status,) of an ended life that is no child, (None,) when it cannot be known; None: look later."""
        ticks = life.facts["start_ticks"]
        status = proc.exit_from_zombie(life.pid, ticks) if proc.send_signal_0(life.pidfd) else None
        if status is None:
            status = proc.exit_from_pidfd(life.pidfd)
        if status is not None:
            return (status,)
        if not proc.send_signal_0(life.pidfd):
            # Reaped, perhaps between the questions above: only now is the kernel's answer its last one.
            return (proc.exit_from_pidfd(life.pidfd),)
        # A zombie whose parent has not looked yet: its status appears when it does.
        now = monotonic()
        if now - self._zombies.setdefault(life.key, now) > _REAPED_WITHIN_S:
            return (None,)
        self._loop.change(life.pidfd, ENDED)
        self._loop.after(_LOOK_AGAIN_S, lambda: self._look_again(life))
        return None

    def _look_again(self, life: Life) -> None:
        if life.live and life.status is None:
            self._ended(life)

    def conclude(self, life: Life, status: int | None) -> None:
        """The main process is gone with this raw wait status (None: unknown). Its tree follows, then the record."""
        life.status = -1 if status is None else status
        self._zombies.pop(life.key, None)
        self._shortage.leave(life)
        crash_point("exit-seen")
        self._sweep(life, status, 0)

    def _sweep(self, life: Life, status: int | None, tries: int) -> None:
        wait = min(_SWEEP_LONGEST_S, _SWEEP_FIRST_S * 2**tries)
        try:
            found = life.cage.sweep(life.pid) if life.cage is not None else 0
        except OSError as error:
            # Whether something is left nobody knows yet; the end of the life waits for that, however long.
            self._trouble(life, error)
            self._loop.after(wait, lambda: self._sweep(life, status, min(tries + 1, _SWEEP_TRIES - 1)))
            return
        life.killed = max(life.killed, found)
        if found and tries < _SWEEP_TRIES:
            self._loop.after(wait, lambda: self._sweep(life, status, tries + 1))
            return
        crash_point("exit-swept")
        self._finish(life, status)

    def _trouble(self, life: Life, error: OSError) -> None:
        """The processes of a life cannot be looked at: said once, and descriptors are found for the next try."""
        if not life.complained:
            life.complained = True
            self._complain(f"processes of {life.id}: {error}; trying again")
        if error.errno in proc.SHORT:
            self._reserve.give()
            self._output.spare()

    def _finish(self, life: Life, status: int | None) -> None:
        if life.error_fd >= 0:
            self._read_report(life)
        for source in life.sources:
            self._output.finish(source)
        crash_point("exit-drained")
        name = {"id": life.id, "gen": life.gen, "pid": life.pid}
        if life.report:
            life.final = _failed(life, *parse_report(life.report))
            life.final["pid"] = life.pid
        else:
            life.running = True
            life.final = {"op": "exited", **name, **status_words(status), "at": instant(), "leftovers": life.killed}
            life.final |= _excess(life)
        life.unrecorded = True
        self._record(life)
        self._publish(life)

    def _read_report(self, life: Life) -> None:
        fd, life.error_fd = life.error_fd, -1
        self._loop.unwatch(fd)
        try:
            life.report += os.read(fd, 1024)
        except BlockingIOError:
            pass  # the child ended without a word
        os.close(fd)

    # On record

    def never_lived(self, life_id: str, gen: int, step: str, number: int | None, text: str) -> None:
        """A start that failed: its generation is spent, and that is told like an end."""
        life = Life(life_id, gen)
        life.final = _failed(life, step, number, text)
        life.unrecorded = True
        self._lives.add(life)
        self._record(life)
        self._publish(life)

    def acknowledged(self, life: Life) -> None:
        """botd has it on record. OSError when that cannot be journaled; then nothing changed."""
        crash_point("ack-received")
        if not life.unrecorded:
            self._journal.write("ACK", *life.key)
        crash_point("ack-journaled")
        self.forget(life)

    def forget(self, life: Life) -> None:
        """Let go of an ended life, whether its end is on record or not."""
        self._reap(life)
        life.unrecorded = False
        self._lives.remove(life)

    def _record(self, life: Life) -> None:
        """Journal the end, then let the zombie go. On a full disk both wait; botd is told all the same."""
        if not life.unrecorded or life.final is None:
            return
        try:
            self._journal.write("EXIT", life.id, life.gen, what=life.final)
        except OSError as error:
            self._complain(f"the end of {life.id} could not be journaled: {error}")
            self._loop.after(_RECORD_AGAIN_S, lambda: self._record(life))
            return
        life.unrecorded = False
        crash_point("exit-journaled")
        self._reap(life)
        crash_point("exit-reaped")

    def _reap(self, life: Life) -> None:
        if life.pid >= 0 and life.child and self._lives.children.get(life.pid) is life:
            _pid, _status, usage = os.wait4(life.pid, 0)
            del self._lives.children[life.pid]
            if life.final is not None:
                life.final["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 6)
                life.final["max_rss"] = usage.ru_maxrss * 1024
        if life.cage is not None:
            self._remains.bury(life.id, life.cage)
        life.cage = None
        life.close()
        self._remains.reaped()


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


def _excess(life: Life) -> Message:
    """What the limits had to do with it: `oom` and `pids_refused`, each where there was any."""
    fence = life.cage.fence if life.cage is not None else None
    if fence is None:
        return {}
    found: Message = {}
    oom, refused = fence.killed_for_memory(), fence.refused()
    if oom is not None:
        found["oom"] = oom
    if refused:
        found["pids_refused"] = refused
    return found


def _raw_status(code: int, status: int) -> int:
    if code == os.CLD_EXITED:
        return status << 8
    return status | (0x80 if code == os.CLD_DUMPED else 0)
