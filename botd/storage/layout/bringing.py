"""The way from whatever there is to an app/ of one release. `layout` says how it is made and why that is safe."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import folders, releases, tree
from botd.storage.layout import building, mending, plans, records
from botd.storage.layout.building import PRIVATE, SEEDING, exists
from botd.storage.layout.carrying import Carrier, notes
from botd.storage.layout.exchange import exchange
from botd.storage.layout.plans import MODULES, Links, Plan, leads_into_release
from botd.storage.layout.records import Record
from botd.storage.releases import Release

APP, NEW, PREVIOUS = "app", "app.new", "app.previous"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class Bringing:
    """One call of `layout.bring`; `bot` is a descriptor of the bot's folder, whose descriptor stays the caller's."""

    def __init__(self, paths: Paths, bot_id: str, bot: int, release: Release) -> None:
        self._paths = paths
        self._id = bot_id
        self._bot = bot
        self._release = release

    def bring(self, links: Links) -> list[str] | None:
        """Notes in words; None when all was as it should be. OSError, BotdError."""
        record = self._recover()
        if record is not None and self._is_there(record, links):
            self._keep_up(record)
            return None
        former = plan_of(self._paths, record)
        try:
            said = self._make(plans.plan(self._release, links), former)
        except OSError as error:
            if error.errno not in _NO_LINKS or _can_link(self._bot):
                raise
            said = self._make(plans.plan(self._release, "none"), former)
            said.append("the file system cannot hold symbolic links: everything is copied, private files are in app/")
        return said

    def _is_there(self, record: Record, links: Links) -> bool:
        is_it = (record.template, record.hash) == (self._release.template, self._release.hash)
        return is_it and (record.links == links or (record.links == "none" and not _can_link(self._bot)))

    # --- what an attempt that was cut short has left -----------------------------------------------------------------

    def _recover(self) -> Record | None:
        """Take up what a death has left; the record of app/ as it is then."""
        record = records.read(self._bot, APP)
        if not exists(self._bot, NEW):
            return record
        other = records.read(self._bot, NEW)
        if not exists(self._bot, APP):
            # Between the two renames, where a file system has no exchange: back, and once more.
            if exists(self._bot, PREVIOUS):
                os.rename(PREVIOUS, APP, src_dir_fd=self._bot, dst_dir_fd=self._bot)
                record = records.read(self._bot, APP)
        elif record is not None and other is not None and record.hash == self._release.hash != other.hash:
            self._put_by(NEW)
            return record
        self._remove(NEW)
        return record

    def _remove(self, name: str) -> None:
        """Nothing in app.new and app.previous is only there: what is the bot's own has its first name in app/."""
        home = tree.open_directory(self._paths.home)
        try:
            done = folders.remove(home, ("bots", *self._id.split("/"), *name.split("/")))
        finally:
            os.close(home)
        if exists(self._bot, name):
            why = done.problems[0] if done.problems else "somebody keeps making it"
            raise BotdError(
                "conflict", f"{name} of {self._id} cannot be removed: {why}", hint="look at it and move it away"
            )

    def _put_by(self, name: str) -> None:
        if exists(self._bot, PREVIOUS):
            self._remove(PREVIOUS)
        os.rename(name, PREVIOUS, src_dir_fd=self._bot, dst_dir_fd=self._bot)

    # --- a new folder ------------------------------------------------------------------------------------------------

    def _make(self, plan: Plan, former: Plan | None) -> list[str]:
        if exists(self._bot, NEW):
            self._remove(NEW)
        begun_ns = time.time_ns()
        os.mkdir(NEW, PRIVATE, dir_fd=self._bot)
        app = tree.open_below(self._bot, NEW, NEW)
        try:
            building.build(app, plan)
            crash_point("botd-app-built")
            said = self._fill(app, plan, former)
            records.write(app, Record(plan.template, plan.hash, plan.links, records.boot(), begun_ns))
            crash_point("botd-app-recorded")
        except (OSError, BotdError):
            # The disk may be full: what cannot be used shall not take its room.
            with suppress(OSError, BotdError):
                self._remove(NEW)
            raise
        finally:
            os.close(app)
        self._switch()
        self._link_modules(plan)
        return said

    def _fill(self, app: int, plan: Plan, former: Plan | None) -> list[str]:
        """The private files, and what the bot has of its own."""
        said: list[str] = []
        data = building.open_data(self._bot)
        try:
            if exists(self._bot, APP):
                said += mending.gather_both(self._bot, former, plan)
                crash_point("botd-app-gathered")
            if exists(data, SEEDING):
                self._remove(f"data/{SEEDING}")
            building.seed(data, plan, former)
            if mending.is_folder(self._bot, APP):
                carrier = Carrier(data, plan, former)
                old = tree.open_below(self._bot, APP, APP)
                try:
                    carrier.carry(old, app)
                finally:
                    os.close(old)
                crash_point("botd-app-carried")
                said += notes(carrier.done, former.hash[:12] if former is not None else "unknown")
        finally:
            os.close(data)
        return said

    def _switch(self) -> None:
        if not exists(self._bot, APP):
            os.rename(NEW, APP, src_dir_fd=self._bot, dst_dir_fd=self._bot)
            crash_point("botd-app-first")
        elif exchange(self._bot, NEW, APP):
            crash_point("botd-app-exchanged")
            self._put_by(NEW)
        else:
            self._put_by(APP)
            crash_point("botd-app-put-by")
            os.rename(NEW, APP, src_dir_fd=self._bot, dst_dir_fd=self._bot)
        crash_point("botd-app-switched")

    def _link_modules(self, plan: Plan) -> None:
        target, there = plan.modules, mending.readlink(self._bot, MODULES)
        if there == target or (there is None and exists(self._bot, MODULES)):
            return
        if there is not None and not leads_into_release(there):
            return
        if target is None:
            os.unlink(MODULES, dir_fd=self._bot)
        else:
            mending.link_over(self._bot, MODULES, target)
        crash_point("botd-app-modules")

    # --- the folder that is there ----------------------------------------------------------------------------------

    def _keep_up(self, record: Record) -> None:
        """Put back links that are gone; after a power cut, what it took."""
        plan = plans.plan(self._release, record.links)
        mending.gather(self._bot, plan)
        mending.shared_links(self._bot, plan)
        if record.boot != records.boot():
            mending.after_power_cut(self._bot, plan, record)
        self._link_modules(plan)


def plan_of(paths: Paths, record: Record | None) -> Plan | None:
    """By what a folder was made; None when that release is no more, or was none of ours."""
    if record is None:
        return None
    tree_of_it = f"{paths.release(record.template, record.hash)}/tree"
    found = plans.known(tree_of_it, record.links)
    if found is not None:
        return found
    try:
        return plans.plan(releases.load(paths, record.template, record.hash), record.links)
    except (BotdError, OSError):
        return None


def _can_link(bot: int) -> bool:
    """Whether the file system of a bot's folder holds symbolic links."""
    try:
        mending.link_over(bot, building.HALF, "x")
        os.unlink(building.HALF, dir_fd=bot)
    except OSError:
        return False
    return True
