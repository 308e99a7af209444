"""What a node costs where the kernel does nothing, in microseconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters import ADAPTERS, Kernel
from tests.benchmarks.measure import Figure, interleaved, seconds
from tests.benchmarks.patterns import Tasks, make_tasks
from tests.benchmarks.tables import table

__all__ = ["build", "check", "latency", "overhead"]

BARE = "bare Python loop"


def nothing(*_: Any) -> None:
    """The empty kernel."""


def overhead(patterns: list[str], nodes: int, threads: int, repeats: int) -> str:
    """Microseconds a node of every adapter on every pattern, and how many times the bare loop's that is."""
    figures: dict[str, list[str]] = {name: [] for name in ADAPTERS}
    for pattern in patterns:
        tasks = make_tasks(pattern, nodes)
        check(tasks, threads)
        with ExitStack() as stack:
            runs = {name: adapter(tasks, nothing, threads, stack) for name, adapter in ADAPTERS.items()}
            for run in runs.values():
                run()  # threads start, and lanes learn what kernels cost
            measured = interleaved({name: partial(seconds, run) for name, run in runs.items()}, repeats)
        bare = Figure.of(measured[BARE]).median
        for name, values in measured.items():
            figure = Figure.of(values, 1e6 / len(tasks))
            ratio = Figure.of(values).median / bare
            figures[name].append(str(figure) if name == BARE else f"{figure} {ratio:.3g}×")
    return table(["µs a node, median (quartiles)", *patterns], [[name, *row] for name, row in figures.items()])


def check(tasks: Tasks, threads: int) -> None:
    """Every adapter gives what the bare loop gives, and calls every kernel once."""
    expected = None
    for name, adapter in ADAPTERS.items():
        kernel, count = counting_kernel()
        with ExitStack() as stack:
            result = adapter(tasks, kernel, threads, stack)()
        if expected is None:
            expected = result
        if result != expected or count() != len(tasks):
            raise AssertionError(f"{name}: wrong results, or {count()} kernels of {len(tasks)}")


def counting_kernel() -> tuple[Kernel, Callable[[], int]]:
    """A kernel whose result depends on all that is before it, and how often it was called."""
    lock, calls = threading.Lock(), 0

    def kernel(*inputs: int) -> int:
        nonlocal calls
        with lock:
            calls += 1
        return (31 * sum(inputs) + len(inputs) + 1) % 1_000_003

    return kernel, lambda: calls


def build(patterns: list[str], nodes: int, repeats: int) -> str:
    """Microseconds a node of tracing and planning, and of the first run of a fresh plan against a later one."""
    rows: list[list[object]] = [["trace and plan"], ["first run of a plan"], ["later run"]]
    operator = flow.op(nothing)
    for pattern in patterns:
        tasks = make_tasks(pattern, nodes)

        def body(tasks: Tasks = tasks) -> Any:
            values: list[Any] = []
            for task in tasks:
                values.append(operator(*[values[i] for i in task]))
            return values[-1]

        traced: list[float] = []
        first: list[float] = []
        later: list[float] = []
        for _ in range(repeats):
            pipeline = flow.pipeline(body)
            traced.append(seconds(pipeline.graph))
            first.append(seconds(pipeline.run))
            pipeline.run()
            later.append(seconds(pipeline.run))
        for row, values in zip(rows, (traced, first, later), strict=True):
            row.append(Figure.of(values, 1e6 / len(tasks)))
    return table(["µs a node, median (quartiles)", *patterns], rows)


def latency(repeats: int) -> str:
    """Microseconds of awaiting three empty nodes, beside one bare hop and a hop for each."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from time import perf_counter

    operator = flow.op(nothing)

    @flow.pipeline
    def three() -> Any:
        return operator(operator(), operator())

    pool = ThreadPoolExecutor(1)

    async def hop() -> None:
        """To an idle thread and back, and nothing else."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pool.submit(loop.call_soon_threadsafe, done.set_result, None)
        await done

    async def three_hops() -> None:
        for _ in range(3):
            await asyncio.to_thread(nothing)

    async def time(case: Callable[[], Any]) -> float:
        before = perf_counter()
        for _ in range(100):
            await case()
        return (perf_counter() - before) / 100

    with ExitStack() as stack:
        stack.callback(pool.shutdown)
        runner = stack.enter_context(asyncio.Runner())
        cases = {"one bare hop": hop, "a pipeline of three nodes": three, "asyncio.to_thread three times": three_hops}
        for case in cases.values():
            runner.run(time(case))
        measured = interleaved(
            {name: lambda case=case: runner.run(time(case)) for name, case in cases.items()}, repeats
        )  # type: ignore[misc]
    bare = Figure.of(measured["one bare hop"]).median
    rows = [[name, Figure.of(v, 1e6), f"{Figure.of(v).median / bare:.2f}"] for name, v in measured.items()]
    return table(["to await", "µs, median (quartiles)", "hops"], rows)
