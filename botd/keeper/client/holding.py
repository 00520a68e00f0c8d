"""Duplicates of every bot's descriptors, so that nothing is lost while there is no keeper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botd.keeper import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    Message = dict[str, Any]


class Held:
    """Descriptors of one life, by name (pidfd, out, err), and the facts that came with them."""

    __slots__ = ("facts", "fds")

    def __init__(self, facts: Message, fds: dict[str, int]) -> None:
        self.facts, self.fds = facts, fds

    @property
    def pidfd(self) -> int | None:
        return self.fds.get("pidfd")

    @property
    def out(self) -> int | None:
        return self.fds.get("out")

    @property
    def err(self) -> int | None:
        return self.fds.get("err")

    def close(self) -> None:
        wire.close_all(list(self.fds.values()))
        self.fds = {}


def hold(held: dict[tuple[str, int], Held], message: Message, fds: list[int], below: int = 1 << 30) -> None:
    """Keep the descriptors that came with a message about a life; they are closed when it names none.

    Where they are short (lost on the way, or numbers not `below`) only the facts are kept: a keeper that comes after
    this one finds such a life in /proc.
    """
    life_id, gen, names = message.get("id"), message.get("gen"), message.get("fds")
    if not isinstance(life_id, str) or not isinstance(gen, int):
        wire.close_all(fds)
        return
    if (fds and max(fds) >= below) or message.get("fds_lost"):
        wire.close_all(fds)
        fds, names = [], []
    if not isinstance(names, list) or len(names) != len(fds):
        wire.close_all(fds)
        return
    release(held, (life_id, gen))
    facts = {k: v for k, v in message.items() if k not in ("op", "live", "running", "fds", "fds_lost")}
    held[life_id, gen] = Held(facts, dict(zip(names, fds, strict=True)))


def release(held: dict[tuple[str, int], Held], key: tuple[str, int]) -> None:
    """Close what is held of a life."""
    former = held.pop(key, None)
    if former is not None:
        former.close()


def adoptions(held: dict[tuple[str, int], Held]) -> Iterator[tuple[Message, list[int]]]:
    """The messages (with their descriptors) that hand every held life to a new keeper."""
    for (life_id, gen), life in held.items():
        if life.pidfd is not None:
            message = {**life.facts, "op": "adopt", "id": life_id, "gen": gen, "fds": list(life.fds)}
            yield message, list(life.fds.values())
