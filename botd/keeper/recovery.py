"""After a keeper was killed: finding its lives again, from the journal and from what botd holds."""

from __future__ import annotations

import os
from time import monotonic

from botd.keeper import proc
from botd.keeper.lean import send_signal
from botd.keeper.life import Life
from botd.keeper.loop import ENDED
from botd.keeper.request import Invalid, life_of, log_of
from botd.keeper.wire import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.journal import Record
    from botd.keeper.keeper import Keeper
    from botd.keeper.wire import Message

_PATIENCE_S = 2.0
_LOOK_AGAIN_S = 0.02


class Recovery:
    """The lives of a former keeper. Those that botd holds descriptors of are adopted; the others are found in /proc."""

    def __init__(self, keeper: Keeper, boot: str) -> None:
        self._keeper = keeper
        self._boot = boot
        self._lost: dict[tuple[str, int], Record] = dict(keeper.journal.open)
        self._since: dict[tuple[str, int], float] = {}
        self._waited = self._tidied = False
        for key, what in keeper.journal.ended.items():
            life = Life(*key)
            life.final = what
            keeper.lives[key] = life

    def adopt(self, message: Message, fds: list[int]) -> None:
        """A life that botd holds descriptors of ("fds" names them: pidfd, out, err); this method owns them."""
        try:
            key = life_of(message)
            held = _named(message, fds)
            if key in self._keeper.lives:
                close_all(fds)
                return
            record = self._lost.get(key)
            if record is None:
                if key[1] <= self._keeper.journal.spent.get(key[0], -1):
                    close_all(fds)  # ended and acknowledged
                    return
                record = _from_botd(message)
                self._keeper.journal.write("START", *key, boot=self._boot, **record)
                self._keeper.journal.write("GO", *key)
                record["go"] = True
            _verify(record, held)
            if not record.get("go"):
                close_all(fds)  # never released: `finish` sees to it
                return
        except (Invalid, OSError, ValueError, KeyError, TypeError) as error:
            close_all(fds)
            raise Invalid(f"adopt: {error}") from error
        self._lost.pop(key, None)
        self._live(key, record, held.pop("pidfd"), held)

    def finish(self) -> None:
        """botd has handed over what it holds: the rest is found, or gone."""
        while self._lost:
            key, record = self._lost.popitem()
            try:
                self._find(key, record)
            except (OSError, KeyError, TypeError, ValueError) as error:
                self._keeper.complain(f"{key[0]}: not found again: {error}")
                self._gone(key, record)
        if not self._tidied:
            self._tidied = True
            self._tidy()

    def alone(self) -> None:
        """Called after a while: when no botd came, or one that hands nothing over, the pipes must flow all the same."""
        if not self._tidied and self._keeper.door.connected and not self._waited:
            self._waited = True
            self._keeper.loop.after(_PATIENCE_S, self.alone)
            return
        self.finish()

    def status_of(self, life: Life) -> tuple[int | None] | None:
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
        if now - self._since.setdefault(life.key, now) > _PATIENCE_S:
            return (None,)
        self._keeper.loop.change(life.pidfd, ENDED)
        self._keeper.loop.after(_LOOK_AGAIN_S, lambda: self._look_again(life))
        return None

    def _look_again(self, life: Life) -> None:
        if life.live and life.status is None:
            self._keeper.on_exit(life)

    def _tidy(self) -> None:
        """Kill what lives in cgroups of this home that belong to no life: neither the journal nor botd knows it."""
        keeper = self._keeper
        wanted = {str(life.facts.get("cgroup")) for life in keeper.lives.values()}
        for life_id, cage in keeper.cages.leftovers(wanted):
            found = cage.kill(-1)
            if found:
                keeper.complain(f"{found} processes of a forgotten life of {life_id} were killed")
            if not cage.remove():
                keeper.remains.setdefault(life_id, []).append(cage)

    def _find(self, key: tuple[str, int], record: Record) -> None:
        pid, ticks, inode = record["pid"], record["start_ticks"], record["pidfd_inode"]
        if record.get("boot") != self._boot:
            self._gone(key, record)
            return
        pidfd = proc.reopen(pid, ticks, inode)
        if pidfd is None:
            self._gone(key, record)
            return
        if not record.get("go"):
            # It waits at a gate that nobody will open, and ends by itself; make sure.
            send_signal(pidfd, 9)
            os.close(pidfd)
            self._gone(key, record)
            return
        cage = self._keeper.cages.former(record.get("cgroup"), list)
        pipes: dict[int, int] = {}
        for member in cage.members(pid):
            for pipe, number in proc.pipe_fds(member, (record["out"], record["err"])).items():
                if pipe not in pipes:
                    pipes[pipe] = os.open(f"/proc/{member}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        held = {name: pipes[record[name]] for name in ("out", "err") if record[name] in pipes}
        self._live(key, record, pidfd, held)

    def _live(self, key: tuple[str, int], record: Record, pidfd: int, pipes: dict[str, int]) -> None:
        keeper = self._keeper
        life = Life(*key)
        life.facts = {name: record[name] for name in _FACTS if name in record}
        life.child, life.running = False, True
        life.pid, life.pidfd = record["pid"], pidfd
        life.cage = keeper.cages.former(record.get("cgroup"), life.marks)
        folder, max_bytes, keep = log_of(record["log"])
        for name, fd in pipes.items():
            os.set_blocking(fd, False)
            life.sources.append(keeper.output.attach(fd, folder, name, max_bytes, keep))
        keeper.enter(life)

    def _gone(self, key: tuple[str, int], record: Record) -> None:
        """It ended while no keeper looked. Never released: it never lived. Otherwise its status is unknown."""
        keeper = self._keeper
        life = Life(*key)
        life.child = False
        life.pid = record["pid"]
        life.facts = {name: record[name] for name in _FACTS if name in record}
        life.cage = keeper.cages.former(record.get("cgroup"), life.marks) if record.get("boot") == self._boot else None
        keeper.lives[key] = life
        if not record.get("go"):
            life.report = b"gate 0 the keeper was killed before this generation was released"
        keeper.ended(life, None)


_DESCRIPTORS = ("pidfd", "out", "err")
_FACTS = ("pid", "start_ticks", "pidfd_inode", "at", "cgroup", "out", "err", "lock", "log")


def _named(message: Message, fds: list[int]) -> dict[str, int]:
    names = message.get("fds", list(_DESCRIPTORS))
    if not isinstance(names, list) or len(names) != len(fds) or len(set(names)) != len(names):
        raise Invalid("fds: one name for each descriptor is needed")
    if "pidfd" not in names or not set(names).issubset(_DESCRIPTORS):
        raise Invalid("fds: pidfd, and out and err where they are held")
    return dict(zip(names, fds, strict=True))


def _from_botd(message: Message) -> Record:
    """The facts of a life that the journal does not know, as botd got them when it started."""
    record = {name: message.get(name) for name in _FACTS}
    log_of(record["log"])
    for name in ("pid", "start_ticks", "pidfd_inode", "out", "err"):
        if type(record[name]) is not int:
            raise Invalid(f"{name}: a number is needed")
    return record


def _verify(record: Record, held: dict[str, int]) -> None:
    pid = proc.pidfd_pid(held["pidfd"])
    same = pid in (-1, record["pid"])
    if proc.Switches.unique_inodes:
        same = same and proc.pidfd_inode(held["pidfd"]) == record["pidfd_inode"]
    if not same:
        raise Invalid("the pidfd belongs to another process")
    for name, fd in held.items():
        if name != "pidfd" and os.fstat(fd).st_ino != record[name]:
            raise Invalid(f"the {name} descriptor is another pipe")
