"""The keeper's table: which lives it knows, and whose its children are."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from botd.keeper.life import Life


class Lives:
    """Every life from its fork to its acknowledged end.

    `children` maps the pid of each child of the keeper that is no stray to its life, or to None when it is no bot.
    """

    def __init__(self) -> None:
        self.children: dict[int, Life | None] = {}
        self._all: dict[tuple[str, int], Life] = {}
        self._latest: dict[str, Life] = {}

    def __iter__(self) -> Iterator[Life]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._all

    def get(self, key: tuple[str, int]) -> Life | None:
        return self._all.get(key)

    def of(self, life_id: str) -> list[Life]:
        """All lives of a bot, ended ones that nobody acknowledged included."""
        return [life for life in self._all.values() if life.id == life_id]

    def current(self, life_id: str) -> Life | None:
        """The live life of a bot (the latest, should a former one not have ended yet); None when it has none."""
        life = self._latest.get(life_id)
        return life if life is not None and life.live else None

    def live(self) -> int:
        """How many live."""
        return sum(life.live for life in self._all.values())

    def add(self, life: Life) -> None:
        self._all[life.key] = life
        former = self._latest.get(life.id)
        if life.live and (former is None or former.gen < life.gen):
            self._latest[life.id] = life

    def remove(self, life: Life) -> None:
        del self._all[life.key]
        if self._latest.get(life.id) is life:
            del self._latest[life.id]
