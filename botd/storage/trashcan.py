"""The folders of deleted bots, kept for their grace age: HOME/trash/KEY/bot, .../logs, and a note beside them.

Everything here is a rename or two, takes no time, and can be done again after a death at any instant: who asks says
where the folders belong, and they are moved as far as they are not there yet. A key is a name that `key_of` made.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.crash import crash_point
from botd.storage import folders, tree
from botd.storage.measure import survey

NOTE = "bot.json"
"""What is known of the bot, should the database lose it. Secrets stand in the database only."""
ELSEWHERE_PREFIX = ".deleted-"
"""Before the key, where bots/USER is a file system of its own: a rename cannot leave it. No bot's name begins so."""
_NOTE_MAX = 2 << 20
_PARTS = (("bots", "bot"), ("logs", "logs"))

_is_key = re.compile(r"\A[a-z0-9][a-z0-9._-]{0,31}\+[a-z0-9][a-z0-9._-]{0,62}\.[0-9a-f]{8,16}\Z").match


def key_of(bot_id: str, token: str) -> str:
    """The name of one deletion of this bot; `token`: 8 to 16 hexadecimal digits that no other one has."""
    return f"{bot_id.replace('/', '+')}.{token}"


def is_key(text: str) -> bool:
    return _is_key(text) is not None


def put(paths: Paths, key: str, bot_id: str, note: str) -> list[str]:
    """Take the folders of a bot that is no more out of everybody's reach, into the trash. What could not be, in words.

    A new bot of the same id may be made right after. Nothing happens to what is there already.
    """
    user, name = folders.split(bot_id)
    problems: list[str] = []
    home = tree.open_directory(paths.home)
    try:
        entry = _entry(home, key)
        try:
            _write_note(entry, note)
            crash_point("botd-remove-noted")
            for top, part in _PARTS:
                try:
                    _move(home, (top, user), name, entry, part, f"{ELSEWHERE_PREFIX}{key}")
                except (BotdError, OSError) as error:
                    problems.append(f"{top}/{bot_id}: {_words(error)}")
                else:
                    folders.remove_if_empty(home, (top, user))
                crash_point(f"botd-remove-{part}")
        finally:
            os.close(entry)
    finally:
        os.close(home)
    return problems


def take_back(paths: Paths, key: str, bot_id: str) -> list[str]:
    """Give the folders to a bot, which need not have the id that they had. What could not be, in words.

    Nothing that stands in their place is replaced, but empty folders.
    """
    user, name = folders.split(bot_id)
    former = key.partition("+")[0]
    problems: list[str] = []
    home = tree.open_directory(paths.home)
    try:
        for top, part in _PARTS:
            try:
                below = folders.make(home, top, top)
                try:
                    goal = folders.make(below, user, f"{top}/{user}")
                finally:
                    os.close(below)
                try:
                    for place in ((folders.TRASH, key, part), (top, former, f"{ELSEWHERE_PREFIX}{key}")):
                        _put_back(home, place, goal, name)
                finally:
                    os.close(goal)
            except (BotdError, OSError) as error:
                problems.append(f"{top}/{bot_id}: {_words(error)}")
            crash_point(f"botd-undelete-{part}")
        if not problems:
            folders.remove(home, (folders.TRASH, key))
    finally:
        os.close(home)
    return problems


def remove(paths: Paths, key: str) -> tree.Removed:
    """Remove all of it for good; blocks. It first gives up its name, so that none of it is ever half there."""
    done = tree.Removed()
    home = tree.open_directory(paths.home)
    try:
        for parts in _places(key):
            try:
                part = folders.remove(home, parts)
            except BotdError as error:
                if parts[0] == folders.TRASH:
                    done.problem(error.message)
                continue  # a link in the place of a user's folder: nothing of ours is behind it
            done.entries += part.entries
            done.bytes += part.bytes
            done.problems += part.problems
            if parts[0] != folders.TRASH:
                folders.remove_if_empty(home, parts[:-1])
    finally:
        os.close(home)
    return done


