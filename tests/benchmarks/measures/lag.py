"""How late the event loop is while kernels keep all threads busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from time import perf_counter

from tests.benchmarks.adapters import BARE, LIMIT, Adapter, Job, adapters
from tests.benchmarks.kernels import Kernel, nothing, one_call
from tests.benchmarks.measure import Options, frozen, interleaved
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.section import Section

__all__ = ["lag", "percentile"]

TICK = 1e-3
NODES, SECONDS = (10_000, 2_000), (0.5, 0.2)
"""Thorough and quick: nodes of a graph, and for how long it is run in each round."""
QUICK_OTHERS = ["ThreadPoolExecutor + graphlib", "dask.threaded"]


def lag(options: Options) -> list[Section]:
    """Milliseconds that a timer comes late: p99 and greatest, beside those of an idle loop."""
    nodes = options.either(*NODES)
    return [
        _section("kernels of 100 µs", one_call(100e-6).kernel, nodes, options),
        _section("empty kernels", nothing, nodes, options),
    ]


def percentile(values: list[float], share: float) -> float:
    """The least value that this share of all does not exceed.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.75)
    3.0
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _section(title: str, kernel: Kernel, nodes: int, options: Options) -> Section:
    taking_part = [LIMIT] + [
        adapter for adapter in adapters(without=(BARE,)) if not (options.quick and adapter.slow) or _quick(adapter)
    ]
    lags: dict[str, list[float]] = {"an idle loop": [], **{adapter.name: [] for adapter in taking_part}}
    with ExitStack() as stack:
        loop = stack.enter_context(asyncio.Runner()).get_loop()  # uvloop's timers know whole milliseconds only
        jobs: dict[str, Job | None] = {"an idle loop": None}
        for adapter in taking_part:
            pattern = "trivial" if adapter is LIMIT else "stencil_1d"
            tasks = make_tasks(pattern, min(nodes, adapter.most_nodes))
            jobs[adapter.name] = adapter.prepare(tasks, kernel, options.threads, stack)
        cases: dict[str, Callable[[], float]] = {
            name: partial(_collect, loop, job, lags[name], options.either(*SECONDS)) for name, job in jobs.items()
        }
        with frozen():
            interleaved(cases, options.either(3, 1))
    rows = [
        [name, *[f"{percentile(found, share) * 1e3:.2f}" for share in (0.5, 0.99, 1)], len(found)]
        for name, found in lags.items()
    ]
    method = (
        f"ms that a timer of 1 ms comes late on asyncio's own loop, while graphs of {nodes:,} nodes (hamilton and "
        f"tawazi at most 1,000; stencil_1d) are run again and again on {options.threads} threads, "
        f"{options.either(3, 1)} × {options.either(*SECONDS)} s. What blocks its caller is called in a thread. "
        f"{LIMIT.name}: tasks that do not depend on each other, and no scheduler; the loop comes late all the same."
    )
    return Section(f"Event-loop lag, {title}", method, ["", "median", "p99", "greatest", "timers"], rows)


def _quick(adapter: Adapter) -> bool:
    return adapter.name in QUICK_OTHERS


def _collect(loop: asyncio.AbstractEventLoop, job: Job | None, lags: list[float], least: float) -> float:
    """Adds the lags seen in at least this many seconds to `lags`."""
    if job is not None:
        job.ready()

    async def load() -> None:
        ends = perf_counter() + least
        while perf_counter() < ends:
            await (job.awaited() if job is not None else asyncio.sleep(least))

    async def main() -> float:
        running = asyncio.ensure_future(load())
        await asyncio.sleep(0)
        while not running.done():
            before = perf_counter()
            await asyncio.sleep(TICK)
            lags.append(perf_counter() - before - TICK)
        await running
        return 0.0

    return loop.run_until_complete(main())
