"""The limits: a `for` statement that calls the kernels in order, and one in each thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.benchmarks.adapters.job import Blocking, Job
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["bare_loop", "bare_loops"]


def bare_loop(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """One loop in the calling thread, whatever `threads` says."""
    last = sinks(tasks)

    def run() -> list[Any]:
        values: list[Any] = []
        for task in tasks:
            values.append(kernel(*[values[i] for i in task]))  # it reads the list that it makes
        return [values[i] for i in last]

    return Blocking(run)


def bare_loops(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """A loop in each thread over its share of tasks that need not wait for each other: no scheduler, only the GIL."""
    if any(tasks):
        raise ValueError("loops side by side cannot run tasks that depend on each other")
    pool = stack.enter_context(ThreadPoolExecutor(threads))
    shares = [range(len(tasks))[i::threads] for i in range(threads)]

    def share(numbers: range) -> list[Any]:
        return [kernel() for _ in numbers]

    def run() -> list[Any]:
        parts = [iter(part) for part in pool.map(share, shares)]
        return [next(parts[i % threads]) for i in range(len(tasks))]

    return Blocking(run)
