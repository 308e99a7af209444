"""How many CPUs this process may really use: its affinity, and the CPU quota of its cgroups.

A quota is CPU time per period: "150000 100000" is 150 ms in every 100 ms, one and a half CPUs. A container may run
on every CPU of the machine and still have a quota of one, and `os.cpu_count()` knows nothing of it.

Where a quota stands:

    /proc/self/cgroup       in which cgroup this process is, once per hierarchy   "0::/pod/web"
    /proc/self/mountinfo    where which hierarchy is mounted, and from which of its cgroups on (the mount's *root*)
    <cgroup>/cpu.max        version 2, "quota period" or "max period"
    <cgroup>/cpu.cfs_*_us   version 1, quota and period in a file each, quota -1 for none

A limit of any ancestor binds too, so every cgroup from our own up to the mount point is read and the tightest
counts. Both versions may be mounted at once (hybrid): the CPU controller is in one of them, and the other has none of
these files.

Nothing here raises or remembers: what is missing or malformed is no limit, and every call reads anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["affinity", "cgroup_quota", "usable"]

_ROOT = Path("/")


def affinity() -> int:
    """The number of CPUs that the operating system lets this process run on, at least 1.

    On Linux it is the affinity of the process (its main thread), whichever thread asks: `sched_getaffinity(0)` would
    answer for the calling thread, and a pinned thread must not size the pool of everyone.
    """
    try:
        return max(1, len(os.sched_getaffinity(os.getpid())))
    except (AttributeError, OSError):  # not Linux; or a sandbox that refuses the system call
        return os.cpu_count() or 1


def cgroup_quota(root: Path = _ROOT) -> float | None:
    """The tightest CPU quota of this process's cgroups, in CPUs; None where there is no limit.

    `root` is the directory that holds `proc` and `sys`, so that a test can bring its own.
    """
    quotas = (_quota_of(cgroup) for cgroup in _cgroups(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def usable(root: Path = _ROOT) -> int:
    """The number of CPUs that this process can keep busy, at least 1: affinity, bounded by the cgroup quota."""
    return _within(affinity(), cgroup_quota(root))


def _within(cpus: int, quota: float | None) -> int:
    """Bound a number of CPUs by a quota, rounded down.

    Down, as Uber's automaxprocs does (Go's own runtime, the JVM and dask round up): with a quota of 2.5, three busy
    threads use up a period's time before it ends, and then the kernel stops *all* threads for the rest of it, the one
    with the event loop too: up to a sixth of each 100 ms. Two leave it the half CPU and are never stopped.

    >>> _within(8, None), _within(8, 2.5), _within(8, 0.5), _within(2, 16.0)
    (8, 2, 1, 2)
    """
    return cpus if quota is None else max(1, min(cpus, int(quota)))


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted cgroup hierarchy that may hold the CPU controller."""

    version: int
    root: PurePosixPath
    """The cgroup that is seen at `point`; "/" unless only a part of the hierarchy is mounted."""
    point: PurePosixPath

    def shows(self, cgroup: PurePosixPath) -> bool:
        """Whether `cgroup` is below the mount, by names alone; ".." in it leads out of our cgroup namespace."""
        return cgroup.is_relative_to(self.root) and ".." not in cgroup.relative_to(self.root).parts


def _cgroups(root: Path) -> Iterator[tuple[int, Path]]:
    """Every visible cgroup that limits this process, as (version, directory), for each hierarchy its own first."""
    ours = dict(_memberships(root))
    mounts = [mount for mount in _mounts(root) if mount.version in ours]
    for version, cgroup in ours.items():
        candidates = [mount for mount in mounts if mount.version == version]
        # A container without a cgroup namespace of its own is told the host's path, which its mount does not show.
        # What it sees at the mount point is then its own cgroup, or at worst an ancestor.
        for mount in [mount for mount in candidates if mount.shows(cgroup)] or candidates:
            below = cgroup.relative_to(mount.root) if mount.shows(cgroup) else PurePosixPath()
            for directory in (below, *below.parents):
                yield version, root / mount.point.relative_to("/") / directory


def _memberships(root: Path) -> Iterator[tuple[int, PurePosixPath]]:
    """The cgroup of this process in each hierarchy that may limit CPU time, as (version, cgroup).

    A line is "id:controllers:path"; version 2 is the one with id 0 and no controllers. A path may hold colons.
    """
    for line in _read(root / "proc/self/cgroup").split("\n"):
        match line.split(":", 2):
            case ["0", "", path] if path.startswith("/"):
                yield 2, _absolute(path)
            case [_, controllers, path] if "cpu" in controllers.split(",") and path.startswith("/"):
                yield 1, _absolute(path)


def _mounts(root: Path) -> Iterator[_Mount]:
    """The mounts that may hold the CPU controller.

    A line is "id parent major:minor root point options [tags] - type source super-options"; see proc(5).
    """
    for line in _read(root / "proc/self/mountinfo").split("\n"):
        head, _, tail = line.partition(" - ")
        match head.split(" ")[3:5], tail.split(" "):
            case [mount_root, point], ["cgroup2", *_]:
                version = 2
            case [mount_root, point], ["cgroup", _, options] if "cpu" in options.split(","):
                version = 1
            case _:
                continue
        if mount_root.startswith("/") and point.startswith("/"):
            yield _Mount(version, _absolute(_unescape(mount_root)), _absolute(_unescape(point)))


def _quota_of(cgroup: tuple[int, Path]) -> float | None:
    """The limit that one cgroup sets by itself, in CPUs."""
    version, directory = cgroup
    if version == 2:
        fields = _read(directory / "cpu.max").split()
    else:
        fields = [_read(directory / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    try:
        quota, period = map(int, fields)
        return quota / period if quota > 0 and period > 0 else None
    except (ValueError, OverflowError):  # "max", an empty or missing file, or nonsense
        return None


def _absolute(path: str) -> PurePosixPath:
    """A path with one leading slash: pathlib takes "//" for another root, which is relative to nothing here."""
    return PurePosixPath("/" + path.lstrip("/"))


def _unescape(field: str) -> str:
    r"""Undo the kernel's escapes of blanks and backslashes.

    >>> _unescape(r"/sys/my\040cgroups")
    '/sys/my cgroups'
    """
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _read(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        # Names of cgroups are bytes: fsdecode is undone, to the byte, when the path is opened.
        return os.fsdecode(path.read_bytes())
    except (OSError, ValueError):  # ValueError: a path with a null byte in it
        return ""
