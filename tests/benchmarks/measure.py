"""How things are timed: everything that is compared takes turns in one process, and a figure has a spread."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import threadpoolctl

__all__ = ["Figure", "interleaved", "machine", "new_event_loop"]


PACKAGES = ("numpy", "uvloop", "dask", "tawazi", "apache-hamilton", "onnxruntime")


@dataclass(frozen=True, slots=True)
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


async def interleaved(cases: Mapping[str, Callable[[], Awaitable[float]]], rounds: int) -> dict[str, list[float]]:
    """What each case measures, once per round, in an order that changes from round to round."""
    rng = random.Random(0)
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        gc.collect()
        for name in rng.sample(list(cases), len(cases)):
            measured[name].append(await cases[name]())
    return measured


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def machine() -> str:
    """One line on what a figure was measured with."""
    blas = [f"{lib['internal_api']} {lib['version']} {lib.get('architecture', '')}" for lib in _blas()]
    versions = " ".join(f"{name} {_version(name)}" for name in PACKAGES if _version(name))
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
