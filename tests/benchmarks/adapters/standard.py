"""What one writes by hand with the standard library."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from typing import Any

from tests.benchmarks.adapters.job import Blocking, Job, OnLoop
from tests.benchmarks.kernels import Kernel
from tests.benchmarks.patterns import Tasks, sinks

__all__ = ["executor_graphlib", "loop_driven", "task_per_op", "threads_on_a_heap"]


def task_per_op(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """An asyncio task for each op, which awaits its inputs and then `run_in_executor`."""
    last = sinks(tasks)
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        started: list[asyncio.Task[Any]] = []

        async def op(reads: tuple[int, ...]) -> Any:
            return await loop.run_in_executor(pool, kernel, *[await started[i] for i in reads])

        for task in tasks:
            started.append(loop.create_task(op(task)))  # noqa: PERF401  # ops look into the list
        await asyncio.gather(*started)
        return [started[i].result() for i in last]

    return OnLoop(main, stack)


def loop_driven(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """A scheduler on the event loop: it hands out one kernel a thread, and hears of the end of each."""
    last, readers = sinks(tasks), _readers(tasks)
    roots = [task for task, reads in enumerate(tasks) if not reads]
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        finished = loop.create_future()
        values: list[Any] = [None] * len(tasks)
        missing, ready = list(map(len, tasks)), deque(roots)
        free, left = threads, len(tasks)

        def execute(task: int, inputs: list[Any]) -> None:
            try:
                result = kernel(*inputs)
            except BaseException as error:
                loop.call_soon_threadsafe(finished.set_exception, error)
            else:
                loop.call_soon_threadsafe(done, task, result)

        def hand_out() -> None:
            nonlocal free
            while ready and free:
                free -= 1
                task = ready.popleft()
                pool.submit(execute, task, [values[i] for i in tasks[task]])

        def done(task: int, result: Any) -> None:
            nonlocal free, left
            values[task] = result
            free, left = free + 1, left - 1
            for reader in readers[task]:
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
            if left:
                hand_out()
            else:
                finished.set_result(None)

        hand_out()
        await finished
        return [values[i] for i in last]

    return OnLoop(main, stack)


def executor_graphlib(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """`graphlib` says what is ready, a ThreadPoolExecutor runs it."""
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

    return Blocking(run)


def threads_on_a_heap(tasks: Tasks, kernel: Kernel, threads: int, stack: ExitStack) -> Job:
    """Threads take ready tasks from a heap under one lock: the least that keeps two threads at work.

    It blocks its caller, keeps every value, cannot be cancelled, and hangs if a kernel fails.
    """
    last, readers = sinks(tasks), _readers(tasks)
    counts, roots = list(map(len, tasks)), [task for task, reads in enumerate(tasks) if not reads]
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    def run() -> list[Any]:
        values: list[Any] = [None] * len(tasks)
        missing, ready, changed = counts.copy(), roots.copy(), threading.Condition(threading.Lock())
        left, idle = len(tasks), 0

        def work() -> None:
            nonlocal left, idle
            task = -1
            while True:
                with changed:
                    if task >= 0:
                        left -= 1
                        for reader in readers[task]:
                            missing[reader] -= 1
                            if not missing[reader]:
                                heappush(ready, reader)
                        if not left:
                            changed.notify_all()
                        elif idle and len(ready) > 1:
                            changed.notify()
                    while left and not ready:
                        idle += 1
                        changed.wait()
                        idle -= 1
                    if not left:
                        return
                    task = heappop(ready)
                values[task] = kernel(*[values[i] for i in tasks[task]])

        for future in [pool.submit(work) for _ in range(threads)]:
            future.result()
        return [values[i] for i in last]

    return Blocking(run)


def _readers(tasks: Tasks) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in tasks]
    for task, reads in enumerate(tasks):
        for dependency in reads:
            readers[dependency].append(task)
    return readers
