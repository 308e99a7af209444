"""How many results are alive at once, at most: every array that a kernel makes tells when it is made and when it dies."""

from __future__ import annotations

import gc
import statistics
import weakref
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import numpy as np

from tests.benchmarks.adapters import Adapter, installed
from tests.benchmarks.effort import Effort
from tests.benchmarks.patterns import Tasks, make_tasks
from tests.benchmarks.tables import table

__all__ = ["least_in_order", "memory", "peak"]

GRAPHS: dict[str, Tasks] = {
    "chain of 512": make_tasks("chain", 512),
    "stencil of 32 columns, 16 rows": make_tasks("stencil_1d", 512, width=32),
    "reduction of 256 leaves": make_tasks("reduction", 511),
}


async def memory(effort: Effort) -> str:
    """The peak of every adapter on three graphs: the median over rounds and the greatest."""
    serial = [least_in_order(tasks) for tasks in GRAPHS.values()]
    rows: list[list[object]] = [["serial in the order of recording, each released at its last use", *serial]]
    for adapter in installed():
        row: list[object] = [adapter.name]
        for tasks in GRAPHS.values():
            peaks = [await peak(adapter, tasks, effort.threads) for _ in range(effort.rounds)]
            row.append(f"{statistics.median_high(peaks)}, {max(peaks)}")
        rows.append(row)
    return table(["results alive at once: median, greatest", *GRAPHS], rows)


def least_in_order(tasks: Tasks) -> int:
    """The peak of a serial run in the order of recording that releases each result right after its last use.

    >>> least_in_order([(), (0,), (1,), (2,)])
    2
    """
    last_use = {i: task for task, inputs in enumerate(tasks) for i in inputs}
    alive, most = 0, 0
    for task, inputs in enumerate(tasks):
        alive += 1
        most = max(most, alive)
        alive -= sum(last_use[i] == task for i in inputs)
    return most


async def peak(adapter: Adapter, tasks: Tasks, threads: int) -> int:
    """The greatest number of results that were alive at once in one run, final ones included."""
    changes: list[int] = []  # appending needs no lock, which a dying array could want while it is held

    def kernel(*inputs: Any) -> Any:
        made = np.ones(4)
        changes.append(1)
        weakref.finalize(made, changes.append, -1)
        return made

    gc.disable()  # what is released is released at once, without the garbage collector
    try:
        with ExitStack() as stack:
            await adapter.prepare(tasks, kernel, threads, stack).results()
            return max(accumulate(changes))
    finally:
        gc.enable()
