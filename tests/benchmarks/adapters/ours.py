"""dataflow: an awaited pipeline."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.job import Job, OnLoop
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["declare", "one_thread", "ours"]


def ours(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """On `threads` inter-op threads."""
    pipeline = declare(tasks, kernel)
    pipeline.graph()
    return _Awaited(pipeline, threads, stack)


def one_thread(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """On one inter-op thread, whatever `threads` says."""
    return ours(tasks, kernel, 1, stack)


def declare(tasks: Tasks, kernel: Kernel) -> flow.Pipeline[[], list[Any]]:
    """The pipeline that calls an operator for each task; its body has not run yet."""
    operator, last = flow.op(kernel), sinks(tasks)

    def pattern() -> list[Any]:
        values: list[Any] = []
        for task in tasks:
            values.append(operator(*[values[i] for i in task]))
        return [values[i] for i in last]

    return flow.pipeline(pattern)


class _Awaited(OnLoop):
    def __init__(self, pipeline: flow.Pipeline[[], list[Any]], threads: int, stack: ExitStack) -> None:
        super().__init__(pipeline, stack)
        self._threads = threads
        stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())

    def ready(self) -> None:
        """The setting is the process's: jobs with another one may have run since, and new threads start in a run."""
        if flow.get_num_interop_threads() != self._threads:
            flow.set_num_interop_threads(self._threads)
            self.run()
