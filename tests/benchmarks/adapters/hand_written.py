"""What one writes by hand from the parts of the standard library."""

from __future__ import annotations

import asyncio
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from graphlib import TopologicalSorter
from typing import Any

from tests.benchmarks.adapters.adapter import Adapter, Prepared
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["BY_HAND"]


def _graphlib(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """`graphlib` says what is ready, a ThreadPoolExecutor runs it, the caller waits for whichever is done first."""
    last, graph = sinks(tasks), dict(enumerate(tasks))
    pool = stack.enter_context(ThreadPoolExecutor(threads))

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

    return Prepared(run)


def _task_per_op(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    """An asyncio task for each op, which awaits its inputs and then a thread of the pool."""
    last = sinks(tasks)
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    async def run() -> list[Any]:
        in_thread = asyncio.get_running_loop().run_in_executor
        started: list[asyncio.Task[Any]] = []

        async def op(inputs: tuple[int, ...]) -> Any:
            return await in_thread(pool, kernel, *[await started[i] for i in inputs])

        for task in tasks:
            started.append(asyncio.create_task(op(task)))  # noqa: PERF401  # op() reads the list
        await asyncio.gather(*started)
        return [started[i].result() for i in last]

    return Prepared(run)


class _LoopDriven:
    """One run of a scheduler on the event loop: counts there, kernels on a pool, `call_soon_threadsafe` back."""

    def __init__(self, tasks: Tasks, readers: list[list[int]], kernel: Kernel, pool: ThreadPoolExecutor) -> None:
        self.tasks, self.readers, self.kernel, self.pool = tasks, readers, kernel, pool
        self.waits_for, self.left = [len(task) for task in tasks], len(tasks)
        self.values: list[Any] = [None] * len(tasks)
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()

    def start(self, task: int) -> None:
        future = self.pool.submit(self.kernel, *[self.values[i] for i in self.tasks[task]])
        future.add_done_callback(lambda future: self.loop.call_soon_threadsafe(self.done, task, future))

    def done(self, task: int, future: Future[Any]) -> None:
        self.values[task] = future.result()
        self.left -= 1
        if not self.left:
            self.finished.set_result(None)
        for reader in self.readers[task]:
            self.waits_for[reader] -= 1
            if not self.waits_for[reader]:
                self.start(reader)


def _loop_driven(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Prepared:
    pool = stack.enter_context(ThreadPoolExecutor(threads))
    last, readers = sinks(tasks), _readers(tasks)

    async def run() -> list[Any]:
        scheduler = _LoopDriven(tasks, readers, kernel, pool)
        for task, inputs in enumerate(tasks):
            if not inputs:
                scheduler.start(task)
        await scheduler.finished
        return [scheduler.values[i] for i in last]

    return Prepared(run)


def _readers(tasks: Tasks) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in tasks]
    for task, inputs in enumerate(tasks):
        for i in inputs:
            readers[i].append(task)
    return readers


BY_HAND = [
    Adapter("ThreadPoolExecutor + graphlib", _graphlib),
    Adapter("loop-driven scheduler", _loop_driven),
    Adapter("one asyncio task per op + run_in_executor", _task_per_op),
]
