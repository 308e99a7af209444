"""One graph, run in every way: `ADAPTERS`, in the order of the tables.

job.py         Adapter, and what it prepares: a Job
serial.py      the limits
ours.py        dataflow
standard.py    by hand, with the standard library
libraries.py   dask, tawazi, hamilton
onnx.py        onnxruntime, which runs no Python functions
check.py       every adapter gives what the bare loop gives, and calls every kernel once
"""

from tests.benchmarks.adapters.job import Adapter, Job
from tests.benchmarks.adapters.libraries import dask_threaded, hamilton_threads, tawazi_dag
from tests.benchmarks.adapters.onnx import onnx_all, onnx_one
from tests.benchmarks.adapters.ours import one_thread, ours
from tests.benchmarks.adapters.serial import bare_loop, bare_loops
from tests.benchmarks.adapters.standard import executor_graphlib, loop_driven, task_per_op, threads_on_a_heap

__all__ = ["ADAPTERS", "BARE", "HEAP", "LIMIT", "ONE_THREAD", "ONNX", "OURS", "Adapter", "Job", "adapters", "missing"]

BARE = Adapter("bare Python loop", bare_loop)
LIMIT = Adapter("bare loops, one a thread", bare_loops)
ONE_THREAD = Adapter("dataflow, 1 thread", one_thread)
OURS = Adapter("dataflow", ours)

ONNX = [
    Adapter("onnxruntime, parallel mode (C++)", onnx_all, "onnx onnxruntime", "onnxruntime", most_nodes=10_000),
    Adapter("the same, one result fetched", onnx_one, "onnx onnxruntime", "onnxruntime", most_nodes=10_000),
]
"""These know no Python kernels: they are for comparing what an empty node costs."""

HEAP = Adapter("threads on a heap, no more than that", threads_on_a_heap, most_nodes=100_000, slow=True)
"""A limit of another kind: what the scheduling itself takes, in Python, with nothing that makes it of use."""

ADAPTERS = [
    BARE,
    ONE_THREAD,
    OURS,
    HEAP,
    Adapter("ThreadPoolExecutor + graphlib", executor_graphlib, most_nodes=100_000, slow=True),
    Adapter("loop-driven scheduler, by hand", loop_driven, most_nodes=10_000, slow=True),
    Adapter("an asyncio task per op, run_in_executor", task_per_op, most_nodes=10_000, slow=True),
    Adapter("dask.threaded", dask_threaded, "dask", "dask", most_nodes=100_000, slow=True),
    # Its threads wait for each other's results while it walks the graph by recursion: long chains take a deep stack.
    Adapter("hamilton, threads", hamilton_threads, "apache-hamilton", "hamilton", most_nodes=1_000, slow=True),
    Adapter("tawazi", tawazi_dag, "tawazi", "tawazi", most_nodes=1_000, slow=True),  # building is quadratic
]


def adapters(*, without: tuple[Adapter, ...] = ()) -> list[Adapter]:
    """Those of `ADAPTERS` whose package is installed."""
    return [adapter for adapter in ADAPTERS if not adapter.missing and adapter not in without]


def missing() -> list[str]:
    """A line for each adapter that is left out, with the command that would change that."""
    every = {adapter.package: adapter for adapter in [*ADAPTERS, *ONNX] if adapter.missing}
    return [f"left out: {adapter.name} (pip install {package})" for package, adapter in every.items()]
