"""What a node costs where the kernel does nothing, in microseconds, and how many times the bare loop's that is."""

from __future__ import annotations

from contextlib import ExitStack

from tests.benchmarks.adapters import BARE, installed
from tests.benchmarks.effort import Effort
from tests.benchmarks.kernels import nothing
from tests.benchmarks.measure import Figure, interleaved
from tests.benchmarks.patterns import make_tasks
from tests.benchmarks.tables import table

__all__ = ["overhead"]


async def overhead(effort: Effort) -> str:
    """Every adapter on every pattern with the empty kernel."""
    rows: dict[str, list[object]] = {adapter.name: [] for adapter in installed()}
    for pattern in effort.patterns:
        measured = await _pattern(pattern, effort)
        bare = measured[BARE.name].median
        for name, figure in measured.items():
            rows[name].append(figure if name == BARE.name else f"{figure} {figure.median / bare:.3g}×")
    head = [f"µs a node, {effort.nodes:,} nodes: median (quartiles)", *effort.patterns]
    return table(head, [[name, *row] for name, row in rows.items()])


async def _pattern(pattern: str, effort: Effort) -> dict[str, Figure]:
    tasks = make_tasks(pattern, effort.nodes)
    with ExitStack() as stack:
        runs = {a.name: a.prepare(tasks, nothing, effort.threads, stack) for a in installed()}
        for run in runs.values():
            await run.results()  # threads start, and lanes learn what kernels cost
        measured = await interleaved({name: run.seconds for name, run in runs.items()}, effort.rounds)
    return {name: Figure.of(values, 1e6 / len(tasks)) for name, values in measured.items()}
