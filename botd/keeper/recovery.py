"""After a keeper was killed: finding its lives again, from the journal and from what botd holds."""

from __future__ import annotations

import os

from botd.keeper import proc
from botd.keeper.lean import send_signal
from botd.keeper.life import Life
from botd.keeper.request import Invalid, bounds_of, life_of, log_of
from botd.keeper.wire import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from botd.keeper.containment import Cages
    from botd.keeper.door import Door
    from botd.keeper.ends import Ends
    from botd.keeper.journal import Journal, Record
    from botd.keeper.lives import Lives
    from botd.keeper.loop import Loop
    from botd.keeper.output import Output
    from botd.keeper.remains import Remains
    from botd.keeper.wire import Message

_ALONE_AFTER_S = 1.0
_PATIENCE_S = 2.0
_LOOK_AGAIN_S = 1.0


class Recovery:
    """The lives of a former keeper. Those that botd holds descriptors of are adopted; the others are found in /proc."""

    def __init__(
        self,
        loop: Loop,
        lives: Lives,
        journal: Journal,
        cages: Cages,
        output: Output,
        ends: Ends,
        remains: Remains,
        door: Door,
        boot: str,
        complain: Callable[[str], None],
    ) -> None:
        self._loop, self._lives, self._journal, self._cages = loop, lives, journal, cages
        self._output, self._ends, self._remains, self._door = output, ends, remains, door
        self._boot, self._complain = boot, complain
        # What is in the table already was handed over by the program that was here before.
        self._lost: dict[tuple[str, int], Record] = {k: v for k, v in journal.open.items() if k not in lives}
        self._waited = self._tidied = self._short = False
        for key, what in journal.ended.items():
            if key in lives:
                continue
            life = Life(*key)
            life.final = what
            lives.add(life)
        loop.after(_ALONE_AFTER_S, self._alone)

    def adopt(self, message: Message, fds: list[int]) -> None:
        """A life that botd holds descriptors of ("fds" names them: pidfd, out, err); this method owns them."""
        try:
            key = life_of(message)
            held = _named(message, fds)
            if key in self._lives:
                close_all(fds)
                return
            record = self._lost.get(key)
            if record is None:
                if key[1] <= self._journal.spent.get(key[0], -1):
                    close_all(fds)  # ended and acknowledged
                    return
                record = _from_botd(message)
                self._journal.write("START", *key, boot=self._boot, **record)
                self._journal.write("GO", *key)
                record["go"] = True
            _verify(record, held)
            if not record.get("go"):
                close_all(fds)  # never released: `finish` sees to it
                return
        except (Invalid, OSError, ValueError, KeyError, TypeError) as error:
            close_all(fds)
            raise Invalid(f"adopt: {error}") from error
        self._live(key, record, held.pop("pidfd"), held)
        self._lost.pop(key, None)

    def finish(self) -> bool:
        """botd has handed over what it holds: the rest is found, or gone. False: descriptors are too short to look."""
        later: dict[tuple[str, int], Record] = {}
        while self._lost:
            key, record = self._lost.popitem()
            try:
                self._find(key, record)
            except (OSError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in proc.SHORT:
                    later[key] = record
                    continue
                self._complain(f"{key[0]}: not found again: {error}")
                self._gone(key, record)
        if later:
            # They live as well without a keeper, and their locks keep a second life away.
            self._put_off(later)
        elif not self._tidied:
            try:
                self._tidy()
                self._tidied = True
            except OSError as error:
                if error.errno not in proc.SHORT:
                    raise
                self._loop.after(_LOOK_AGAIN_S, self._look_again)
        return not later

    def later(self) -> list[tuple[str, int]]:
        """Lives that nobody could look for yet because descriptors are short; they are published when found, or not."""
        return list(self._lost)

    def _put_off(self, later: dict[tuple[str, int], Record]) -> None:
        if not self._short:
            self._short = True
            self._complain(f"descriptors are short: {len(later)} lives are looked for again until there are some")
        self._lost = later
        self._loop.after(_LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        before = set(self._lost)
        self.finish()
        for key in before.difference(self._lost):
            life = self._lives.get(key)
            if life is not None:
                self._door.publish(life)

    def _alone(self) -> None:
        """Called after a while: when no botd came, or one that hands nothing over, the pipes must flow all the same."""
        if not self._tidied and self._door.connected and not self._waited:
            self._waited = True
            self._loop.after(_PATIENCE_S, self._alone)
            return
        self.finish()

    def _tidy(self) -> None:
        """Kill what lives in cgroups of this home that belong to no life: neither the journal nor botd knows it."""
        wanted: set[str] = set()
        for life in self._lives:
            wanted.update((str(life.facts.get("cgroup")), *life.facts.get("folders", {}).values()))
        for life_id, cage in self._cages.leftovers(wanted):
            found = cage.kill(-1)
            if found:
                self._complain(f"{found} processes of a forgotten life of {life_id} were killed")
            self._remains.bury(life_id, cage)

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
        cage = self._cages.former(record, list)
        pipes: dict[int, int] = {}
        try:
            for member in cage.members(pid):
                for pipe, number in proc.pipe_fds(member, (record["out"], record["err"])).items():
                    if pipe not in pipes:
                        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                        pipes[pipe] = os.open(f"/proc/{member}/fd/{number}", flags)
        except OSError:
            close_all((pidfd, *pipes.values()))
            raise
        held = {name: pipes[record[name]] for name in ("out", "err") if record[name] in pipes}
        self._live(key, record, pidfd, held)

    def _live(self, key: tuple[str, int], record: Record, pidfd: int, pipes: dict[str, int]) -> None:
        """Take a life over. This method owns the descriptors, also when it raises OSError."""
        life = self._life(key, record)
        life.running = True
        life.pidfd = pidfd
        life.cage = self._cages.former(record, life.marks)
        folder, limits = log_of(record["log"])
        try:
            for name in list(pipes):
                os.set_blocking(pipes[name], False)
                source = self._output.attach(life.id, pipes[name], folder, name, limits)
                life.sources.append(source)
                del pipes[name]
                source.sink.mend()
        except OSError:
            for source in life.sources:
                self._output.finish(source)
            close_all((pidfd, *pipes.values()))
            raise
        self._ends.follow(life)

    def _gone(self, key: tuple[str, int], record: Record) -> None:
        """It ended while no keeper looked. Never released: it never lived. Otherwise its status is unknown."""
        life = self._life(key, record)
        if record.get("boot") == self._boot:
            life.cage = self._cages.former(record, life.marks)
        self._lives.add(life)
        if not record.get("go"):
            life.report = b"gate 0 the keeper was killed before this generation was released"
        self._ends.conclude(life, None)

    def _life(self, key: tuple[str, int], record: Record) -> Life:
        """A life that is no child of this keeper."""
        life = Life(*key)
        life.child = False
        life.pid = record["pid"]
        life.facts = {name: record[name] for name in _FACTS if name in record}
        return life


_DESCRIPTORS = ("pidfd", "out", "err")
_FACTS = ("pid", "start_ticks", "pidfd_inode", "at", "cgroup", "folders", "limits", "out", "err", "lock", "log")


def _named(message: Message, fds: list[int]) -> dict[str, int]:
    names = message.get("fds", list(_DESCRIPTORS))
    if not isinstance(names, list) or len(names) != len(fds) or len(set(names)) != len(names):
        raise Invalid("fds: one name for each descriptor is needed")
    if "pidfd" not in names or not set(names).issubset(_DESCRIPTORS):
        raise Invalid("fds: pidfd, and out and err where they are held")
    return dict(zip(names, fds, strict=True))


def _from_botd(message: Message) -> Record:
    """The facts of a life that the journal does not know, as botd got them when it started."""
    record = {name: message[name] for name in _FACTS if message.get(name) is not None}
    log_of(record.get("log"))
    folders = record.get("folders", {})
    if not isinstance(folders, dict) or not all(isinstance(folder, str) for folder in folders.values()):
        raise Invalid("folders: an object of texts is needed")
    bounds_of(record)
    for name in ("pid", "start_ticks", "pidfd_inode", "out", "err"):
        if type(record.get(name)) is not int:
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
