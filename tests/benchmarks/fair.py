"""Fair shares: a small run behind a big one, and many runs at once."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.ours import at_threads, pipeline_of
from tests.benchmarks.effort import Effort
from tests.benchmarks.kernels import one_call
from tests.benchmarks.measure import Figure, interleaved
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.tables import table

__all__ = ["fair"]

KERNELS = 100e-6, 1e-3
"""Seconds of the big run's kernels."""
SMALL = 50e-6
"""Seconds of a kernel in the many runs at once."""


@flow.pipeline
def _clock() -> Any:
    return flow.op(lambda: perf_counter(), name="clock")()


async def fair(effort: Effort) -> str:
    """When a run of one node starts behind a run of many ready ones; what running many at once costs each."""
    with ExitStack() as stack:
        at_threads(effort.threads, stack)
        return f"{await _behind(effort)}\n\n{await _at_once(effort)}"


async def _behind(effort: Effort) -> str:
    rows = []
    for seconds in KERNELS:
        compute = one_call(seconds)
        kernel_time = statistics.median(_time(compute.kernel) for _ in range(21))
        big = pipeline_of(make_tasks("wide", effort.ready_nodes), compute.kernel)
        big.graph()
        starts = [delay for _ in range(effort.rounds) for delay in await _small_runs(big)]
        figure = Figure.of(starts)
        times = f"{figure.median / kernel_time:.2f}", f"{max(starts) / kernel_time:.2f}"
        rows.append([f"kernels of {kernel_time * 1e6:.0f} µs", Figure.of(starts, 1e6), *times])
    title = f"a run of 1 node behind {effort.ready_nodes:,} ready ones starts after"
    return table([title, "µs, median (quartiles)", "in kernel times", "the latest"], rows)


def _time(kernel: Any) -> float:
    before = perf_counter()
    kernel()
    return perf_counter() - before


async def _small_runs(big: flow.Pipeline[[], Any]) -> list[float]:
    """The delays from the call to the kernel's start of small runs, one after another, while the big run goes on."""
    crowd = asyncio.ensure_future(big())
    try:
        await asyncio.sleep(0.02)  # both threads are busy with it
        delays = []
        for _ in range(10):
            if crowd.done():  # it fell idle: what follows would not be behind anything
                break
            before = perf_counter()
            delays.append(await _clock() - before)
        return delays
    finally:
        crowd.cancel()
        await asyncio.wait([crowd])


async def _at_once(effort: Effort) -> str:
    runs, nodes = effort.runs
    pipeline = pipeline_of(make_tasks("stencil_1d", nodes), one_call(SMALL).kernel)
    await pipeline()
    ends: list[float] = []
    cases = {"one after another": partial(_serial, pipeline, runs), "at once": partial(_together, pipeline, runs, ends)}
    measured = await interleaved(cases, min(3, effort.rounds))
    alone = Figure.of(measured["one after another"]).median
    rows: list[list[object]] = [
        [name, Figure.of(walls), f"{alone / Figure.of(walls).median:.2f}"] for name, walls in measured.items()
    ]
    rows.append(["at once: the first of them ends after", f"{min(ends):.3g}", ""])
    return table([f"{runs} runs of {nodes} nodes of {SMALL * 1e6:.0f} µs", "s, median (quartiles)", "speed"], rows)


async def _serial(pipeline: flow.Pipeline[[], Any], runs: int) -> float:
    before = perf_counter()
    for _ in range(runs):
        await pipeline()
    return perf_counter() - before


async def _together(pipeline: flow.Pipeline[[], Any], runs: int, ends: list[float]) -> float:
    before = perf_counter()

    async def run() -> None:
        await pipeline()
        ends.append(perf_counter() - before)

    await asyncio.gather(*(run() for _ in range(runs)))
    return perf_counter() - before
