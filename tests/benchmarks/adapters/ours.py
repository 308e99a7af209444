"""An awaited pipeline, at the threads asked for and at one."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.adapter import Adapter, Prepared
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["OURS", "OURS_ALONE", "at_threads", "pipeline_of"]


def pipeline_of(tasks: Tasks, kernel: Kernel) -> flow.Pipeline[[], list[Any]]:
    """The pipeline with a node for each task; not traced yet."""
    operator, last = flow.op(kernel), sinks(tasks)

    def body() -> Any:
        values: list[Any] = []
        for task in tasks:
            values.append(operator(*[values[i] for i in task]))
        return [values[i] for i in last]

    return flow.pipeline(body)


def at_threads(threads: int, stack: ExitStack) -> None:
    """Set the inter-op threads until the stack is closed."""
    stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())
    flow.set_num_interop_threads(threads)


def _prepare(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    pipeline = pipeline_of(tasks, kernel)
    pipeline.graph()
    at_threads(threads, stack)

    async def run() -> list[Any]:
        return await pipeline()

    return Prepared(run, partial(_take_turn, threads))


def _take_turn(threads: int) -> bool:
    if flow.get_num_interop_threads() == threads:
        return False
    flow.set_num_interop_threads(threads)
    return True


def _prepare_alone(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    return _prepare(tasks, kernel, 1, stack)


OURS = Adapter("dataflow", _prepare)
OURS_ALONE = Adapter("dataflow, one thread", _prepare_alone)
