"""A network of four branches a block, on one and on all threads, against what a schedule could reach at best."""

from __future__ import annotations

import asyncio
import heapq
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import dataflow as flow
from dataflow.graph.nodes import Graph, Ref
from tests.benchmarks.adapters.job import loop_factory
from tests.benchmarks.measure import Figure, Options, interleaved, pin_threads, seconds
from tests.benchmarks.patterns import Tasks
from tests.benchmarks.section import Section

__all__ = ["kernel_seconds", "load", "makespan", "network"]

DEMO = Path(__file__).parents[3] / "demos" / "03_inception.py"
AT_ONCE = [1, 4]


def load() -> tuple[Callable[..., Any], flow.Pipeline[..., Any], np.ndarray]:
    """The demo's network as a function and as a pipeline, and four pictures."""
    spec = importlib.util.spec_from_file_location("inception_demo", DEMO)
    if spec is None or spec.loader is None:
        raise ImportError(f"no demo at {DEMO}")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    return demo.network, demo.infer, demo.NOISE[: 4 * 28 * 28 * 192].reshape(4, 28, 28, 192)


def network(options: Options) -> list[Section]:
    """Speed-up from one thread to all, for one request and for four at once, beside that of a list schedule."""
    function, infer, pictures = load()
    graph = infer.graph(pictures[0])
    first = len(graph.inputs)
    tasks: Tasks = [tuple(i - first for i in node.reads if i >= first) for node in graph.nodes]
    durations = [kernel_seconds(graph, [pictures[0]]) for _ in range(options.either(7, 3))]
    costs = [median(times) for times in zip(*durations)]
    rows = []
    with ExitStack() as stack:
        stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())
        loop = stack.enter_context(asyncio.Runner(loop_factory=loop_factory())).get_loop()
        for count in AT_ONCE:
            batch = list(pictures[:count])
            maps = loop.run_until_complete(_requests(infer, batch))
            np.testing.assert_allclose(maps, list(map(function, batch)), rtol=1e-4)
            rows.append(_row(loop, infer, batch, tasks, costs, options))
    method = (
        f"The graph of demos/03_inception.py ({len(tasks)} nodes, {sum(costs) * 1e3:.3g} ms of kernels), BLAS at one "
        f"thread: ms, median (quartiles) of {options.repeats} rounds. The bound is a list schedule, "
        f"longest path first, of the kernels' medians when they run alone: they do not share caches and memory."
    )
    head = ["requests at once", "1 thread", f"{options.threads} threads", "speed-up", "bound", "reached", "plain numpy"]
    return [Section("A multi-branch network", method, head, rows)]


def _row(
    loop: asyncio.AbstractEventLoop,
    infer: flow.Pipeline[..., Any],
    batch: list[np.ndarray],
    tasks: Tasks,
    costs: list[float],
    options: Options,
) -> list[object]:
    function = load()[0]

    def timed(threads: int) -> float:
        if flow.get_num_interop_threads() != threads:
            flow.set_num_interop_threads(threads)
            loop.run_until_complete(_requests(infer, batch))
        if options.pin:
            pin_threads()
        return seconds(lambda: loop.run_until_complete(_requests(infer, batch)))

    cases: dict[int, Callable[[], float]] = {threads: partial(timed, threads) for threads in {1, options.threads}}
    cases[0] = lambda: seconds(lambda: list(map(function, batch)))
    measured = interleaved(cases, options.repeats)
    copies = [tuple(i + copy * len(tasks) for i in reads) for copy in range(len(batch)) for reads in tasks]
    bound = len(batch) * sum(costs) / makespan(copies, costs * len(batch), options.threads)
    speed = Figure.of([one / many for one, many in zip(measured[1], measured[options.threads])])
    times = [Figure.of(measured[threads], 1e3) for threads in (1, options.threads)]
    reached = f"{speed.median / bound:.1%}"
    return [len(batch), *times, f"{speed}×", f"{bound:.3g}×", reached, Figure.of(measured[0], 1e3)]


async def _requests(infer: flow.Pipeline[..., Any], batch: list[np.ndarray]) -> list[Any]:
    return await asyncio.gather(*map(infer, batch))


def kernel_seconds(graph: Graph, inputs: list[Any]) -> list[float]:
    """What each node takes, one after another in this thread."""
    values, taken = list(inputs), []
    for node in graph.nodes:
        args = [_filled(argument, values) for argument in node.args]
        kwargs = {name: _filled(argument, values) for name, argument in node.kwargs.items()}
        before = perf_counter()
        values.append(node.spec.fn(*args, **kwargs))
        taken.append(perf_counter() - before)
    return taken


def _filled(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument]
    if isinstance(argument, list | tuple) and not hasattr(argument, "_fields"):
        return type(argument)(_filled(item, values) for item in argument)
    if isinstance(argument, dict):
        return {key: _filled(item, values) for key, item in argument.items()}
    if is_dataclass(argument) and not isinstance(argument, type):
        return replace(argument, **{f.name: _filled(getattr(argument, f.name), values) for f in fields(argument)})
    return argument


def makespan(tasks: Tasks, costs: Sequence[float], threads: int) -> float:
    """How long a greedy list schedule takes: whenever a thread is free, the ready task with the longest path left.

    >>> makespan([(), (), (0, 1)], [2.0, 3.0, 1.0], threads=2)
    4.0
    """
    readers: list[list[int]] = [[] for _ in tasks]
    for task, reads in enumerate(tasks):
        for i in reads:
            readers[i].append(task)
    left = list(costs)
    for task in reversed(range(len(tasks))):
        left[task] += max((left[reader] for reader in readers[task]), default=0.0)
    missing = list(map(len, tasks))
    ready = [(-left[task], task) for task in range(len(tasks)) if not missing[task]]
    heapq.heapify(ready)
    now, running = 0.0, list[tuple[float, int]]()
    while ready or running:
        while ready and len(running) < threads:
            task = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + costs[task], task))
        now, task = heapq.heappop(running)
        for reader in readers[task]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (-left[reader], reader))
    return now
