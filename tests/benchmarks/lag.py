"""How late the event loop is while the inter-op threads are busy.

A coroutine sleeps for a millisecond again and again; what it wakes late is the lag. It runs on asyncio's own loop, for
uvloop's timers count whole milliseconds. What blocks runs in a thread, as an application would have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

from tests.benchmarks.adapters import BARE, Adapter, Prepared, installed
from tests.benchmarks.effort import Effort
from tests.benchmarks.kernels import Kernel, nothing, one_call
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.tables import table

__all__ = ["lag"]

PATTERN = "stencil_1d"
KERNEL = 100e-6
STEP = 1e-3
IDLE = "nothing, an idle loop"


async def lag(effort: Effort) -> str:
    """p99 and greatest lag under kernels of 100 µs, and under empty ones in several runs one after another."""
    with ThreadPoolExecutor(1) as own:  # a thread of its own, for this one has a loop already
        return await asyncio.get_running_loop().run_in_executor(own, _table, effort)


def _table(effort: Effort) -> str:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        busy = runner.run(_lags(one_call(KERNEL).kernel, effort))
        empty = runner.run(_lags(nothing, effort))
    rows = [[name, *_tail(busy[name]), *_tail(empty[name])] for name in busy]
    title = f"lag in ms under {effort.lag_nodes:,} tasks of {PATTERN}"
    return table([title, "100 µs: p99", "max", "empty: p99", "max"], rows)


def _tail(lags: list[float]) -> list[str]:
    ordered = sorted(lags)
    return [f"{1e3 * ordered[int(0.99 * (len(ordered) - 1))]:.2f}", f"{1e3 * ordered[-1]:.2f}"]


async def _lags(kernel: Kernel, effort: Effort) -> dict[str, list[float]]:
    lags: dict[str, list[float]] = {}
    tasks = make_tasks(PATTERN, effort.lag_nodes)
    with ExitStack() as stack:
        cases: dict[str, Callable[[], Awaitable[Any]]] = {IDLE: partial(asyncio.sleep, 0.3)}
        for adapter in _rivals():
            cases[adapter.name] = partial(_loaded, adapter.prepare(tasks, kernel, effort.threads, stack))
        for case in cases.values():
            await case()
        for _ in range(min(3, effort.rounds)):
            for name, case in cases.items():
                lags.setdefault(name, []).extend(await _under(case))
    return lags


def _rivals() -> list[Adapter]:
    return [adapter for adapter in installed() if adapter is not BARE]


async def _loaded(prepared: Prepared) -> None:
    prepared.take_turn()
    if prepared.blocks:
        await asyncio.to_thread(prepared.run)
    else:
        await prepared.results()


async def _under(case: Callable[[], Awaitable[Any]]) -> list[float]:
    """The lags while this runs once and, where that is soon over, again for a tenth of a second."""
    lags: list[float] = []
    probe = asyncio.create_task(_probe(lags))
    await asyncio.sleep(0)
    end = perf_counter() + 0.1
    await case()
    while perf_counter() < end:
        await case()
    await asyncio.sleep(2 * STEP)  # the last lag is not lost
    probe.cancel()
    return lags


async def _probe(lags: list[float]) -> None:
    while True:
        before = perf_counter()
        await asyncio.sleep(STEP)
        lags.append(max(0.0, perf_counter() - before - STEP))