def measure(paths: Paths, key: str) -> int:
    """The bytes on disk (whole blocks) of all of it; blocks."""
    total = 0
    home = tree.open_directory(paths.home)
    try:
        for parts in _places(key):
            try:
                fd = tree.descend(home, parts)
            except (BotdError, OSError):
                continue
            try:
                total += survey(fd).bytes
            finally:
                os.close(fd)
    finally:
        os.close(home)
    return total


def notes(paths: Paths) -> Iterator[tuple[str, str]]:
    """(key, note) of everything in the trash that has one: what can be told without the database."""
    try:
        home = tree.open_directory(paths.home)
    except OSError:
        return
    try:
        trash = tree.descend(home, (folders.TRASH,))
    except (BotdError, OSError):
        return
    finally:
        os.close(home)
    try:
        for name in sorted(os.listdir(trash)):
            if is_key(name) and (note := read_note(trash, name)) is not None:
                yield name, note
    finally:
        os.close(trash)


def read_note(trash: int, key: str) -> str | None:
    """The note beside one deleted bot, of which only the owner of the trash vouches; None when there is none."""
    try:
        entry = tree.open_below(trash, key, key)
    except (BotdError, OSError):
        return None
    try:
        fd = os.open(NOTE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=entry)
    except OSError:
        return None
    finally:
        os.close(entry)
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode) or st.st_size > _NOTE_MAX:
            return None
        return os.read(fd, _NOTE_MAX).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def occupied(paths: Paths, bot_id: str) -> bool:
    """Whether folders of a bot of this id, which does not exist, are in the way of one that comes back."""
    for path in (paths.bot(bot_id), paths.bot_logs(bot_id)):
        try:
            if any(True for _ in os.scandir(path)):
                return True
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False


def _places(key: str) -> tuple[tuple[str, ...], ...]:
    user = key.partition("+")[0]
    return (folders.TRASH, key), *((top, user, f"{ELSEWHERE_PREFIX}{key}") for top, _ in _PARTS)


def _entry(home: int, key: str) -> int:
    trash = folders.make(home, folders.TRASH, folders.TRASH)
    try:
        return folders.make(trash, key, f"{folders.TRASH}/{key}")
    finally:
        os.close(trash)


def _write_note(entry: int, note: str) -> None:
    """Whole or not at all; it is the second copy, so nobody waits for the disk."""
    try:
        os.stat(NOTE, dir_fd=entry, follow_symlinks=False)
        return
    except FileNotFoundError:
        pass
    new = f"{NOTE}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=entry)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(note.encode())
    finally:
        os.close(fd)
    os.rename(new, NOTE, src_dir_fd=entry, dst_dir_fd=entry)


def _move(home: int, folder: tuple[str, ...], name: str, entry: int, part: str, elsewhere: str) -> None:
    try:
        parent = tree.descend(home, folder)
    except FileNotFoundError:
        return
    try:
        try:
            folders.bury(parent, name, entry, part)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            folders.bury(parent, name, parent, elsewhere)
    finally:
        os.close(parent)


def _put_back(home: int, place: tuple[str, ...], goal: int, name: str) -> None:
    try:
        parent = tree.descend(home, place[:-1])
    except FileNotFoundError:
        return
    try:
        try:
            os.stat(place[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        _clear(goal, name)
        folders.bury(parent, place[-1], goal, name)
    finally:
        os.close(parent)


def _clear(parent: int, name: str) -> None:
    """Remove what a start has made in advance, if nothing was ever put into it: only empty folders can be."""
    try:
        fd = tree.open_below(parent, name, name)
    except (BotdError, OSError):
        return  # nothing there, or nothing that a rename would replace
    try:
        os.rmdir("data", dir_fd=fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, BotdError) else getattr(error, "strerror", None) or str(error)
