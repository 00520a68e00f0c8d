"""A bot's folder, made from a release: app/, which the program runs in, and data/, which survives everything.

    bots/USER/BOT/app/           real folders, copies of the first-party files, one link for each shared unit, and a
                                 link into ../data for each private path; .botd-release says which release it is
    bots/USER/BOT/data/          what is the bot's own
    bots/USER/BOT/node_modules   one link to the shared dependencies: what a node_modules of the bot's own lacks is
                                 found there by node itself, one folder further up
    bots/USER/BOT/app.new/       an app/ being made; or, for an instant, the former one
    bots/USER/BOT/app.previous/  the former one

A folder is made beside app/ and takes its place in one step, its record written last, so that a death at any instant
leaves the former app/ or the new one. Nothing is fsynced: all that a power cut can take is the content of copies, and
their originals are in the release. Which is why the record names the boot: the first time after another one the
copies are looked over. What the bot wrote itself has but a second name in the new folder.

The program of a bot may write what it likes into its own folder, so everything here goes by descriptors and follows
no link; and the record decides about this bot's folder alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.storage import folders, tree
from botd.storage.layout import mending, records
from botd.storage.layout.bringing import APP, Bringing, plan_of
from botd.storage.measure import survey
from botd.storage.releases import Release

_one_at_a_time = Lock()
"""A bot's folder is changed by one thread. One lock for all: they would wait for the same disk anyway."""


@dataclass(frozen=True, slots=True)
class Brought:
    """`changed`: app/ is another folder than before; `notes`: in words, what its owner should know."""

    changed: bool
    notes: list[str] = field(default_factory=list)


def current(paths: Paths, bot_id: str) -> tuple[str, str] | None:
    """The template and the release of a bot's folder as it says itself; None when it has none.

    The bot can write there: good for showing and for its own folder, not for what others depend on.
    """
    try:
        with _folder_of(paths, bot_id) as bot:
            record = records.read(bot, APP)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unavailable(bot_id, error) from error
    return None if record is None else (record.template, record.hash)


def cost(paths: Paths, bot_id: str) -> tuple[int, int]:
    """What a bot's folder takes of the disk: bytes (whole blocks) and inodes, with data/, without what it links to."""
    try:
        with _folder_of(paths, bot_id) as bot:
            found = survey(bot)
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise _unavailable(bot_id, error) from error
    return found.bytes, found.entries


def gather(paths: Paths, bot_id: str) -> list[str]:
    """Move private files that the program replaced by others (a temporary one renamed over the link) into data/.

    They are the newer truth. The paths that were moved. Call it when no program of the bot runs. BotdError: conflict
    when a link stands where a folder of data/ belongs.
    """
    with _one_at_a_time:
        try:
            with _folder_of(paths, bot_id) as bot:
                record = records.read(bot, APP)
                plan = plan_of(paths, record)
                return [] if plan is None else mending.gather(bot, plan)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable(bot_id, error) from error


def bring(paths: Paths, bot_id: str, release: Release, *, links: bool = True) -> Brought:
    """Make a bot's folder one of this release, whatever is there: nothing, another release, a half-made folder.

    The only function that changes app/. A rollback is a `bring` of the former release. Call it when no program of the
    bot runs; blocks for milliseconds (seconds with `links=False`: full copies). BotdError: conflict when links or
    files stand where folders belong, unavailable when the disk refuses; app/ is as before then.
    """
    with _one_at_a_time:
        try:
            with _folder_of(paths, bot_id, make=True) as bot:
                said = Bringing(paths, bot_id, bot, release).bring("shared" if links else "private")
                return Brought(said is not None, said or [])
        except OSError as error:
            raise _unavailable(bot_id, error, f"release {release.hash[:12]} of {release.template}") from error


# --- small things ---------------------------------------------------------------------------------------------------


@contextmanager
def _folder_of(paths: Paths, bot_id: str, make: bool = False) -> Iterator[int]:
    """A descriptor of bots/USER/BOT for the time of a `with`. FileNotFoundError when there is none."""
    user, name = folders.split(bot_id)
    home = tree.open_directory(paths.home)
    try:
        try:
            bot = tree.descend(home, ("bots", user, name))
        except FileNotFoundError:
            if not make:
                raise
            folders.prepare(paths, bot_id)
            bot = tree.descend(home, ("bots", user, name))
    finally:
        os.close(home)
    try:
        yield bot
    finally:
        os.close(bot)


def _unavailable(bot_id: str, error: OSError, what: str | None = None) -> BotdError:
    where = f"{error.filename}: " if error.filename is not None and isinstance(error.filename, str) else ""
    made = "cannot be read" if what is None else f"cannot be made from {what}"
    return BotdError(
        "unavailable",
        f"the folder of {bot_id} {made}: {where}{error.strerror}",
        hint="check the space and inodes left on its disk (df -h, df -i), and who owns what is in it",
    )
