"""Whether runs get their turns: a tiny one behind a huge one, and many at once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.job import loop_factory
from tests.benchmarks.adapters.ours import declare
from tests.benchmarks.kernels import Kernel, nothing, one_call
from tests.benchmarks.measure import Figure, Options, frozen
from tests.benchmarks.measures.lag import percentile
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.section import Section

__all__ = ["fairness"]

PROBES, READY = 30, (100_000, 20_000)
SIZES = [100e-6, 1e-3, 5e-3]
RUNS, RUN_NODES = 200, 500


def fairness(options: Options) -> list[Section]:
    """How long a run of one node waits behind 100,000 ready ones, and what 200 runs at once cost."""
    with ExitStack() as stack:
        stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())
        flow.set_num_interop_threads(options.threads)
        loop = stack.enter_context(asyncio.Runner(loop_factory=loop_factory())).get_loop()
        return [_behind(loop, options), _many(loop, options)]


def _behind(loop: asyncio.AbstractEventLoop, options: Options) -> Section:
    ready = options.either(*READY)
    rows = []
    for size in SIZES:
        compute = one_call(size)
        big = declare(make_tasks("wide", ready), compute.kernel)
        big.graph()
        with frozen():
            waits, kernel = loop.run_until_complete(_probe(big, compute.kernel, size, options.either(PROBES, 10)))
        times = [wait / kernel for wait in waits]
        rows.append([f"{size * 1e3:g}", Figure.of(times), f"{max(times):.2f}", f"{percentile(waits, 0.5) * 1e3:.3g}"])
    method = (
        f"A run of one node is awaited while a run of {ready:,} ready nodes goes on with the same kernel on "
        f"{options.threads} threads: the time from the call until its kernel starts, in times of a kernel (measured "
        f"alone); {options.either(PROBES, 10)} probes each. The big run is cancelled afterwards."
    )
    head = ["kernel, ms", "waits, in kernels", "longest", "median wait, ms"]
    return Section("Fair shares: a small run behind a big one", method, head, rows)


async def _probe(big: Any, kernel: Kernel, size: float, probes: int) -> tuple[list[float], float]:
    started: list[float] = []

    @flow.op
    def probe() -> None:
        started.append(perf_counter())
        kernel()

    @flow.pipeline
    def small() -> None:
        probe()

    small.graph()
    before = perf_counter()
    for _ in range(5):
        kernel()
    alone = (perf_counter() - before) / 5
    running = asyncio.ensure_future(big())
    await asyncio.sleep(20 * size)
    waits = []
    for _ in range(probes):
        called = perf_counter()
        await small()
        waits.append(started[-1] - called)
    if running.done():
        raise AssertionError("the big run was over before the last probe: they waited behind nothing")
    running.cancel()
    await asyncio.wait([running])
    await flow.quiet()
    return waits, alone


def _many(loop: asyncio.AbstractEventLoop, options: Options) -> Section:
    rows = []
    rounds = options.either(3, 2)
    kernels = {"empty": nothing} | options.either({f"{us} µs": one_call(us * 1e-6).kernel for us in (20, 50)}, {})
    for name, kernel in kernels.items():
        small = declare(make_tasks("stencil_1d", RUN_NODES), kernel)
        big = declare(make_tasks("stencil_1d", RUNS * RUN_NODES), kernel)
        for pipeline in (small, big):
            pipeline.graph()
            pipeline.run()
        figures: list[list[float]] = [[], [], [], []]
        with frozen():
            for _ in range(rounds):
                for into, value in zip(figures, loop.run_until_complete(_at_once(small, big))):
                    into.append(value)
        scale = 1e6 / (RUNS * RUN_NODES)
        cells = [Figure.of(values, scale) for values in figures[:3]]
        rows.append([name, *cells, Figure.of(figures[3])])
    method = (
        f"{RUNS} runs of {RUN_NODES} nodes (stencil_1d): µs a node, median (quartiles) of {rounds} rounds, "
        f"{options.threads} threads. The last column says how fair the shares of the runs at once were: when the "
        f"median run had ended, as a share of the time that all took (near 1 if they all take turns, 0.5 one by one)."
    )
    head = ["kernel", "one run of as many nodes", "runs one after another", "runs at once", "the median run ends at"]
    return Section("Fair shares: many runs at once", method, head, rows)


async def _at_once(small: Any, big: Any) -> tuple[float, float, float, float]:
    before = perf_counter()
    await big()
    single = perf_counter() - before
    before = perf_counter()
    for _ in range(RUNS):
        await small()
    serial = perf_counter() - before
    ends: list[float] = []

    async def run() -> None:
        await small()
        ends.append(perf_counter())

    before = perf_counter()
    await asyncio.gather(*[run() for _ in range(RUNS)])
    together = perf_counter() - before
    return single, serial, together, (percentile(ends, 0.5) - before) / together
