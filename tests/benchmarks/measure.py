"""How things are timed: everything that is compared takes turns in one process, and a figure has a spread."""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from time import perf_counter
from typing import Any

import threadpoolctl

__all__ = ["Figure", "interleaved", "machine", "seconds"]


@dataclass(frozen=True)
class Figure:
    """The median of some measurements and their quartiles, in one unit."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float], scale: float = 1.0) -> Figure:
        """The figure of these values, each times `scale`."""
        ordered = sorted(value * scale for value in values)
        if len(ordered) < 2:
            return Figure(ordered[0], ordered[0], ordered[0])
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
        return Figure(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


def seconds(run: Callable[[], Any]) -> float:
    """What one call takes; the garbage of others is collected before."""
    gc.collect()
    before = perf_counter()
    run()
    return perf_counter() - before


def interleaved(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each case measures, once per round, in an order that changes from round to round."""
    rng = random.Random(0)
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name in rng.sample(list(cases), len(cases)):
            measured[name].append(cases[name]())
    return measured


def machine() -> str:
    """One line on what a figure was measured with."""
    blas = [f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}" for lib in _blas()]
    versions = " ".join(f"{name} {_version(name)}" for name in ("numpy", "uvloop", "dask") if _version(name))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.machine()}, {usable} CPUs, Python {sys.version.split()[0]}, {versions}, "
        f"BLAS {', '.join(blas) or 'none found'} at one thread"
    )


def _blas() -> list[dict[str, Any]]:
    import numpy.linalg  # noqa: F401  # loads it

    return [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
