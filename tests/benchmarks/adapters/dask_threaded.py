"""dask's scheduler for one machine, on a raw graph and a pool that is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.benchmarks.adapters.adapter import Adapter, Prepared
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["DASK"]


def _prepare(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    import dask.threaded

    pool = stack.enter_context(ThreadPoolExecutor(threads))
    graph, last = {task: (kernel, *inputs) for task, inputs in enumerate(tasks)}, sinks(tasks)

    def run() -> list[Any]:
        return list(dask.threaded.get(graph, last, pool=pool))

    return Prepared(run)


DASK = Adapter("dask.threaded", _prepare, "dask")
