"""What a node costs before its first run, and how both costs grow with the graph."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from time import perf_counter
from typing import Any

from tests.benchmarks.adapters import ADAPTERS, BARE, OURS, OURS_ALONE
from tests.benchmarks.adapters.ours import pipeline_of
from tests.benchmarks.effort import Effort
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, interleaved
from tests.benchmarks.patterns import Tasks, make_tasks
from tests.benchmarks.tables import table

__all__ = ["build"]

PATTERN = "stencil_1d"
DELAYED_UP_TO = 10_000
"""Nodes; dask.delayed's cost a node grows."""
DASK_UP_TO = 100_000
"""Nodes of a raw graph that dask runs here: a million takes it most of a minute."""


async def build(effort: Effort) -> str:
    """Microseconds a node of building a graph and of running it, for sizes up to the greatest of `effort.growth`."""
    built: dict[str, list[object]] = {}
    ran: dict[str, list[object]] = {}
    for nodes in effort.growth:
        tasks = make_tasks(PATTERN, nodes)
        rounds = effort.rounds if nodes <= DELAYED_UP_TO else min(3, effort.rounds)
        for rows, figures in (built, await _building(tasks, rounds)), (ran, await _running(tasks, rounds, effort)):
            for name, figure in figures.items():
                rows.setdefault(name, []).append(figure)
    sizes = [f"{nodes:,}" for nodes in effort.growth]
    return f"{_table('to build', built, sizes)}\n\n{_table('to run', ran, sizes)}"


def _table(what: str, rows: dict[str, list[object]], sizes: list[str]) -> str:
    padded = [[name, *row, *[""] * (len(sizes) - len(row))] for name, row in rows.items()]
    return table([f"{what} a node of {PATTERN}, µs", *sizes], padded)


async def _building(tasks: Tasks, rounds: int) -> dict[str, Figure]:
    makers: dict[str, Callable[[], Any]] = {"dataflow: trace and plan": lambda: pipeline_of(tasks, nothing).graph()}
    if _has_dask():
        makers["dask: a raw graph"] = lambda: {task: (nothing, *inputs) for task, inputs in enumerate(tasks)}
        if len(tasks) <= DELAYED_UP_TO:
            makers["dask.delayed"] = partial(_delayed, tasks)
    return await _figures({name: partial(_timed, make) for name, make in makers.items()}, len(tasks), rounds)


def _has_dask() -> bool:
    return any(adapter.package == "dask" and adapter.installed for adapter in ADAPTERS)


def _delayed(tasks: Tasks) -> Any:
    import dask

    operator, values = dask.delayed(nothing), []
    for task in tasks:
        values.append(operator(*[values[i] for i in task]))  # it reads the list that it makes
    return values[-1].__dask_graph__()


async def _timed(make: Callable[[], Any]) -> float:
    gc.collect()
    before = perf_counter()
    made = make()
    seconds = perf_counter() - before
    del made  # taking it down is not building it
    return seconds


async def _running(tasks: Tasks, rounds: int, effort: Effort) -> dict[str, Figure]:
    raced = [BARE, OURS, OURS_ALONE]
    raced += [a for a in ADAPTERS if a.package == "dask" and a.installed and len(tasks) <= DASK_UP_TO]
    with ExitStack() as stack:
        runs = {adapter.name: adapter.prepare(tasks, nothing, effort.threads, stack) for adapter in raced}
        for run in runs.values():
            await run.results()
        return await _figures({name: run.seconds for name, run in runs.items()}, len(tasks), rounds)


async def _figures(cases: dict[str, Callable[[], Awaitable[float]]], nodes: int, rounds: int) -> dict[str, Figure]:
    measured = await interleaved(cases, rounds)
    return {name: Figure.of(values, 1e6 / nodes) for name, values in measured.items()}
