"""What is left of bots that are no more, and of former releases of those that are. This module only looks.

Nothing of a bot that exists is ever in the list but what its folder was built from before (app.previous, app.new); and
nothing that the database or a note in the trash still promises to keep.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from botd.core.settings import Cleaning
from botd.storage import folders, trashcan, tree
from botd.storage.items import Claim, Folder, Item, Kind, ago, changed_at, is_id, item, span, survey_of
from botd.storage.measure import Survey

_FORMER = {
    "app.previous": "the folder of the release before",
    "app.new": "the beginning of a folder that nobody finished",
}


class Remains:
    """One round of looking, with what all of it needs. `now`: seconds since the epoch."""

    def __init__(
        self, home: int, known: frozenset[str], claims: Mapping[str, Claim], now: float, cleaning: Cleaning
    ) -> None:
        self._home = home
        self._known = known
        self._claims = claims
        self._claimed = {claim.id for claim in claims.values()}
        self._now = now
        self._cleaning = cleaning

    def orphans(self) -> Iterator[Item]:
        """The folders of bots that are no more."""
        kinds: tuple[tuple[str, Kind], ...] = (("bots", "bot folder"), ("logs", "log folder"))
        for top, kind in kinds:
            with Folder(self._home, (top,)) as users:
                for user, st in users.entries():
                    if not stat.S_ISDIR(st.st_mode):
                        yield item(f"{top}/{user}", kind, st, "not a folder that botd made", False)
                        continue
                    with Folder(self._home, (top, user)) as bots:
                        for name, st in bots.entries():
                            found = self._orphan(bots.fd, f"{top}/{user}/{name}", kind, f"{user}/{name}", name, st)
                            if found is not None:
                                yield found

    def _orphan(self, parent: int, path: str, kind: Kind, id: str, name: str, st: os.stat_result) -> Item | None:
        if name.startswith(folders.GRAVE_PREFIX):
            return self._cut_short(parent, path, name, st)
        if name.startswith(trashcan.ELSEWHERE_PREFIX):
            key = name.removeprefix(trashcan.ELSEWHERE_PREFIX)
            return None if key in self._claims else self._unclaimed(parent, path, name, st)
        if id in self._known:
            return None
        if not is_id(id) or not stat.S_ISDIR(st.st_mode):
            return item(path, kind, st, "not a folder that botd made", False)
        if id in self._claimed:
            reason = "its bot was deleted, and it could not be moved to the trash; the next start of botd tries again"
            return item(path, kind, st, reason, False, id)
        found = survey_of(parent, name)
        reason, remove = self._judge(found, st, "its bot no longer exists", self._cleaning.max_file_age_s)
        return Item(path, kind, found.bytes, reason, remove, id, kind == "bot folder", (st.st_dev, st.st_ino))

    def _judge(self, found: Survey, st: os.stat_result, what: str, age_s: float) -> tuple[str, bool]:
        """The reason, and whether it goes."""
        age = self._now - found.changed_at
        if not self._cleaning.garbage_collection:
            return f"{what}, and enableGarbageCollection is off", False
        if not found.complete:
            return f"{what}, but part of it cannot be read or is another file system", False
        if os.geteuid() not in (0, st.st_uid):
            return f"{what}, but it belongs to uid {st.st_uid}", False
        if age <= age_s:
            return f"{what}; changed {ago(age)}, kept until {span(age_s)} have passed", False
        return f"{what}; last changed {ago(age)}", True

    def trash(self) -> Iterator[Item]:
        """Deleted bots, and what removals that were cut short have left."""
        with Folder(self._home, (folders.TRASH,)) as folder:
            for name, st in folder.entries():
                path = f"{folders.TRASH}/{name}"
                if name in self._claims:
                    found = self._deleted(folder.fd, path, name, st, self._claims[name])
                elif trashcan.is_key(name):
                    found = self._unclaimed(folder.fd, path, name, st)
                else:
                    found = self._cut_short(folder.fd, path, name, st)
                if found is not None:
                    yield found

    def _deleted(self, parent: int, path: str, name: str, st: os.stat_result, claim: Claim) -> Item | None:
        if claim.until_wall is None:
            return None  # it is just coming back, or going
        size = survey_of(parent, name).bytes if claim.bytes is None else claim.bytes
        left = claim.until_wall - self._now
        if left > 0:
            how_long = "for ever" if left == float("inf") else f"for another {span(left)}"
            reason, remove = f"it can be brought back (botctl undelete {claim.id}); kept {how_long}", False
        elif not self._cleaning.garbage_collection:
            reason, remove = "it has been kept as long as was promised, and enableGarbageCollection is off", False
        else:
            reason, remove = f"it has been kept as long as was promised; that was over {ago(-left)}", True
        return Item(path, "deleted bot", size, reason, remove, claim.id, True, (st.st_dev, st.st_ino))

    def _unclaimed(self, parent: int, path: str, name: str, st: os.stat_result) -> Item | None:
        """In the trash under a deletion's name, and no record and no note says whose: the data may be all there is."""
        found = survey_of(parent, name)
        age_s = max(self._cleaning.delete_grace_s, self._cleaning.max_file_age_s)
        reason, remove = self._judge(found, st, "a deleted bot that no record knows", age_s)
        return Item(path, "trash", found.bytes, reason, remove, None, True, (st.st_dev, st.st_ino))

    def _cut_short(self, parent: int, path: str, name: str, st: os.stat_result) -> Item | None:
        age = self._now - changed_at(st)
        if age <= self._cleaning.max_file_age_s:
            return None  # it may be a removal under way
        size = survey_of(parent, name).bytes if stat.S_ISDIR(st.st_mode) else st.st_blocks * tree.BLOCK
        reason = f"left by a removal that was cut short; {ago(age)}"
        return Item(path, "trash", size, reason, True, identity=(st.st_dev, st.st_ino))

    def former(self) -> Iterator[Item]:
        """What bots that exist have been built from before."""
        for id in sorted(self._known):
            user, _, name = id.partition("/")
            with Folder(self._home, ("bots", user, name)) as folder:
                for part, what in _FORMER.items():
                    st = folder.stat(part)
                    if st is None or not stat.S_ISDIR(st.st_mode):
                        continue
                    found = survey_of(folder.fd, part)
                    # A rename changes the folder's own ctime only, and a build everything else.
                    found.changed_at = max(found.changed_at, changed_at(st))
                    reason, remove = self._judge(found, st, what, self._cleaning.max_file_age_s)
                    path = f"bots/{id}/{part}"
                    yield Item(path, "app folder", found.bytes, reason, remove, id, False, (st.st_dev, st.st_ino))
