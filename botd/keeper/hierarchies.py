"""Where this process stands in the control groups: the one v2 hierarchy and, controller by controller, the v1 ones.

Pure functions of what /proc/self/cgroup and /proc/self/mountinfo say, so that every kind of machine can be tested on
any: v2 alone, v1 alone, both at once (hybrid), in a container, in a cgroup namespace, delegated to a user.
"""

from __future__ import annotations

from botd.keeper import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Hierarchies:
    """`v2`: this process's own folder in the cgroup2 mount, None when there is none in sight; `v1`: likewise for each
    controller that has a hierarchy of the old kind. Controllers that are mounted together have the same folder."""

    __slots__ = ("v1", "v2")

    def __init__(self, v2: str | None, v1: dict[str, str]) -> None:
        self.v2, self.v1 = v2, v1


def own() -> Hierarchies:
    """Those of this process; none at all where /proc does not tell."""
    try:
        groups = proc.read("/proc/self/cgroup").decode("utf-8", "surrogateescape")
        mounts = proc.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape")
    except OSError:
        return Hierarchies(None, {})
    return parse(groups, mounts)


def parse(groups: str, mounts: str) -> Hierarchies:
    """What the texts of /proc/self/cgroup and /proc/self/mountinfo say. Lines that make no sense are passed over."""
    mounted = list(_mounts(mounts))
    v2, v1 = None, {}
    for line in groups.splitlines():
        number, colon, rest = line.partition(":")
        names, second, path = rest.partition(":")
        if not colon or not second or not path.startswith("/"):
            continue
        if number == "0" and not names:
            v2 = _visible(path, [m for m in mounted if m[0] == "cgroup2"])
            continue
        wanted = {name for name in names.split(",") if name and "=" not in name}
        folder = _visible(path, [m for m in mounted if m[0] == "cgroup" and wanted and wanted <= m[1]])
        if folder is not None:
            v1.update(dict.fromkeys(sorted(wanted), folder))
    return Hierarchies(v2, v1)


def _mounts(text: str) -> Iterator[tuple[str, set[str], bool, str, str]]:
    """(type, super options, writable, root, mount point) of each mount of control groups."""
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(tail) < 3 or tail[0] not in ("cgroup", "cgroup2"):
            continue
        options = set(tail[2].split(","))
        writable = "ro" not in fields[5].split(",") and "ro" not in options
        yield tail[0], options, writable, _plain(fields[3]), _plain(fields[4])


def _visible(path: str, mounted: list[tuple[str, set[str], bool, str, str]]) -> str | None:
    """The folder of group `path`, in a mount that can be written to if there is one."""
    # What lies outside of the cgroup namespace is shown with dots, and cannot be reached.
    if ".." in path.split("/"):
        return None
    for _type, _options, _writable, root, point in sorted(mounted, key=lambda mount: not mount[2]):
        above = root.rstrip("/")
        if ".." not in root.split("/") and (path == root or path.startswith(above + "/")):
            return point.rstrip("/") + path[len(above) :].rstrip("/")
    return None


def _plain(text: str) -> str:
    """mountinfo writes blanks, tabs, newlines and backslashes as three octal digits."""
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else "\\" + part for part in rest)


def keyed(text: bytes) -> dict[str, int]:
    """The numbers of a file of "name value" lines (memory.events, pids.events, memory.oom_control)."""
    found = {}
    for line in text.decode("ascii", "replace").splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def amount(text: bytes) -> int | None:
    """The number in a file that holds one; None for "max", for -1 and for the v1 kernel's largest one: no limit."""
    word = text.strip()
    if not word.isdigit():
        return None
    number = int(word)
    return None if number >= _NO_LIMIT else number


_NO_LIMIT = 1 << 62
