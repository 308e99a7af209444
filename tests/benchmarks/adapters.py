"""One graph, run in every way: each adapter prepares a pattern for a kernel, and gives a function that runs it once.

The function returns the results of the sinks, in order. What a user would prepare once (a plan, a dask graph, a pool,
an event loop) is prepared before; what has to be done for each run is part of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

import dataflow as flow
from tests.benchmarks.patterns import Tasks

__all__ = ["ADAPTERS", "Kernel", "Prepared", "sinks"]

Kernel = Callable[..., Any]
Prepared = Callable[[], list[Any]]


def sinks(tasks: Tasks) -> list[int]:
    """The tasks that no other reads."""
    read = {dependency for task in tasks for dependency in task}
    return [task for task in range(len(tasks)) if task not in read]


def _event_loop(stack: ExitStack) -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:
        return stack.enter_context(asyncio.Runner())
    return stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))


def bare_loop(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """The limit: a `for` statement that calls the kernels in order."""
    last = sinks(tasks)

    def run() -> list[Any]:
        values: list[Any] = []
        for task in tasks:
            values.append(kernel(*[values[i] for i in task]))  # it reads the list that it makes
        return [values[i] for i in last]

    return run


def ours(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """An awaited pipeline."""
    operator, last = flow.op(kernel), sinks(tasks)

    @flow.pipeline
    def pipeline() -> Any:
        values: list[Any] = []
        for task in tasks:
            values.append(operator(*[values[i] for i in task]))
        return [values[i] for i in last]

    pipeline.graph()
    runner = _event_loop(stack)
    flow.set_num_interop_threads(threads)
    return lambda: runner.run(pipeline())


def one_task_per_op(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """What one writes by hand: an asyncio task for each op, which awaits its inputs and then `to_thread`."""
    last = sinks(tasks)
    runner = _event_loop(stack)
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(pool)  # what to_thread uses
        started: list[asyncio.Task[Any]] = []

        async def op(inputs: tuple[int, ...]) -> Any:
            return await asyncio.to_thread(kernel, *[await started[i] for i in inputs])

        for task in tasks:
            started.append(asyncio.create_task(op(task)))  # noqa: PERF401
        await asyncio.gather(*started)
        return [started[i].result() for i in last]

    return lambda: runner.run(main())


def executor_graphlib(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """The standard library's own parts: `graphlib` says what is ready, a ThreadPoolExecutor runs it."""
    last = sinks(tasks)
    pool = stack.enter_context(ThreadPoolExecutor(threads))
    graph = dict(enumerate(tasks))

    def run() -> list[Any]:
        sorter = TopologicalSorter(graph)
        sorter.prepare()
        values: dict[int, Any] = {}
        running: dict[Future[Any], int] = {}
        while sorter.is_active():
            for task in sorter.get_ready():
                running[pool.submit(kernel, *[values[i] for i in tasks[task]])] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                values[task] = future.result()
                sorter.done(task)
        return [values[i] for i in last]

    return run


def dask_threaded(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """dask's scheduler for one machine, on a pool that is kept."""
    import dask.threaded

    pool = stack.enter_context(ThreadPoolExecutor(threads))
    graph = {task: (kernel, *inputs) for task, inputs in enumerate(tasks)}
    return partial(_dask_run, dask.threaded.get, graph, sinks(tasks), pool)


def _dask_run(get: Callable[..., Any], graph: dict[int, Any], last: list[int], pool: ThreadPoolExecutor) -> list[Any]:
    return list(get(graph, last, pool=pool))


ADAPTERS: dict[str, Callable[[Tasks, Kernel, int, ExitStack], Prepared]] = {
    "bare Python loop": bare_loop,
    "dataflow": ours,
    "asyncio.to_thread, a task per op": one_task_per_op,
    "ThreadPoolExecutor + graphlib": executor_graphlib,
    "dask.threaded": dask_threaded,
}
