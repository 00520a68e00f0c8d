"""The checks of `botctl doctor`: each a function that returns what it found. Nothing here changes anything."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time

from botctl.absence import absent, in_trouble
from botctl.findings import FAIL, GOOD, WARN, finding
from botctl.kernel import features
from botctl.quotas import project_quota
from botctl.render.mechanisms import each
from botctl.render.panel import part
from botctl.render.units import duration, local, plural, size
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from botctl.findings import Finding
    from botctl.invocation import Invocation
    from botd.contract.paths import Paths

_KERNEL = (5, 10)
_FILES = 4096
_FREE_BYTES = 512 << 20
_FREE_INODES = 10_000


def every_check(invocation: Invocation) -> list[Finding]:
    """All findings in the order in which they make sense: {check, level, text, remedy}."""
    findings = [_python(), _kernel(), *_features(), _open_files(), _clock(), _whoami()]
    try:
        paths = invocation.paths
        findings += [_socket_path(paths), *_home(paths)]
    except BotdError as error:
        return [*findings, finding("home", FAIL, error.message, error.hint)]
    return [*findings, *_daemon(invocation)]


def _python() -> Finding:
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 - a doctor looks, it does not assume
        return finding("python", FAIL, text, "install Python 3.11 or newer")
    return finding("python", GOOD, text)


def _kernel() -> Finding:
    release = os.uname().release
    numbers = [part for part in release.replace("-", ".").split(".")[:2] if part.isdecimal()]
    if os.uname().sysname != "Linux" or len(numbers) < 2:
        return finding("kernel", FAIL, f"{os.uname().sysname} {release}", "botd runs on Linux 5.10 or newer")
    if (int(numbers[0]), int(numbers[1])) < _KERNEL:
        return finding("kernel", FAIL, f"Linux {release}", "botd needs Linux 5.10 or newer")
    return finding("kernel", GOOD, f"Linux {release}")


def _features() -> Iterator[Finding]:
    for feature in features():
        level = GOOD if feature.present else FAIL if feature.needed else WARN
        remedy = "" if feature.present else feature.remedy
        yield finding(feature.name, level, feature.text, remedy)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        text = f"{soft}, at most {hard}: enough for some {max(hard // 4 - 16, 0)} bots"
        return finding("open files", WARN, text, "ulimit -n 65536, or LimitNOFILE=65536 in the unit")
    limit = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    return finding("open files", GOOD, f"{soft:,}, botd raises it up to {limit}")


def _clock() -> Finding:
    if time.time() < 1_700_000_000:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return finding("clock", WARN, f"it says {now}", "set the clock, for example: timedatectl set-ntp true")
    return finding("clock", GOOD, time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _whoami() -> Finding:
    if os.geteuid() == 0:
        return finding(
            "user",
            WARN,
            "root: bots would run as root as well",
            "run botd as a user of its own",
        )
    return finding("user", GOOD, f"uid {os.geteuid()}")


def _socket_path(paths: Paths) -> Finding:
    try:
        paths.check_socket()
    except BotdError as error:
        return finding("socket path", FAIL, error.message, error.hint)
    return finding("socket path", GOOD, paths.socket)


def _home(paths: Paths) -> Iterator[Finding]:
    home = paths.home
    place = home
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if place != home:
        level = GOOD if os.access(place, os.W_OK | os.X_OK) else FAIL
        remedy = "" if level == GOOD else "set BOTD_HOME to a folder of your own"
        text = f"{home} is not there yet; {place} {'may' if level == GOOD else 'may not'} be written"
        yield finding("home", level, text, remedy)
    else:
        yield _owned(home)
    try:
        space, inodes = shutil.disk_usage(place), os.statvfs(place)
    except OSError as error:
        yield finding("disk", FAIL, f"{place}: {error.strerror}", "check the mount")
        return
    low = space.free < _FREE_BYTES
    text = f"{size(space.free)} free of {size(space.total)}"
    yield finding("disk", WARN if low else GOOD, text, "botctl cleanup, or a larger disk" if low else "")
    yield from project_quota(place)
    # A file system without a fixed number of inodes reports zero.
    if inodes.f_files and inodes.f_favail < _FREE_INODES:
        yield finding("inodes", WARN, f"{inodes.f_favail:,} left", "remove small files, or a larger disk")


def _owned(home: str) -> Finding:
    try:
        status = os.stat(home)
    except OSError as error:
        return finding("home", FAIL, f"{home}: {error.strerror}", "check its permissions")
    if not os.path.isdir(home):
        return finding("home", FAIL, f"{home} is no folder", "move it away, or set BOTD_HOME")
    if not os.access(home, os.R_OK | os.X_OK):
        return finding("home", WARN, f"{home} belongs to uid {status.st_uid}", "set BOTD_HOME to your own fleet")
    if status.st_mode & 0o022:
        return finding("home", FAIL, f"{home} may be written by others", f"chmod go-w {home}")
    return finding("home", GOOD, home)


def _daemon(invocation: Invocation) -> Iterator[Finding]:
    try:
        status = invocation.call("daemon.status", autostart=False)
    except BotdError as error:
        # Not running is no fault: the next command starts it. Anything else is one.
        if error.exit == Exit.UNREACHABLE and "not running" in error.message:
            error = absent(invocation.paths)
        if in_trouble(error):
            yield finding("botd", FAIL, error.message.partition("\nlog: ")[0].replace("\n", "; "), error.hint)
        else:
            yield finding("botd", GOOD, "not running; it starts when it is needed")
        if error.exit == Exit.UNREACHABLE and os.path.isdir(invocation.paths.run):
            yield _database_at_rest()
        return
    up = duration(status.get("uptime_s"))
    yield finding("botd", GOOD, f"pid {status.get('pid')}, version {status.get('version')}, up {up}")
    yield _keeper(part(status, "keeper"))
    yield from _database(part(status, "database"))
    yield from _mechanisms(status)
    yield from _told_by_daemon(status)


def _keeper(keeper: dict[str, Any]) -> Finding:
    if keeper.get("connected") is False or keeper.get("pid") is None:
        return finding("keeper", FAIL, "botd is not connected to it", "botctl daemon logs")
    damaged = keeper.get("journal_damaged")
    if damaged:
        text = f"pid {keeper['pid']}; {plural(damaged, 'line')} of its journal could not be read"
        return finding("keeper", WARN, text, "look at dmesg: a disk that damages one file damages others")
    return finding("keeper", GOOD, f"pid {keeper['pid']}, containment: {keeper.get('containment', 'unknown')}")


def _database(database: dict[str, Any]) -> Iterator[Finding]:
    """As botd sees it; what is wrong with it is among its warnings as well, but here is what to do."""
    if not database:
        return  # an older botd
    told = f"{size(database.get('size_bytes'))} and {size(database.get('log_bytes'))} of log"
    told += f", schema {database.get('schema')}"
    told += f", snapshot of {local(database['snapshot_at'])}" if database.get("snapshot_at") else ", no snapshot yet"
    if database.get("checked_at"):
        told += f", looked through at {local(database['checked_at'])}"
    if database.get("problem"):
        yield finding("database", FAIL, str(database["problem"]), str(database.get("remedy") or ""))
    elif database.get("waiting"):
        text = f"{plural(int(database['waiting']), 'event')} not on record yet: it cannot be written"
        yield finding("database", FAIL, text, "free some space: botctl cleanup, df -h")
    else:
        yield finding("database", GOOD, told)


def _database_at_rest() -> Finding:
    from botctl.offline import repaired

    try:
        report = repaired(check=True)
    except BotdError as error:
        return finding("database", FAIL, error.message, error.hint)
    if report.get("problem"):
        return finding("database", FAIL, str(report["problem"]), str(report.get("remedy") or "botctl daemon repair"))
    return finding("database", GOOD, "sound")


def _mechanisms(status: dict[str, Any]) -> Iterator[Finding]:
    """By what each limit holds, and how to get something better."""
    for name, mode, by, remedy in each(status):
        level = GOOD if mode == "enforced" else WARN
        yield finding(name, level, f"{mode}: {by}", remedy if level == WARN else "")


def _told_by_daemon(status: dict[str, Any]) -> Iterator[Finding]:
    found = status.get("warnings")
    for warning in found if isinstance(found, list) else ():
        if isinstance(warning, dict):
            yield finding("warning", WARN, str(warning.get("text")), str(warning.get("remedy") or ""))
        else:
            yield finding("warning", WARN, str(warning))
