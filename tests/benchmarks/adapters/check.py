"""Whether adapters do what they are timed for: the results of the serial run, and every task once."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from tests.benchmarks.adapters.job import Adapter
from tests.benchmarks.adapters.onnx import INPUTS, executed_nodes, onnx_results
from tests.benchmarks.kernels import Counting
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["check", "check_onnx"]


def check(adapter: Adapter, tasks: Tasks, threads: int) -> None:
    """AssertionError, if the adapter loses tasks, or runs them twice, or with other inputs than theirs."""
    expected, counting = Counting(), Counting()
    with ExitStack() as stack:
        job = adapter.prepare(tasks, counting.kernel, threads, stack)
        for _ in range(2):  # a second run must not find anything of the first
            before = counting.calls
            if job.run() != _serial(tasks, expected):
                raise AssertionError(f"{adapter.name}: other results than the serial run")
            if counting.calls - before != len(tasks):
                raise AssertionError(f"{adapter.name}: {counting.calls - before} kernels of {len(tasks)}")


def _serial(tasks: Tasks, counting: Counting) -> list[int]:
    values: list[int] = []
    for reads in tasks:
        values.append(counting.kernel(*[values[i] for i in reads]))
    return [values[i] for i in sinks(tasks)]


def check_onnx(tasks: Tasks, threads: int) -> None:
    """The same for onnxruntime, by the results on shuffled inputs and by its own records of what it executed."""
    for seed in range(3):
        inputs = np.random.default_rng(seed).permutation(INPUTS)
        values: list[float] = []
        for task, reads in enumerate(tasks):
            values.append(max((values[i] for i in reads), default=float(inputs[task % INPUTS])))
        if onnx_results(tasks, inputs, threads) != [values[i] for i in sinks(tasks)]:
            raise AssertionError("onnxruntime: other results than the serial run")
    if executed_nodes(tasks, threads) != len(tasks):
        raise AssertionError(f"onnxruntime: not all of {len(tasks)} tasks were executed")
