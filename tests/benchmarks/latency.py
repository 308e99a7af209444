"""What awaiting a small pipeline takes, in bare hops: to an idle thread and back, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.ours import at_threads
from tests.benchmarks.effort import Effort
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, interleaved
from tests.benchmarks.tables import table

__all__ = ["latency"]

CALLS = 100
HOP = "a bare hop"


@flow.pipeline
def _three() -> Any:
    operator = flow.op(nothing)
    return operator(operator(operator()))


async def latency(effort: Effort) -> str:
    """A chain of three empty nodes, a bare hop, and `asyncio.to_thread` for each of three calls."""
    with ExitStack() as stack:
        at_threads(effort.threads, stack)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        cases: dict[str, Callable[[], Awaitable[Any]]] = {
            HOP: partial(_hop, pool),
            "a pipeline of three nodes": _three,
            "asyncio.to_thread, three times": _three_threads,
        }
        for case in cases.values():
            await _seconds(case)
        measured = await interleaved({name: partial(_seconds, case) for name, case in cases.items()}, 5 * effort.rounds)
    bare = Figure.of(measured[HOP]).median
    rows = [[name, Figure.of(v, 1e6), f"{Figure.of(v).median / bare:.2f}"] for name, v in measured.items()]
    return table(["to await", "µs, median (quartiles)", "hops"], rows)


async def _seconds(case: Callable[[], Awaitable[Any]]) -> float:
    before = perf_counter()
    for _ in range(CALLS):
        await case()
    return (perf_counter() - before) / CALLS


async def _hop(pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    pool.submit(loop.call_soon_threadsafe, done.set_result, None)
    await done


async def _three_threads() -> None:
    for _ in range(3):
        await asyncio.to_thread(nothing)
