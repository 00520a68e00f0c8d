"""What the machine has and what is left of it; inside a container its limits count where they are tighter."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from botd.system.procfs import PAGE, TICKS_PER_S, parse_stat

# cgroup v1 says "no limit" with the largest page-aligned number.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that programs may use in all and those in use, page cache that can be dropped not counted."""

    total_bytes: int
    used_bytes: int

    @property
    def available_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    @property
    def percent(self) -> float:
        return 100.0 * self.used_bytes / self.total_bytes if self.total_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: `free_bytes` is what somebody without privileges may still write, inodes likewise."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses: resident bytes, and seconds of processor time since it started."""

    memory_bytes: int
    cpu_s: float


class Machine:
    """Reads /proc and the cgroup file systems under `root` (a fixture in tests). Every call reads anew."""

    __slots__ = ("_groups", "_proc", "_root")

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._proc = f"{root}/proc"
        self._groups: list[_MemoryGroup] | None = None

    def memory(self) -> Memory:
        """The memory of the machine, or of the container where that is less. OSError when /proc cannot be read."""
        total, available = parse_meminfo(_read(f"{self._proc}/meminfo"))
        if self._groups is None:
            self._groups = self._find_groups()
        for group in self._groups:
            limit, used = group.read()
            if limit is None or limit >= total:
                continue
            available = min(available, max(0, limit - used))
            total = limit
        return Memory(total, total - min(available, total))

    def memory_percent(self) -> float:
        """How much of the memory is in use, 0..100: what memoryThreshold is compared with."""
        return self.memory().percent

    def load(self) -> tuple[float, float, float]:
        """The load averages over 1, 5 and 15 minutes."""
        return os.getloadavg()

    def cpu_count(self) -> int:
        """Processors that this process may run on."""
        return len(os.sched_getaffinity(0))

    def uptime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def disk(self, path: str) -> Disk:
        """The file system that `path` is on. OSError when there is no such path."""
        st = os.statvfs(path)
        size = st.f_frsize
        return Disk(st.f_blocks * size, (st.f_blocks - st.f_bfree) * size, st.f_bavail * size, st.f_files, st.f_favail)

    def process(self, pid: int | None = None) -> Usage | None:
        """What a process (default: this one) uses; None when it is gone."""
        try:
            stat = parse_stat(_read(f"{self._proc}/{'self' if pid is None else pid}/stat"))
        except OSError:
            return None
        return None if stat is None else Usage(stat.rss_pages * PAGE, stat.cpu_ticks / TICKS_PER_S)

    def pressure(self) -> dict[str, float]:
        """Percent of the last ten seconds in which something had to wait, by resource: cpu, memory, io.

        Empty where the kernel keeps no pressure figures.
        """
        found = {}
        for resource in ("cpu", "memory", "io"):
            try:
                value = parse_pressure(_read(f"{self._proc}/pressure/{resource}"))
            except OSError:
                continue
            if value is not None:
                found[resource] = value
        return found

    def _find_groups(self) -> list[_MemoryGroup]:
        """Every memory group that this process is in, up to the outermost visible one: each may have the limit."""
        try:
            places = parse_cgroups(_read(f"{self._proc}/self/cgroup"), _read(f"{self._proc}/self/mountinfo"))
        except OSError:
            return []
        groups = []
        for version, mount, inner in places:
            parts = [part for part in inner.split("/") if part]
            for depth in range(len(parts), -1, -1):
                group = _MemoryGroup(version, self._root + "/".join([mount, *parts[:depth]]))
                if group.exists():
                    groups.append(group)
        return groups


class _MemoryGroup:
    """One folder of the memory controller, version 1 or 2."""

    __slots__ = ("_cache", "_limit", "_stat", "_usage")

    def __init__(self, version: int, folder: str) -> None:
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        self._limit, self._usage = (f"{folder}/{name}" for name in names)
        self._stat = f"{folder}/memory.stat"
        self._cache = b"inactive_file" if version == 2 else b"total_inactive_file"

    def exists(self) -> bool:
        return os.path.exists(self._limit)

    def read(self) -> tuple[int | None, int]:
        """The limit (None: none) and the bytes in use, without file pages that would be dropped first."""
        try:
            limit = parse_limit(_read(self._limit))
            if limit is None:
                return None, 0
            usage = int(_read(self._usage))
            return limit, max(0, usage - parse_key(_read(self._stat), self._cache))
        except (OSError, ValueError):
            return None, 0


def parse_meminfo(raw: bytes) -> tuple[int, int]:
    """/proc/meminfo -> total and available bytes."""
    figures = {}
    for line in raw.split(b"\n"):
        key, _, rest = line.partition(b":")
        if key in (b"MemTotal", b"MemAvailable", b"MemFree"):
            figures[key] = int(rest.split()[0]) * 1024
    total = figures.get(b"MemTotal", 0)
    # Some sandboxes leave MemAvailable out.
    return total, min(total, figures.get(b"MemAvailable", figures.get(b"MemFree", 0)))


def parse_limit(raw: bytes) -> int | None:
    """The content of memory.max or memory.limit_in_bytes -> bytes, None for no limit. ValueError for anything else."""
    word = raw.strip()
    if word == b"max":
        return None
    limit = int(word)
    return None if limit >= _NO_LIMIT else limit


def parse_key(raw: bytes, key: bytes) -> int:
    """The figure of `key` in a file of "key value" lines; 0 when it is not there."""
    for line in raw.split(b"\n"):
        name, _, value = line.partition(b" ")
        if name == key:
            return int(value)
    return 0


def parse_pressure(raw: bytes) -> float | None:
    """A file of /proc/pressure -> `some avg10` in percent."""
    for line in raw.split(b"\n"):
        if line.startswith(b"some "):
            for word in line.split():
                if word.startswith(b"avg10="):
                    return float(word[6:])
    return None


def parse_cgroups(cgroup: bytes, mountinfo: bytes) -> list[tuple[int, str, str]]:
    """/proc/self/cgroup and mountinfo -> (version, mount point, path below it) where memory limits may stand."""
    own: dict[int, str] = {}
    for line in os.fsdecode(cgroup).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            own[2] = path
        elif "memory" in controllers.split(","):
            own[1] = path
    places: dict[int, tuple[int, str, str]] = {}
    for line in os.fsdecode(mountinfo).splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        version = 2 if kind[0] == "cgroup2" else 1 if kind[0] == "cgroup" and "memory" in kind[2].split(",") else 0
        if version not in own or version in places:
            continue
        root, mount = _unescape(fields[3]).rstrip("/"), _unescape(fields[4])
        # A container often sees its own group as the root of the mount; its path is then told from outside.
        path = own[version]
        inner = path[len(root) :] if path == root or path.startswith(root + "/") else ""
        if "/.." not in inner:
            places[version] = (version, mount.rstrip("/"), inner)
    return list(places.values())


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        raw = os.read(fd, 1 << 20)
        while more := os.read(fd, 1 << 20):  # files of /proc come in pieces
            raw += more
        return raw
    finally:
        os.close(fd)
