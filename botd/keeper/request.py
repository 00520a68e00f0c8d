"""Checking what botd asks for, before anything is done: every field of a START, of the right type and within bounds."""

from __future__ import annotations

import os

from botd.keeper import limits
from botd.keeper.launch import Command
from botd.keeper.logs import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from botd.keeper.wire import Message

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
_ID_LIMIT = 128
_MAX_SIGNAL = 64
_MAX_ID = 2**32 - 2


class Invalid(ValueError):
    """A message that asks for something impossible; the text says which field and why."""


class Start:
    """A START that passed every check. `log` is (folder, limits), `lock` an absolute path."""

    __slots__ = ("amended", "command", "gen", "id", "limits", "lock", "log")

    def __init__(self, message: Message, nofile: tuple[int, int]) -> None:
        self.id, self.gen = life_of(message)
        self.lock = _path(message, "lock")
        self.log = log_of(message.get("log"))
        self.limits, self.amended = bounds_of(message), False
        argv = message.get("argv")
        if not isinstance(argv, list) or not argv or not argv[0]:
            raise Invalid("argv: a list of at least one text is needed")
        env = message.get("env")
        if not isinstance(env, dict):
            raise Invalid("env: an object is needed")
        for name in env:
            if not name or "=" in name:
                raise Invalid(f"env: {name!r} cannot be a variable's name")
        uid, gid = (_number(message, name, 0, _MAX_ID) for name in ("uid", "gid"))
        if (uid is None) != (gid is None):
            raise Invalid("uid and gid: both or neither")
        wanted = _number(message, "nofile", 0, 2**31)
        if wanted is not None:
            nofile = (min(wanted, nofile[1]), nofile[1]) if os.geteuid() else (wanted, max(wanted, nofile[1]))
        self.command = Command(
            [_bytes(a, "argv") for a in argv],
            {_bytes(k, "env"): _bytes(v, "env") for k, v in env.items()},
            _bytes(_path(message, "cwd"), "cwd"),
            uid,
            gid,
            nofile,
        )


def life_of(message: Message) -> tuple[str, int]:
    """The (id, generation) that a message is about."""
    gen = message.get("gen")
    if type(gen) is not int or not 0 <= gen < 2**53:
        raise Invalid("gen: a whole number from 0 up is needed")
    return id_of(message), gen


def id_of(message: Message) -> str:
    life_id = message.get("id")
    if (
        not isinstance(life_id, str)
        or not life_id
        or len(life_id) > _ID_LIMIT
        or not _ID_CHARACTERS.issuperset(life_id)
    ):
        raise Invalid("id: letters, digits, '.', '_', '-' and '/' are needed")
    if any(part in ("", ".", "..") for part in life_id.split("/")):
        raise Invalid("id: no part of it may be empty or made of dots")
    return life_id


def bounds_of(message: Message) -> limits.Limits:
    """What the life may use."""
    try:
        return limits.parse(message.get("limits"))
    except ValueError as error:
        raise Invalid(str(error)) from None


def signal_of(message: Message) -> int:
    number = _number(message, "signal", 1, _MAX_SIGNAL)
    if number is None:
        raise Invalid("signal: a number is needed")
    return number


def seconds_of(message: Message, name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise Invalid(f"{name}: seconds from 0 up are needed")
    return float(value)


def log_of(log: object) -> tuple[str, Limits]:
    if not isinstance(log, dict):
        raise Invalid("log: an object with dir, max_bytes and keep is needed")
    return _path(log, "dir"), limits_of(log)


def limits_of(message: Message) -> Limits:
    """When log files rotate: max_bytes, keep and (if it is there) max_age_s of a message."""
    max_bytes, keep = _number(message, "max_bytes", 1, 2**53), _number(message, "keep", 0, 1000)
    if max_bytes is None or keep is None:
        raise Invalid("max_bytes and keep: numbers are needed")
    return Limits(max_bytes, keep, seconds_of(message, "max_age_s") if message.get("max_age_s") is not None else 0.0)


def _number(message: Message, name: str, low: int, high: int) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise Invalid(f"{name}: a whole number from {low} to {high} is needed")
    return value


def _path(message: Message, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value.startswith("/"):
        raise Invalid(f"{name}: an absolute path is needed")
    _bytes(value, name)
    return value


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise Invalid(f"{name}: only texts are possible")
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Invalid(f"{name}: not encodable as UTF-8") from None
    if b"\0" in data:
        raise Invalid(f"{name}: a NUL byte")
    return data
