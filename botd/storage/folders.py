"""The folders of a bot: made, measured and removed without ever following a link that somebody planted."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable

from botd.contract.errors import BotdError, invalid
from botd.contract.manifest import ID_PATTERN
from botd.contract.paths import Paths
from botd.storage import tree
from botd.storage.measure import survey

TRASH = "trash"
GRAVE_PREFIX = ".removing-"
"""Stands at the start of no user's and no bot's name."""
PRIVATE = 0o700
_ATTEMPTS = 3

_is_id = re.compile(ID_PATTERN).match


def prepare_home(paths: Paths) -> None:
    """Make the home and the folders of the daemon itself (0700); what is there already stays.

    BotdError(unavailable) when they cannot be made, (denied) when the home belongs to somebody else.
    """
    try:
        if not os.path.isdir(paths.home):
            os.makedirs(paths.home, PRIVATE, exist_ok=True)
            # Its name has to outlive a power cut as what is in it does.
            above = os.open(os.path.dirname(paths.home), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(above)
            os.close(above)
        home = tree.open_directory(paths.home)
    except OSError as error:
        raise _unavailable(paths.home, error) from error
    try:
        owner = os.fstat(home).st_uid
        if owner != os.geteuid():
            raise BotdError(
                "denied",
                f"{paths.home} belongs to uid {owner}, not to uid {os.geteuid()} who runs botd",
                hint="set BOTD_HOME to a folder of your own, or run botd as the owner of this one",
            )
        for name in ("run", "locks", "bots", "logs", TRASH):
            os.close(make(home, name, f"{paths.home}/{name}"))
    finally:
        os.close(home)


def prepare(paths: Paths, bot_id: str) -> None:
    """Make the private folders of a bot: bots/USER/NAME/data and logs/USER/NAME, all of them 0700.

    Nothing happens to those that exist, except that rights of others are taken away. BotdError: conflict when
    a link or a file stands in the way; unavailable when the disk refuses.
    """
    user, name = split(bot_id)
    try:
        home = tree.open_directory(paths.home)
    except OSError as error:
        raise _unavailable(paths.home, error) from error
    try:
        for parts in (("bots", user, name, "data"), ("logs", user, name)):
            for attempt in range(_ATTEMPTS):
                try:
                    _make_all(home, parts, paths.home)
                    break
                except BotdError as error:
                    # A clean-up was just about to remove what an earlier bot of this name has left.
                    if attempt == _ATTEMPTS - 1 or not isinstance(error.__cause__, FileNotFoundError):
                        raise
    finally:
        os.close(home)


def touch(path: str) -> None:
    """Make an empty private file, so that who needs it in a hurry finds it. BotdError(unavailable)."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _unavailable(path, error) from error


def remove(
    home: int,
    parts: tuple[str, ...],
    identity: tuple[int, int] | None = None,
    needed: Callable[[], bool] | None = None,
) -> tree.Removed:
    """Remove HOME/parts[0]/parts[1]/... and all below it; nothing happens when there is nothing.

    It is first moved into a folder of its own in trash/, which takes no time and leaves no half-removed bot behind,
    and then removed there. With `identity` (st_dev, st_ino) only that very inode is removed; `needed` is asked once
    it is out of everybody's reach, and puts it back by saying True. BotdError(conflict) when a folder on the way is a
    link, another inode stands at that place now, or it is needed.
    """
    shown = "/".join(parts)
    try:
        parent = tree.descend(home, parts[:-1])
    except FileNotFoundError:
        return tree.Removed()
    try:
        trash = make(home, TRASH, TRASH)
        try:
            grave_name = f"{GRAVE_PREFIX}{'+'.join(parts[-2:])[-200:]}.{secrets.token_hex(6)}"
            done = _remove_through(trash, grave_name, parent, parts[-1], shown, identity, needed)
        finally:
            os.close(trash)
        if done is None:
            # Its folder is a file system of its own; the grave has to be on the same one.
            done = _remove_through(
                parent, GRAVE_PREFIX + secrets.token_hex(6), parent, parts[-1], shown, identity, needed
            )
        if done is None:
            done = tree.Removed(problems=[f"{shown}: {os.strerror(errno.EXDEV)}"])
        return done
    finally:
        os.close(parent)


