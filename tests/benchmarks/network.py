"""The blocks of an inception network (a demo), at one and at n threads, against what a list schedule could reach.

The bound: every kernel is timed alone, in a serial walk of the graph; then the graph is scheduled on paper, without any
overhead: whenever a thread is free it takes the ready kernel with the longest way to the end (Graham's list scheduling,
by critical path). Kernels that slow each other down, by memory or by clock rate, count against the runtime.
"""

from __future__ import annotations

import asyncio
import heapq
import runpy
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import dataflow as flow
from dataflow.graph.fill import fill
from dataflow.graph.nodes import Graph
from tests.benchmarks.adapters.ours import at_threads
from tests.benchmarks.effort import Effort
from tests.benchmarks.measure import Figure, interleaved
from tests.benchmarks.patterns import Tasks
from tests.benchmarks.tables import table

__all__ = ["list_schedule", "network"]

DEMO = Path(__file__).parents[2] / "demos" / "03_inception.py"
REQUESTS = 1, 4
TOO_MANY = 64
"""Threads: a setting far too high for the machine, which should cost next to nothing."""


async def network(effort: Effort) -> str:
    """Seconds for one request and for several at once, the speed over one thread, and the share of the bound."""
    demo = runpy.run_path(str(DEMO))
    picture, infer = demo["NOISE"][: 28 * 28 * 192].reshape(28, 28, 192), demo["infer"]
    tasks, times = _kernels(infer.graph(picture), picture, max(3, effort.network_rounds))
    settings = list(dict.fromkeys([1, effort.threads, TOO_MANY]))
    rows = []
    for requests in REQUESTS:
        with ExitStack() as stack:
            at_threads(1, stack)
            cases = {str(n): partial(_seconds, infer, picture, requests, n) for n in settings}
            measured = await interleaved(cases, effort.network_rounds)
        bound = _bound(tasks, times, requests, effort.threads)
        one = Figure.of(measured["1"]).median
        for threads, walls in measured.items():
            figure = Figure.of(walls, 1e3)
            speed = one / Figure.of(walls).median
            share = f"{100 * speed / bound:.0f} % of {bound:.2f}" if int(threads) == effort.threads else ""
            rows.append([f"{requests} at once, {threads} threads", figure, f"{speed:.2f}", share])
    title = f"inception blocks: {len(tasks)} kernels, {sum(times) * 1e3:.0f} ms in all"
    return table([title, "ms, median (quartiles)", "speed", "of the list schedule's"], rows)


async def _seconds(infer: flow.Pipeline[..., Any], picture: Any, requests: int, threads: int) -> float:
    if flow.get_num_interop_threads() != threads:
        flow.set_num_interop_threads(threads)
        await infer(picture)  # threads start
    before = perf_counter()
    await asyncio.gather(*(infer(picture) for _ in range(requests)))
    return perf_counter() - before


def _kernels(graph: Graph, picture: Any, rounds: int) -> tuple[Tasks, list[float]]:
    """The graph's nodes as tasks, and the median seconds of each, called one after another in this thread."""
    measured: list[list[float]] = [[] for _ in graph.nodes]
    for _ in range(rounds):
        values: list[Any] = [picture]
        for node, times in zip(graph.nodes, measured):
            args, kwargs = fill(node.args, values), fill(dict(node.kwargs), values)
            before = perf_counter()
            values.append(node.spec.fn(*args, **kwargs))
            times.append(perf_counter() - before)
    inputs = len(graph.inputs)
    tasks = [tuple(read - inputs for read in node.reads if read >= inputs) for node in graph.nodes]
    return tasks, [statistics.median(times) for times in measured]


def _bound(tasks: Tasks, times: Sequence[float], requests: int, threads: int) -> float:
    """The list schedule's speed over one thread for several requests at once."""
    several = [tuple(i + copy * len(tasks) for i in task) for copy in range(requests) for task in tasks]
    return requests * sum(times) / list_schedule(several, list(times) * requests, threads)


def list_schedule(tasks: Tasks, times: Sequence[float], threads: int) -> float:
    """When the last task of a list schedule by critical path ends.

    >>> list_schedule([(), (), (), (0, 1)], [1.0, 3.0, 2.0, 1.0], 2)
    4.0
    """
    ways, readers = _ways(tasks, times)
    waits_for = [len(task) for task in tasks]
    ready = [(-ways[task], task) for task, inputs in enumerate(tasks) if not inputs]
    heapq.heapify(ready)
    running: list[tuple[float, int, int]] = []
    now, order = 0.0, count()
    while ready or running:
        while ready and len(running) < threads:
            _, task = heapq.heappop(ready)
            heapq.heappush(running, (now + times[task], next(order), task))
        now, _, task = heapq.heappop(running)
        for reader in readers[task]:
            waits_for[reader] -= 1
            if not waits_for[reader]:
                heapq.heappush(ready, (-ways[reader], reader))
    return now


def _ways(tasks: Tasks, times: Sequence[float]) -> tuple[list[float], list[list[int]]]:
    """For each task the longest way from its start to the end, and its readers."""
    ways, readers = list(times), [[] for _ in tasks]
    for task in reversed(range(len(tasks))):
        ways[task] += max((ways[reader] for reader in readers[task]), default=0.0)
        for i in tasks[task]:
            readers[i].append(task)
    return ways, readers
