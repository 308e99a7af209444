"""What the figures were measured with, in one line."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import threadpoolctl

__all__ = ["Usage", "machine", "resident"]

PACKAGES = ["numpy", "uvloop", "aiohttp", "dask", "apache-hamilton", "tawazi", "onnxruntime"]


def machine() -> str:
    """CPU, Python, versions of what is compared, and the BLAS kernel in use."""
    blas = [f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}".strip() for lib in _blas()]
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{_cpu()} ({platform.machine()}), {usable} CPUs, Python {sys.version.split()[0]}, {versions}, "
        f"BLAS {', '.join(blas) or 'unknown'} at one thread"
    )


class Usage:
    """How much of the CPUs others used since it was made: figures taken beside a busy neighbour are worth little."""

    def __init__(self) -> None:
        self._before = self._read()

    def __str__(self) -> str:
        before, now = self._before, self._read()
        if before is None or now is None or now[0] <= before[0]:
            return "What else ran on the machine is not known."
        others = (now[1] - before[1]) / (now[0] - before[0])
        return f"Others used {max(0.0, others):.0%} of the CPUs meanwhile."

    def _read(self) -> tuple[float, float] | None:
        """Seconds of all CPUs so far, and those in which they worked, but not for this process and ended children."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        # user nice system idle iowait irq softirq steal
        ticks, own = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields], os.times()
        ours = own.user + own.system + own.children_user + own.children_system
        return sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ours


def resident() -> float:
    """What this process holds, in MB; nan where nobody says."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return float("nan")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.system()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.system())


def _blas() -> list[dict[str, Any]]:
    import numpy.linalg  # noqa: F401  # loads it

    return [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