def usage(path: str) -> int:
    """The bytes on disk (whole blocks) of a folder and all below it; 0 when there is none. Hard links count once."""
    try:
        fd = os.open(path, tree.DIRECTORY)
    except OSError:
        return 0
    try:
        return survey(fd).bytes
    finally:
        os.close(fd)


def _remove_through(
    place: int,
    grave_name: str,
    parent: int,
    name: str,
    shown: str,
    identity: tuple[int, int] | None,
    needed: Callable[[], bool] | None,
) -> tree.Removed | None:
    """Move `name` into a new grave in the directory `place` and destroy it there; None when that is another device."""
    done = tree.Removed()
    os.mkdir(grave_name, PRIVATE, dir_fd=place)
    grave = os.open(grave_name, tree.DIRECTORY, dir_fd=place)
    try:
        _check(parent, name, shown, identity)
        bury(parent, name, grave, "0")
        try:
            _check(grave, "0", shown, identity)
            if needed is not None and needed():
                raise BotdError("conflict", f"{shown} is needed again; it was left alone")
        except BotdError:
            # Only a rename tells for certain what a name meant; what was not meant is put back.
            os.rename("0", name, src_dir_fd=grave, dst_dir_fd=parent)
            raise
        done = tree.destroy(grave, "0")
    except FileNotFoundError:
        pass  # somebody was faster
    except OSError as error:
        if error.errno == errno.EXDEV:
            return None
        done.problem(f"{shown}: {error.strerror}")
    finally:
        os.close(grave)
        _rmdir_if_empty(place, grave_name)
    return done


def _check(parent: int, name: str, shown: str, identity: tuple[int, int] | None) -> None:
    st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if identity is not None and identity != (st.st_dev, st.st_ino):
        raise BotdError("conflict", f"{shown} was replaced by something else meanwhile; it was left alone")


def bury(parent: int, name: str, grave: int, below: str) -> None:
    try:
        os.rename(name, below, src_dir_fd=parent, dst_dir_fd=grave)
    except PermissionError:
        tree.make_writable(parent, name)
        os.rename(name, below, src_dir_fd=parent, dst_dir_fd=grave)


def _make_all(home: int, parts: tuple[str, ...], shown: str) -> None:
    fd = os.dup(home)
    try:
        for part in parts:
            shown = f"{shown}/{part}"
            below = make(fd, part, shown)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def make(parent: int, name: str, shown: str) -> int:
    """A descriptor of the directory `name` in `parent`, made when it is missing, open to its owner only."""
    try:
        try:
            fd = tree.open_below(parent, name, shown)  # the usual case, and cheaper than a mkdir that fails
        except FileNotFoundError:
            try:
                os.mkdir(name, PRIVATE, dir_fd=parent)
            except FileExistsError:
                pass  # somebody else was as fast
            fd = tree.open_below(parent, name, shown)
        try:
            st = os.fstat(fd)
            if st.st_mode & 0o777 != PRIVATE and st.st_uid == os.geteuid():
                os.fchmod(fd, PRIVATE)
        except BaseException:
            os.close(fd)
            raise
        return fd
    except OSError as error:
        raise _unavailable(shown, error) from error


def remove_if_empty(home: int, parts: tuple[str, ...]) -> None:
    """Remove a folder that nothing is in; the folder of a user goes with the last bot in it."""
    try:
        parent = tree.descend(home, parts[:-1])
    except (OSError, BotdError):
        return  # nothing there that could be empty
    try:
        _rmdir_if_empty(parent, parts[-1])
    finally:
        os.close(parent)


def _rmdir_if_empty(parent: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        pass  # in use, or gone


def split(bot_id: str) -> tuple[str, str]:
    """The user and the name in an id. BotdError(invalid)."""
    if not _is_id(bot_id):
        raise invalid("id", f"{bot_id!r} is not the id of a bot")
    user, _, name = bot_id.partition("/")
    return user, name


def _unavailable(path: str, error: OSError) -> BotdError:
    return BotdError(
        "unavailable",
        f"the folder {path} cannot be made: {error.strerror}",
        hint="check its owner and rights, and the space and inodes left on its disk: df -h, df -i",
    )
