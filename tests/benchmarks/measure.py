"""How things are timed: everything that is compared takes turns in one process, and a figure has a spread."""

from __future__ import annotations

import gc
import os
import random
import re
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from tests.benchmarks.adapters import Job

__all__ = ["SPARSE", "Figure", "Options", "frozen", "interleaved", "pin_threads", "run_seconds", "seconds"]

Case = TypeVar("Case")

SPARSE = 3
"""What is slow takes part in every third round."""


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure."""

    threads: int
    """Inter-op threads."""
    quick: bool
    """A minute for everything, and not ten."""
    nodes: int
    """Nodes of a graph, where the measure does not say otherwise."""
    repeats: int
    """Rounds."""
    pin: bool = True
    """Whether threads are pinned where speed-ups are measured."""

    def either(self, thorough: Any, quick: Any) -> Any:
        """The one that applies."""
        return quick if self.quick else thorough


@dataclass(frozen=True)
class Figure:
    """The median of some measurements and their quartiles, in one unit."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float], scale: float = 1.0) -> Figure:
        """The figure of these values, each times `scale`.

        >>> print(Figure.of([1, 2, 3, 4, 100], scale=2))
        6 (4–8)
        """
        ordered = sorted(value * scale for value in values)
        if len(ordered) < 2:
            return Figure(ordered[0], ordered[0], ordered[0])
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
        return Figure(median, low, high)

    def __str__(self) -> str:
        if self.low == self.high:
            return _digits(self.median)
        return f"{_digits(self.median)} ({_digits(self.low)}–{_digits(self.high)})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(run: Callable[[], Any]) -> float:
    """What one call takes; the garbage of others is collected before."""
    gc.collect()
    before = perf_counter()
    run()
    return perf_counter() - before


def run_seconds(job: Job) -> float:
    """What one run of a job takes."""
    job.ready()
    return seconds(job.run)


def interleaved(
    cases: Mapping[Case, Callable[[], float]], repeats: int, sparse: Collection[Case] = ()
) -> dict[Case, list[float]]:
    """What each case measures, once per round, in an order that changes from round to round.

    Those in `sparse` take part in the first of every `SPARSE` rounds only.
    """
    rng = random.Random(0)
    measured: dict[Case, list[float]] = {name: [] for name in cases}
    for number in range(repeats):
        taking_part = [name for name in cases if number % SPARSE == 0 or name not in sparse]
        for name in rng.sample(taking_part, len(taking_part)):
            measured[name].append(cases[name]())
    return measured


@contextmanager
def frozen() -> Iterator[None]:
    """What exists now is none of the garbage collector's business: one adapter's graph must not slow another's run."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def pin_threads() -> None:
    """Give each thread of each pool a CPU of its own, if there are enough; the main thread may go anywhere.

    Left alone, two threads may share one CPU for a whole run. Threads that a pool starts later, or for one run, are not
    reached. Does nothing where the system has no such call.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cpus = sorted(os.sched_getaffinity(0))
    pools: defaultdict[str, list[threading.Thread]] = defaultdict(list)
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            pools[re.sub(r"[_-]?\d+$", "", thread.name)].append(thread)
    for pool in pools.values():
        if not 1 < len(pool) <= len(cpus):
            continue  # alone it is in nobody's way; of too many, nobody knows which will be busy at once
        for thread, cpu in zip(pool, cpus):
            try:
                os.sched_setaffinity(thread.native_id or 0, {cpu})
            except ProcessLookupError:  # it has just ended
                pass
