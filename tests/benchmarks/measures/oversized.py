"""What it costs to set far more inter-op threads than there are CPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import dataflow as flow
from tests.benchmarks.adapters.job import loop_factory
from tests.benchmarks.adapters.ours import declare
from tests.benchmarks.kernels import nothing, one_call, series
from tests.benchmarks.measure import Figure, Options, frozen, interleaved, seconds
from tests.benchmarks.measures.network import load
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.section import Section

__all__ = ["oversized"]

TOO_MANY = 64
NODES = 1_000, 320
"""Of kernels of 100 µs, thorough and quick."""


def oversized(options: Options) -> list[Section]:
    """Milliseconds of several loads at one, at the right number of, and at 64 inter-op threads."""
    settings = sorted({1, options.threads, TOO_MANY})
    rows, rounds = [], max(1, options.repeats * 2 // 3)
    with ExitStack() as stack:
        stack.callback(flow.set_num_interop_threads, flow.get_num_interop_threads())
        loop = stack.enter_context(asyncio.Runner(loop_factory=loop_factory())).get_loop()
        for name, main in _loads(options).items():
            cases = {threads: partial(_timed, loop, main, threads) for threads in settings}
            with frozen():
                measured = interleaved(cases, rounds)
            figures = {threads: Figure.of(measured[threads], 1e3) for threads in settings}
            best = min(figure.median for threads, figure in figures.items() if threads != TOO_MANY)
            rows.append([name, *figures.values(), f"{figures[TOO_MANY].median / best:.2f}×"])
    method = f"ms, median (quartiles) of {rounds} rounds; the last column is against the best of the others."
    head = ["", *[f"{threads} inter-op threads" for threads in settings], f"{TOO_MANY} / best"]
    return [Section("Inter-op set too high", method, head, rows)]


def _loads(options: Options) -> dict[str, Callable[[], Any]]:
    _, infer, pictures = load()
    nodes = options.either(*NODES)
    kernels = {
        "empty kernels": (nothing, 10 * nodes),
        "10 µs": (one_call(10e-6).kernel, 4 * nodes),
        "100 µs": (one_call(100e-6).kernel, nodes),
        "100 µs in calls of 10 µs": (series(100e-6).kernel, nodes),
        "1 ms": (one_call(1e-3).kernel, nodes // 8),
    }
    loads: dict[str, Callable[[], Any]] = {
        f"{pattern}, {name}": declare(make_tasks(pattern, size), kernel)
        for pattern in ("wide", "stencil_1d")
        for name, (kernel, size) in kernels.items()
    }

    async def requests() -> None:
        await asyncio.gather(*map(infer, pictures))

    return loads | {"the network, four requests": requests}


def _timed(loop: asyncio.AbstractEventLoop, main: Callable[[], Any], threads: int) -> float:
    async def run() -> None:
        await main()

    if flow.get_num_interop_threads() != threads:
        flow.set_num_interop_threads(threads)
        loop.run_until_complete(run())
    return seconds(lambda: loop.run_until_complete(run()))
