"""How long awaiting a tiny pipeline takes, in hops: to an idle thread and back to the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.job import loop_factory
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, Options, interleaved
from tests.benchmarks.section import Section

__all__ = ["latency"]

AWAITS = 100
HOP = "one bare hop"


def latency(options: Options) -> list[Section]:
    """Microseconds of awaiting three nodes, on asyncio's own loop and on uvloop."""
    factories = {"asyncio": None} | ({"uvloop": loop_factory()} if loop_factory() else {})
    sections = []
    for name, factory in factories.items():
        with ExitStack() as stack:
            stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())
            flow.set_num_interop_threads(options.threads)
            pool = stack.enter_context(ThreadPoolExecutor(1))
            loop = stack.enter_context(asyncio.Runner(loop_factory=factory)).get_loop()
            cases = {case: partial(_timed, loop, main) for case, main in _cases(pool).items()}
            for case in cases.values():
                case()
            measured = interleaved(cases, options.repeats * 5)
        sections.append(_section(name, measured, options))
    return sections


def _section(loop: str, measured: dict[str, list[float]], options: Options) -> Section:
    hop = Figure.of(measured[HOP]).median
    rows = [[name, Figure.of(v, 1e6), f"{Figure.of(v).median / hop:.2f}"] for name, v in measured.items()]
    method = (
        f"µs of one await, the mean of {AWAITS} in a row: median (quartiles) of {options.repeats * 5} rounds. "
        f"Empty kernels, {options.threads} inter-op threads."
    )
    return Section(f"Latency of a small pipeline, {loop}", method, ["to await", "µs", "hops"], rows)


def _cases(pool: ThreadPoolExecutor) -> dict[str, Callable[[], Awaitable[Any]]]:
    operator = flow.op(nothing)

    @flow.pipeline
    def three() -> Any:
        return operator(operator(), operator())

    @flow.pipeline
    def single() -> Any:
        return operator()

    async def hop() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pool.submit(loop.call_soon_threadsafe, done.set_result, None)
        await done

    async def calls() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await loop.run_in_executor(pool, nothing)

    return {HOP: hop, "a pipeline of one node": single, "of three nodes": three, "run_in_executor three times": calls}


def _timed(loop: asyncio.AbstractEventLoop, main: Callable[[], Awaitable[Any]]) -> float:
    async def awaits() -> float:
        before = perf_counter()
        for _ in range(AWAITS):
            await main()
        return (perf_counter() - before) / AWAITS

    return loop.run_until_complete(awaits())
