"""Libraries that run graphs of Python functions on threads: dask, tawazi, hamilton."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from tests.benchmarks.adapters.job import Blocking, Job
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["dask_threaded", "hamilton_threads", "tawazi_dag"]


def dask_threaded(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """dask's scheduler for one machine, on a raw graph and on a pool that is kept."""
    import dask.threaded

    pool = stack.enter_context(ThreadPoolExecutor(threads))
    graph = {task: (kernel, *reads) for task, reads in enumerate(tasks)}
    last = sinks(tasks)
    return Blocking(lambda: list(dask.threaded.get(graph, last, pool=pool)))


def tawazi_dag(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """A tawazi DAG; it starts its threads in every run."""
    import tawazi

    def task(*inputs: Any) -> Any:  # a node is named after its function
        return kernel(*inputs)

    node, last = tawazi.xn(task), sinks(tasks)

    def pattern() -> Any:
        values: list[Any] = []
        for reads in tasks:
            values.append(node(*[values[i] for i in reads]))
        return [values[i] for i in last]

    return Blocking(tawazi.dag(pattern, max_concurrency=threads))


def hamilton_threads(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """A hamilton driver with its thread pool adapter: a function for each node, whose parameters name its inputs."""
    from hamilton import driver
    from hamilton.plugins.h_threadpool import FutureAdapter

    last = [f"t{task}" for task in sinks(tasks)]
    adapter = FutureAdapter(max_workers=threads)
    stack.callback(adapter.executor.shutdown)
    # It walks the graph by recursion, some frames a node.
    stack.callback(sys.setrecursionlimit, sys.getrecursionlimit())
    sys.setrecursionlimit(100_000)
    module = _hamilton_module(tasks, kernel)
    sys.modules[module.__name__] = module  # it takes only functions whose module can be imported
    try:
        built = driver.Builder().with_modules(module).with_adapters(adapter).build()
    finally:
        del sys.modules[module.__name__]

    def run() -> list[Any]:
        results = built.execute(last)
        return [results[name] for name in last]

    return Blocking(run)


def _hamilton_module(tasks: Tasks, kernel: Kernel) -> ModuleType:
    source = ["from typing import Any"]
    for task, reads in enumerate(tasks):
        names = [f"t{i}" for i in reads]
        parameters = ", ".join(f"{name}: Any" for name in names)
        source.append(f"def t{task}({parameters}) -> Any: return kernel({', '.join(names)})")
    module = ModuleType("tests_benchmarks_hamilton_tasks")
    module.__dict__["kernel"] = kernel
    exec("\n".join(source), module.__dict__)  # what a user of hamilton would have written by hand
    return module
